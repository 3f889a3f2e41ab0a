"""Seconds a round, simulated and in the lab, of the scenarios that both worlds play; writes the table of sim/README.md

usage: scripts/bench worlds [--save] [--runs N]

The lab's figure is the median of N runs (3) in which the emulator kept up.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lab import LONGHAUL, ROOT, commit  # noqa: E402

SCENARIOS = {
    "pair": "2 peers, 6 Mbit/s, RTT 40 ms",
    "loss": "4 Mbit/s, RTT 120 ms, 0.3 % in bursts of 2",
    "trace": "6 and 4 Mbit/s, one flickers to a third",
    "unequal": "4 peers, 4 to 25 Mbit/s",
    "sites": "2 × 2 peers behind 10 Mbit/s each",
    "homes": "DSL, LTE, fibre",
    "delay": "3 peers, 20 Mbit/s, RTT 100 ms, a round late",
}
ATTEMPTS = 3  # for each run
PAGE = ROOT / "sim" / "README.md"
BEGIN, END = "<!-- two worlds: begin -->", "<!-- two worlds: end -->"


def play(world: str, name: str) -> dict:
    scenario = ROOT / "sim" / "scenarios" / f"{name}.toml"
    done = subprocess.run([LONGHAUL, world, scenario, "--json"], capture_output=True, text=True, timeout=900)
    if not done.stdout:
        raise SystemExit(f"bench: longhaul {world} {name}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def measured(name: str, runs: int) -> list[float]:
    """Seconds a round in the lab, of runs that mean something."""
    seconds: list[float] = []
    for _ in range(runs * ATTEMPTS):
        outcome = play("lab", name)
        if outcome["network"]["kept_up"] and outcome["ok"]:
            seconds.append(outcome["round_seconds"])
        if len(seconds) == runs:
            break
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench worlds", description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write the table of sim/README.md")
    parser.add_argument("--runs", type=int, default=3, help="of each scenario in the lab; default 3")
    options = parser.parse_args()
    lines = ["| scenario | simulated | lab, median (least–most) | lab / simulated |", "|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for name, what in SCENARIOS.items():
        predicted, seconds = play("sim", name)["round_seconds"], measured(name, options.runs)
        if not seconds:
            lines.append(f"| {name}: {what} | {predicted:.2f} | the emulator never kept up | |")
        else:
            median = statistics.median(seconds)
            spread = f"{min(seconds):.2f}–{max(seconds):.2f}, n = {len(seconds)}"
            lines.append(f"| {name}: {what} | {predicted:.2f} | {median:.2f} ({spread}) | {median / predicted:.2f} |")
        print(lines[-1], flush=True)
    if options.save:
        facts = f"Measured at {commit()}, {datetime.date.today()}, by `scripts/bench worlds --save`."
        before, rest = PAGE.read_text().split(BEGIN)
        table = "\n".join(lines)
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n\n{facts}\n{END}{rest.split(END)[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
