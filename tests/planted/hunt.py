"""Plants each bug of bugs.toml in a copy of the source, and hunts it with the swarm of simulations.

usage: tests/planted/hunt.py [--only NAME…] [--seeds N] [--save | --open]

A bug counts when all unit tests still pass with it, and some seed fails with it that does not fail without it. --save
writes docs/results/planted.json and the table of docs/SIMULATION.md; what an earlier call saved of other bugs stays.
Exit code 0 only if every bug counts and is found. --open hunts the bugs of open.toml, which nobody has found yet: what
is found there moves to bugs.toml.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COPY = ROOT / "build" / "planted"
BUILD = COPY / "build" / "release"  # as deep as the checkout's own, so that ccache knows its objects
PROGRAM = BUILD / "longhaul"
CLEAN = BUILD / "longhaul-clean"  # without any bug
RESULTS = ROOT / "docs" / "results" / "planted.json"
JOBS = max(2, os.cpu_count() or 2)
BEGIN, END = "<!-- planted bugs: begin -->", "<!-- planted bugs: end -->"


def read_bugs(file: str = "bugs.toml") -> list[dict]:
    bugs = tomllib.loads((ROOT / "tests" / "planted" / file).read_text())["bug"]
    for bug in bugs:
        occurrences = (ROOT / bug["file"]).read_text().count(bug["find"])
        if occurrences != 1:
            sys.exit(f"bug {bug['name']}: what it replaces occurs {occurrences} times in {bug['file']}, not once")
    return bugs


def copy_source() -> None:
    """Only what has changed is written, so that only that is compiled again."""
    COPY.mkdir(parents=True, exist_ok=True)
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        source, target = ROOT / name, COPY / name
        if not source.is_file():
            continue
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def run_quietly(*words: str | os.PathLike) -> tuple[bool, str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([str(w) for w in words], cwd=COPY, text=True, **pipes)
    return done.returncode == 0, done.stdout


def build() -> tuple[bool, str]:
    """Only what is needed: the program and the unit tests."""
    units = [f"{folder.relative_to(COPY)}/all" for folder in sorted((COPY / "tests" / "unit").iterdir())]
    return run_quietly("cmake", "--build", BUILD, "--target", "longhaul", *units, "--", f"-j{JOBS}")


def configure() -> None:
    ok, said = run_quietly("cmake", "--preset", "release", "-DLONGHAUL_TORCH=OFF")
    if ok:
        ok, said = build()
    if not ok:
        sys.exit(said[-4000:])
    shutil.copy(PROGRAM, CLEAN)


def test_programs() -> dict[str, bytes]:
    """Of each program with unit tests, what it is made of."""
    programs = (BUILD / "tests" / "unit").glob("*/*_test")
    return {p.name: hashlib.sha256(p.read_bytes()).digest() for p in programs}


def unit_tests(before: dict[str, bytes]) -> list[str]:
    """Those that fail, in programs that the bug has changed: the others cannot tell."""
    changed = [name for name, content in test_programs().items() if before[name] != content]
    if not changed:
        return []
    those = f"^({'|'.join(changed)}):"
    _, said = run_quietly("ctest", "--test-dir", BUILD, "-L", "^unit$", "-R", those, f"-j{JOBS}")
    return re.findall(r"^\s*\d+ - (.+?) \((?:Failed|Timeout|Subprocess|SEGFAULT)", said, re.M)


def play(program: pathlib.Path, seed: int) -> list[str]:
    """What broke. Each seed has a process of its own, so that a crash is that of one seed."""
    words = [program, "sim", "--swarm", "--seeds", f"{seed}..{seed}", "--json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return ["hangs: it did not end within 5 minutes"]
    try:
        return [broken for f in json.loads(done.stdout.splitlines()[-1])["failed"] for broken in f["broken"]]
    except (IndexError, ValueError):  # it crashed: an assertion of production found it
        sentence = next((line for line in done.stderr.splitlines() if "invariant" in line or "(I" in line), "")
        last = sentence or (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return [f"assertion: {last[:200]}"]


def hunt(seeds: int) -> dict | None:
    """The first failure, in the order of the seeds, that is the bug's: a seed that fails without it proves nothing."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        played = [(seed, pool.submit(play, PROGRAM, seed)) for seed in range(1, seeds + 1)]
        try:
            for seed, future in played:
                if (broken := future.result()) and not play(CLEAN, seed):
                    return {"seed": seed, "broken": broken}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return None


def examine(bug: dict, seeds: int, programs: dict[str, bytes]) -> dict:
    path = COPY / bug["file"]
    clean = path.read_text()
    result = {"name": bug["name"], "what": bug["what"], "unit_tests": [], "found": None}
    try:
        path.write_text(clean.replace(bug["find"], bug["replace"]))
        ok, said = build()
        if not ok:
            result["problem"] = "it does not compile: " + said[-2000:]
            return result
        result["unit_tests"] = unit_tests(programs)
        if not result["unit_tests"]:
            result["found"] = hunt(seeds)
    finally:
        path.write_text(clean)
    return result


def verdict(result: dict) -> str:
    if "problem" in result:
        return result["problem"]
    if result["unit_tests"]:
        return f"does not count: unit tests find it ({', '.join(result['unit_tests'])})"
    if not result["found"]:
        return "NOT found"
    return f"seed {result['found']['seed']}: {'; '.join(result['found']['broken'])}"


def rule(broken: str) -> str:
    """The name of what broke; of an assertion in production, the invariant that it guards."""
    name = broken.split(":", 1)[0]
    guarded = re.search(r"\((I\d+)\)", broken)
    return f"{guarded[1]}, asserted" if name == "assertion" and guarded else name


def table(results: list[dict]) -> str:
    lines = ["| planted bug | found by seed | what broke |", "|---|---|---|"]
    for r in results:
        found = r["found"] or {"seed": "–", "broken": [verdict(r)]}
        rules = sorted({rule(b) for b in found["broken"]} - {"rounds"}) if r["found"] else found["broken"]
        lines.append(f"| {r['what']} | {found['seed']} | {', '.join(rules)} |")
    return "\n".join(lines)


def save(results: list[dict]) -> None:
    known = {r["name"]: r for r in (json.loads(RESULTS.read_text()) if RESULTS.exists() else []) + results}
    every = [known[b["name"]] for b in read_bugs() if b["name"] in known]
    RESULTS.write_text(json.dumps(every, indent=1, ensure_ascii=False) + "\n")
    page = ROOT / "docs" / "SIMULATION.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(every)}\n{END}{rest.split(END)[1]}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/planted/hunt.py", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="bugs by name")
    parser.add_argument("--seeds", type=int, default=1000, help="to try at most")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--save", action="store_true", help="keep the results, and write the table")
    what.add_argument("--open", action="store_true", help="the bugs that nobody has found yet")
    options = parser.parse_args()
    bugs = read_bugs("open.toml" if options.open else "bugs.toml")
    bugs = [b for b in bugs if not options.only or b["name"] in options.only]
    copy_source()
    configure()
    results, programs = [], test_programs()
    for bug in bugs:
        started = time.monotonic()
        results.append(examine(bug, options.seeds, programs))
        print(f"{bug['name']} ({time.monotonic() - started:.0f} s): {verdict(results[-1])}", flush=True)
    found = sum(1 for r in results if r["found"])
    print(f"{found} of {len(results)} planted bugs found")
    if options.save:
        save(results)
    return 0 if found == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
