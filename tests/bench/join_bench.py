"""A newcomer to a large model on emulated lines: how long its download takes, and how much longer rounds become

usage: scripts/bench join [--width N] [--step TIME] [--at SECONDS] [--rounds N] [--folder DIR]

`longhaul lab` runs three members whose lines carry 200 Mbit/s, and then a fourth one with 100 Mbit/s joins by the
address of the first. Steps are paced, so that a round is a matter of the links and the pace. Told are the bytes and the
seconds of the download beside what its own line needs for them (TCP/IP headers included, MTU 1500), and every round
beside the median of those before.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import lab

DONOR, NEWCOMER = 200e6, 100e6
SCENARIO = """
[run]
name = "join"
inner = {{ optimizer = "sgd", lr = 0.02, weight_decay = 0.0, steps = 2, warmup = 0, schedule = "constant" }}
model = {{ kind = "quadratic", width = {width} }}
peers = {{ min = 3 }}
exchange = {{ codec = "sign1", feedback = "ef" }}
checkpoint.every = 1000
eval.every = 0
stop.rounds = {rounds}
[links]
rtt = "50 ms"
[[peer]]
name = "member"
count = 3
up = "200 Mbit/s"
down = "200 Mbit/s"
step_time = "{step}"
[[peer]]
name = "newcomer"
up = "100 Mbit/s"
down = "100 Mbit/s"
step_time = "{step}"
[[fault]]
at = "{at} s"
join = "newcomer"
[expect]
within = "15 min"
"""


def events_of(folder: pathlib.Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name / "events.jsonl").read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench join", description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=50_000_000, help="parameters; the state has 8 bytes of each")
    parser.add_argument("--step", default="8 s", help="two of them make a round")
    parser.add_argument("--at", type=int, default=150, help="seconds until it joins")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--folder", type=pathlib.Path, help="keep everything here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="longhaul-join-") as temporary:
        folder = options.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "scenario.toml"
        path.write_text(
            SCENARIO.format(width=options.width, rounds=options.rounds, step=options.step, at=options.at)
        )
        words = [lab.LONGHAUL, "lab", path, "--json", "--folder", folder]
        done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"bench: longhaul lab ended with {done.returncode}: {done.stdout}")
        commits = [e for e in events_of(folder, "member-1") if e["event"] == "round_committed"]
        news = events_of(folder, "newcomer")
    started = news[0]["t"]
    here = next(e for e in news if e["event"] == "catch_up")
    floor = here["bytes"] * 8 * 1500 / 1448 / NEWCOMER
    sizes = f"{here['bytes'] / 1e6:.0f} MB, packed {here['wire_bytes'] / 1e6:.0f} MB,"
    print(f"{sizes} from {here['donors']} donors in {here['seconds']:.1f} s;", end=" ")
    print(f"{here['seconds'] / floor:.2f} of the {floor:.1f} s that its line needs for all of it;", end=" ")
    first = next((e["t"] for e in news if e["event"] == "round_committed" and e["own_merged"]), None)
    work = f"{first - started:.1f} s" if first else "never"
    print(f"its state is there {here['t'] - started:.1f} s after its start, its first work is merged after {work}")
    rounds = [(b["t"] - a["t"], a["t"], b["t"], b["members"], b["merged"]) for a, b in zip(commits, commits[1:])]
    before = [seconds for seconds, _, end, *_ in rounds if end < started]
    if not before:
        print("no whole round was before it: this machine is too slow for so many parameters, or --at too early")
        return 1
    usual = statistics.median(before)
    print(f"a round before: {usual:.2f} s in the median; from then on:")
    for seconds, begin, end, members, merged in rounds:
        if end < started:
            continue
        what = "download" if begin < here["t"] else ""
        print(f"  {seconds:6.2f} s  {seconds / usual - 1:+6.1%}  {merged} of {members} members' work  {what}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
