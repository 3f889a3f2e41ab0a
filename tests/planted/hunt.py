"""Plants each bug of bugs.toml in a copy of the source, and hunts it with the swarm of simulations.

usage: tests/planted/hunt.py [--only NAME…] [--seeds N] [--save]

A bug counts when all unit tests still pass with it, and some seed fails with it. --save writes
docs/results/planted.json and the table of docs/SIMULATION.md. Exit code 0 only if every bug counts and is found.
"""

from __future__ import annotations

import argparse
import concurrent.futures
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
PROGRAM = COPY / "build" / "longhaul"
JOBS = max(2, os.cpu_count() or 2)
SEEDS_AT_ONCE = 5
BEGIN, END = "<!-- planted bugs: begin -->", "<!-- planted bugs: end -->"


def read_bugs() -> list[dict]:
    bugs = tomllib.loads((ROOT / "tests" / "planted" / "bugs.toml").read_text())["bug"]
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
    return run_quietly("cmake", "--build", COPY / "build", "--", f"-j{JOBS}")


def configure() -> None:
    options = ["-DLONGHAUL_TORCH=OFF", "-DLONGHAUL_WERROR=OFF", "-DCMAKE_BUILD_TYPE=Release"]
    folders = ["-S", COPY, "-B", COPY / "build"]
    ok, said = run_quietly("cmake", "-G", "Ninja", *folders, "-DCMAKE_CXX_COMPILER=g++", *options)
    if ok:
        ok, said = build()
    if not ok:
        sys.exit(said[-4000:])


def unit_tests() -> list[str]:
    """Those that fail."""
    _, said = run_quietly("ctest", "--test-dir", COPY / "build", "-LE", "sim|slow|fuzz|torch|e2e", f"-j{JOBS}")
    return re.findall(r"^\s*\d+ - (.+?) \((?:Failed|Timeout|Subprocess|SEGFAULT)", said, re.M)


def play(first: int) -> dict:
    seeds = f"{first}..{first + SEEDS_AT_ONCE - 1}"
    words = [PROGRAM, "sim", "--swarm", "--seeds", seeds, "--json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return {"failed": [{"seed": first, "broken": ["hangs: this seed or one of the next four did not end"]}]}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):  # it crashed: an assertion of production found it
        sentence = next((line for line in done.stderr.splitlines() if "invariant" in line or "(I" in line), "")
        last = sentence or (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"failed": [{"seed": first, "broken": [f"assertion: {last[:200]}"]}]}


def hunt(seeds: int) -> dict | None:
    """The first failure, in the order of the seeds."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for batch in range(1, seeds + 1, JOBS * SEEDS_AT_ONCE):
            firsts = range(batch, batch + JOBS * SEEDS_AT_ONCE, SEEDS_AT_ONCE)
            failed = [f for played in pool.map(play, firsts) for f in played["failed"]]
            if failed:
                return failed[0]
    return None


def examine(bug: dict, seeds: int) -> dict:
    path = COPY / bug["file"]
    clean = path.read_text()
    result = {"name": bug["name"], "what": bug["what"], "unit_tests": [], "found": None}
    try:
        path.write_text(clean.replace(bug["find"], bug["replace"]))
        ok, said = build()
        if not ok:
            result["problem"] = "it does not compile: " + said[-2000:]
            return result
        result["unit_tests"] = unit_tests()
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


def table(results: list[dict]) -> str:
    lines = ["| planted bug | found by seed | what broke |", "|---|---|---|"]
    for r in results:
        found = r["found"] or {"seed": "–", "broken": [verdict(r)]}
        rules = sorted({b.split(":", 1)[0] for b in found["broken"]}) if r["found"] else found["broken"]
        lines.append(f"| {r['what']} | {found['seed']} | {', '.join(rules)} |")
    return "\n".join(lines)


def save(results: list[dict]) -> None:
    (ROOT / "docs" / "results" / "planted.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    page = ROOT / "docs" / "SIMULATION.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{rest.split(END)[1]}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/planted/hunt.py", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="bugs by name")
    parser.add_argument("--seeds", type=int, default=1000, help="to try at most")
    parser.add_argument("--save", action="store_true", help="keep the results, and write the table")
    options = parser.parse_args()
    bugs = [b for b in read_bugs() if not options.only or b["name"] in options.only]
    copy_source()
    configure()
    results = []
    for bug in bugs:
        started = time.monotonic()
        results.append(examine(bug, options.seeds))
        print(f"{bug['name']} ({time.monotonic() - started:.0f} s): {verdict(results[-1])}", flush=True)
    found = sum(1 for r in results if r["found"])
    print(f"{found} of {len(results)} planted bugs found")
    if options.save:
        save(results)
    return 0 if found == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
