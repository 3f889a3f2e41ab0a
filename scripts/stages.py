"""The stages of scripts/test: builds and test programs, run in turn, counted in one closing line.

A stage that cannot build counts as one failure, and the next stages run all the same. CI reads the last line.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOBS = max(2, os.cpu_count() or 2)
REPORTS = ROOT / "build" / "reports"
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
# Test programs with threads in them: the workers, and what runs beside an I/O thread.
THREADED = ["core_test"]
# Real sockets on a busy machine: so many failures of a stage get a second look. More of them are no accident.
SECOND_LOOKS = 3
# What is no accident of a busy machine, however rarely it shows.
NEVER_EXCUSED = re.compile(r"Sanitizer|runtime error:|fatal error condition|SEGFAULT|SIGSEGV|Subprocess aborted")


# What the simulated runs of a test must have had in all, to say anything.
LEAST_PLAYED = {"virtual_hours": 200, "rounds": 20_000, "faults": 5_000}


@dataclasses.dataclass
class Count:
    """Tests of one stage, which failed, which of these may have failed by accident, and which did (flaky)."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    doubtful: list[str] = dataclasses.field(default_factory=list)
    flaky: list[str] = dataclasses.field(default_factory=list)

    def __add__(self, other: Count) -> Count:
        return Count(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(Count)))

    def summary(self) -> str:
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


@dataclasses.dataclass
class Fuzzer:
    """A fuzzer's program, the folder of what it found here, and the corpus that the repository holds."""

    program: pathlib.Path
    found: pathlib.Path
    seeds: pathlib.Path


def run(*command: str | os.PathLike, env: dict[str, str] | None = None) -> bool:
    """Runs a command with its output going straight through."""
    print("$", *command, flush=True)
    environment = {**os.environ, **(env or {})}
    done = subprocess.run([str(c) for c in command], cwd=ROOT, stdin=subprocess.DEVNULL, env=environment)
    return done.returncode == 0


def run_noting(pattern: str, *command: str | os.PathLike) -> tuple[bool, list[str]]:
    """Runs a command with its output going straight through, and returns what the pattern's group matched in it."""
    print("$", *command, flush=True)
    noted = []
    words = [str(c) for c in command]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(words, cwd=ROOT, text=True, errors="replace", **pipe) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            noted += re.findall(pattern, line)
    return process.returncode == 0, noted


def run_quietly(*command: str | os.PathLike, log: pathlib.Path) -> bool:
    """Runs a command that talks much: into a file, of which the end is shown when it fails."""
    print("$", *command, flush=True)
    with log.open("wb") as file:
        words = [str(c) for c in command]
        done = subprocess.run(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        print(*log.read_text(errors="replace").splitlines()[-60:], sep="\n", flush=True)
    return done.returncode == 0


def check(name: str, ok: bool) -> Count:
    return Count(passed=1) if ok else Count(failed=1, failures=[name])


def read_junit(report: pathlib.Path, label: str) -> Count:
    """Counts the cases of a JUnit file; a missing or broken file is a failure: its program died."""
    count = Count()
    try:
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError) as problem:
        return Count(failed=1, failures=[f"{label}: no report ({problem})"])
    for case in cases:
        name = f"{label}: {case.get('classname', '')} {case.get('name', '')}".replace("  ", " ")
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            count.failed += 1
            count.failures.append(name)
            words = ElementTree.tostring(case, encoding="unicode")
            count.doubtful += [] if NEVER_EXCUSED.search(words) else [name]
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            count.skipped += 1
        else:
            count.passed += 1
    return count


def accounted(program: str, ok: bool, count: Count) -> Count:
    """What a program's report counts, and a failure more where it fails without one, or has tested nothing."""
    if not ok and count.failed == 0:
        return count + check(f"{program} failed without a failing case", False)
    if count == Count():
        return check(f"{program} ran no test", False)
    return count


def build(preset: str, *targets: str, folder: str = "", options: tuple[str, ...] = (), unity: bool = False) -> bool:
    """Configures and builds; -k0 goes on after an error, so that one run shows all of them.

    `unity`: a folder that is new compiles several files as one, which is much less work. Targets with files that do not
    go together are compiled one by one after all. A folder that somebody works in stays as it is.
    """
    cache = ROOT / "build" / (folder or preset) / "CMakeCache.txt"
    if unity and not cache.exists():
        options += ("-DLONGHAUL_UNITY=ON",)
    wanted = ["--target", *targets] if targets else []
    if not run("cmake", "--preset", preset, "--log-level=WARNING", *options):
        return False
    command = ["cmake", "--build", f"build/{folder or preset}", *wanted, "--", f"-j{JOBS}", "-k0"]
    apart: set[str] = set()
    while True:
        ok, lines = run_noting(r"FAILED: .*?(\w+)\.dir/Unity/", *command)
        if ok or not unity or "LONGHAUL_UNITY:BOOL=ON" not in cache.read_text() or set(lines) <= apart:
            return ok
        apart |= set(lines)
        print(f"=== once more, every file of {' and '.join(sorted(apart))} by itself", flush=True)
        if not run("cmake", "--preset", preset, "--log-level=WARNING", f"-DLONGHAUL_APART={';'.join(sorted(apart))}"):
            return False


def ctest(preset: str, *arguments: str) -> Count:
    first = ctest_once(preset, "-j", str(JOBS), *arguments)
    return second_look(first, lambda: ctest_once(preset, "--rerun-failed"))


def ctest_once(preset: str, *arguments: str) -> Count:
    report = REPORTS / f"ctest-{preset}.xml"
    report.unlink(missing_ok=True)
    # ctest's own word on each test goes to a file: the failures are printed in full, the rest is counted.
    ok = run("ctest", "--test-dir", f"build/{preset}", "--output-on-failure", "--quiet", "--no-tests=ignore",
             "--output-junit", report, "-O", REPORTS / f"ctest-{preset}.log", *arguments)  # fmt: skip
    count = accounted(f"{preset}: ctest", ok, read_junit(report, preset))
    for failure in count.failures:
        print(f"FAILED {failure}", flush=True)
    if count.failed:
        print_failures(report)
    return count


def second_look(first: Count, again: Callable[[], Count]) -> Count:
    """Runs the few that failed once more, with nothing beside them. One that passes then is reported by name as flaky,
    which is a defect, but not of the change under test. A crash or a sanitizer's word is never excused."""
    if not 0 < first.failed == len(first.doubtful) <= SECOND_LOOKS:
        return first
    print(f"=== once more, alone: {', '.join(first.failures)}", flush=True)
    second = again()
    if second.passed + second.failed != first.failed:
        return first
    flaky = [name for name in first.failures if name not in second.failures]
    for name in flaky:
        print(f"FLAKY {name}", flush=True)
    passed = first.passed + len(flaky)
    return Count(passed, second.failed, first.skipped, second.failures, second.doubtful, flaky)


def print_failures(report: pathlib.Path) -> None:
    """The output of the tests that failed, at most 60 lines of each."""
    if not report.exists():
        return
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.get("status") == "fail" or case.find("failure") is not None:
            lines = (case.findtext("system-out") or "").splitlines()
            print(f"--- {case.get('name')}", *lines[-60:], sep="\n", flush=True)


# --- the stages ---------------------------------------------------------------------------------------------------


def tidy() -> Count:
    """Layers, bans, headers, formatting."""
    return check("tidy", run(sys.executable, "scripts/tidy"))


def dev() -> Count:
    """gcc with ASan and UBSan: every unit test and simulation."""
    if not build("dev", unity=True):
        return check("dev: build", False)
    return ctest("dev")


def headers() -> Count:
    """Every header compiles alone; without sanitizers and optimisation, which change nothing about that."""
    options = ("-B", "build/headers", "-DLONGHAUL_SANITIZE=", "-DCMAKE_CXX_FLAGS_DEBUG=-O0", "-DLONGHAUL_TESTS=OFF",
               "-DCMAKE_VERIFY_INTERFACE_HEADER_SETS=ON")  # fmt: skip
    ok = build("dev", "all_verify_interface_header_sets", folder="headers", options=options)
    return check("headers: each compiles alone", ok)


def release() -> Count:
    """What users run: the daemon with its LibTorch module, and the tests labelled torch or e2e."""
    if not build("release", "longhaul", "longhaul_torch", "torch_test", unity=True):
        return check("release: build", False)
    return ctest("release", "-L", "torch|e2e")


def swarm(preset: str = "release", seeds: int = 420) -> Count:
    """Scenarios drawn from seeds, in virtual time, with everything that can go wrong: invariants and recovery."""
    if not build(preset, "longhaul", unity=True):
        return check("swarm: build", False)
    jobs = min(JOBS, seeds)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        shares = [(1 + seeds * i // jobs, seeds * (i + 1) // jobs) for i in range(jobs)]
        played = list(pool.map(lambda share: play_drawn(preset, *share), shares))
    minutes = (time.monotonic() - started) / 60
    all_of = {key: sum(tally.get(key, 0) for _, tally in played) for key in LEAST_PLAYED}
    had = ", ".join(f"{round(value):,} {key}" for key, value in all_of.items())
    print(f"swarm: {had} in {minutes:.1f} minutes", flush=True)
    count = sum((one for one, _ in played), start=Count())
    if seeds < 400:
        return count
    few = [f"{key} {all_of[key]:.0f} < {least}" for key, least in LEAST_PLAYED.items() if all_of[key] < least]
    return count + check(f"swarm: enough was played {'; '.join(few)}".rstrip(), not few)


def swarm_few() -> Count:
    """A few of them, with the sanitizers of dev."""
    return swarm("dev", 8)


def play_drawn(preset: str, first: int, last: int) -> tuple[Count, dict]:
    """Plays these seeds; how many held, and what the program said of all of them."""
    words = [f"build/{preset}/longhaul", "sim", "--swarm", "--seeds", f"{first}..{last}", "--json"]
    print("$", *words, flush=True)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # The scenario of whatever failed, and the line that plays it again.
    tell = lambda said: print(*said.splitlines()[-300:], sep="\n", flush=True)
    try:
        done = subprocess.run(words, cwd=ROOT, text=True, timeout=1800, **pipes)
    except subprocess.TimeoutExpired as slow:
        tell((slow.stderr or b"").decode(errors="replace"))
        return check(f"swarm: seeds {first} to {last} did not end within half an hour", False), {}
    try:
        tally = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        tell(done.stderr)
        return check(f"swarm: seeds {first} to {last} ended with {done.returncode}", False), {}
    failures = [f"swarm: seed {f['seed']}: {'; '.join(f['broken'])}" for f in tally["failed"]]
    if failures:
        tell(done.stderr)
    return Count(passed=tally["seeds"] - len(failures), failed=len(failures), failures=failures), tally


def planted() -> Count:
    """Bugs planted one at a time: the simulation must find each (tests/planted)."""
    return check("planted bugs: all found", run(sys.executable, "tests/planted/hunt.py"))


def clang() -> Count:
    """The same unit tests under clang-19: other coroutine code, other sanitizers. Whole runs: a few drawn ones."""
    if not build("clang", "unit_tests", "longhaul", unity=True):
        return check("clang: build", False)
    return ctest("clang", "-L", "unit") + swarm("clang", 8)


def clang_sim() -> Count:
    """All simulations under clang-19."""
    if not build("clang", unity=True):
        return check("clang-sim: build", False)
    return ctest("clang", "-L", "sim")


def clang_tidy() -> Count:
    """Bugs that clang-tidy-19 knows, coroutine traps among them."""
    # Only the headers that protoc makes, and a compile database.
    ok = build("clang", "longhaul_net_wire", "longhaul_peers_proto", unity=True)
    return check("clang-tidy", ok and run(sys.executable, "scripts/tidy", "--clang-tidy", "--jobs", str(JOBS)))


def tsan() -> Count:
    """What has threads, under the thread sanitizer: nearly all of longhaul has none."""
    if not build("tsan", *THREADED, unity=True):
        return check("tsan: build", False)
    return ctest("tsan", "-R", f"^({'|'.join(THREADED)}):")


def fuzzers() -> list[Fuzzer]:
    """What the fuzzers' build made; none if it failed."""
    if not build("fuzz", "fuzzers", unity=True):
        return []
    folder = ROOT / "build" / "fuzz"
    found = [p for p in sorted((folder / "tests" / "fuzz").glob("fuzz_*")) if p.is_file() and os.access(p, os.X_OK)]
    return [Fuzzer(p, folder / "corpus" / p.name, CORPUS / p.name.removeprefix("fuzz_")) for p in found]


def fuzz(seconds: int = 5) -> Count:
    """Each fuzzer on its corpus and for a few seconds more: a smoke test of the decoders and of the fuzzers."""
    found = fuzzers()
    if not found:
        return check("fuzz: build", False)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        counts = list(pool.map(lambda fuzzer: run_fuzzer(fuzzer, seconds), found))
    return sum(counts, start=Count())


def run_fuzzer(fuzzer: Fuzzer, seconds: int) -> Count:
    fuzzer.found.mkdir(parents=True, exist_ok=True)
    # Long inputs from the start: short ones reach no second act of those who talk.
    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048", "-len_control=0"]
    arguments = [*limits, f"-artifact_prefix={fuzzer.found}-", fuzzer.found, fuzzer.seeds]
    ok = run_quietly(fuzzer.program, *arguments, log=REPORTS / f"{fuzzer.program.name}.log")
    return check(f"fuzz: {fuzzer.program.name}", ok)


def mutations(payloads: int = 10_000_000) -> Count:
    """Ten million damaged payloads, shared by all cores, with the sanitizers of dev."""
    if not build("dev", "mutation_test", unity=True):
        return check("mutations: build", False)
    program = ROOT / "build" / "dev" / "tests" / "unit" / "compress" / "mutation_test"

    def share(seed: int) -> Count:
        wishes = {"MUTATIONS": str(payloads // JOBS), "MUTATIONS_SEED": str(seed)}
        return check(f"mutations: seed {seed}", run(program, env=wishes))

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        return sum(pool.map(share, range(1, JOBS + 1)), start=Count())


def nightly() -> Count:
    """Each fuzzer for a minute, ten million damaged payloads, simulations under clang-19, and the planted bugs."""
    return fuzz(60) + mutations() + clang_sim() + planted()


def corpus() -> Count:
    """Renews tests/fuzz/corpus: of all that the fuzzers have found, the fewest inputs that reach as much."""
    count = Count()
    for fuzzer in fuzzers():
        with tempfile.TemporaryDirectory(dir=fuzzer.found.parent) as fewest:
            arguments = ["-set_cover_merge=1", "-use_counters=0", "-timeout=20", fewest, fuzzer.seeds, fuzzer.found]
            ok = run_quietly(fuzzer.program, *arguments, log=REPORTS / f"{fuzzer.program.name}.log")
            if ok:
                shutil.rmtree(fuzzer.seeds)
                shutil.copytree(fewest, fuzzer.seeds)
            count += check(f"corpus: {fuzzer.program.name}", ok)
    return count if count.passed + count.failed else check("fuzz: build", False)


def python() -> Count:
    """The Python package and the scripts; with the release binary also whole runs of real daemons. Those mostly wait,
    so several run at once; then, one by one, those that measure times."""
    several = ["-n", str(JOBS), "--dist", "worksteal"]
    return pytest("beside", "not alone", *several) + pytest("alone", "alone")


def pytest(name: str, marks: str, *more: str) -> Count:
    report = REPORTS / f"pytest-{name}.xml"

    def once(*words: str) -> Count:
        report.unlink(missing_ok=True)
        words = ("-q", "tests/python", "tests/lab", "-m", marks, f"--junitxml={report}", *words)
        ok = run(sys.executable, "-m", "pytest", *words, env={"PYTHONPATH": "scripts"})
        return accounted(f"pytest {name}", ok, read_junit(report, "pytest"))

    return second_look(once(*more), lambda: once("--last-failed"))


EVERYTHING = (tidy, dev, headers, release, python, swarm, clang, clang_tidy, tsan, fuzz)
BY_NAME = (nightly, corpus, mutations, clang_sim, planted, swarm_few)
STAGES: dict[str, Callable[[], Count]] = {s.__name__.replace("_", "-"): s for s in (*EVERYTHING, *BY_NAME)}
QUICK = ["tidy", "dev", "swarm-few"]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Sets up, builds and runs the tests: all stages but "
        f"{', '.join(list(STAGES)[len(EVERYTHING):])}, unless some are named.",
        epilog="stages: " + "; ".join(f"{n}: {(f.__doc__ or n).splitlines()[0]}" for n, f in STAGES.items()),
    )
    quick_help = f"only {', '.join(QUICK)} (about 5 minutes with a warm ccache)"
    parser.add_argument("--quick", action="store_true", help=quick_help)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="only these")
    options = parser.parse_args()
    for name in options.stages:
        if name not in STAGES:
            parser.error(f"no stage {name}; there are {', '.join(STAGES)}")
    names = options.stages or (QUICK if options.quick else list(STAGES)[: len(EVERYTHING)])
    REPORTS.mkdir(parents=True, exist_ok=True)
    total = Count()
    rows = []
    for name in names:
        print(f"\n=== {name}", flush=True)
        started = time.monotonic()
        count = STAGES[name]()
        seconds = time.monotonic() - started
        rows.append(f"{name:<12}{seconds:7.0f} s   {count.summary()}")
        print(f"=== {rows[-1]}", flush=True)
        total += count
    print("\n" + "\n".join(rows))
    for name in total.flaky:
        print(f"FLAKY {name}: failed beside others, passed alone")
    for failure in total.failures:
        print(f"FAILED {failure}")
    (REPORTS / "summary.json").write_text(json.dumps(dataclasses.asdict(total)))
    if total.passed + total.failed == 0:
        total += check("no test ran", False)
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
