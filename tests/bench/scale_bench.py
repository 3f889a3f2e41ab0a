"""What coordination costs as peers become more: messages, bytes and time a round, simulated

usage: scripts/bench scale [--peers N,N,…] [--rounds N] [--save]

`longhaul sim` plays a run of N peers, all linked with all, behind lines of 100 Mbit/s, 40 ms of round trip between any
two, on a quadratic of 1,000 numbers: payloads of a few kilobytes, so that nearly all that is sent is coordination. A
round has two inner steps of 250 ms. Told of the median round, for the median peer and the one that sends most
(whoever coordinates): messages on control, bytes given to sockets, and by how much the round is longer than its steps.
Times are virtual; the seconds of the last column are this machine's for the whole simulation.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import lab

STEPS, STEP = 2, 0.25  # a round's, and seconds of each
SCENARIO = """
[run]
name = "scale"
inner = {{ optimizer = "sgd", lr = 0.02, weight_decay = 0.0, steps = 2, warmup = 0, schedule = "constant" }}
model = {{ kind = "quadratic", width = 1000 }}
peers = {{ min = {peers}, max = {peers} }}
checkpoint.every = 1000
eval.every = 0
stop.rounds = {rounds}
[links]
rtt = "40 ms"
[[peer]]
name = "n"
count = {peers}
up = "100 Mbit/s"
down = "100 Mbit/s"
step_time = "250 ms"
[expect]
within = "30 min"
"""
HEAD = (
    "| peers | messages a peer and a round, median | most | bytes sent a peer and a round, median | most "
    "| round beyond its steps | this machine's time |"
)
FIRST = 5  # rounds that do not count: lines are measured, voters chosen
PAGE = lab.ROOT / "docs" / "results" / "scale.md"


def play(peers: int, rounds: int) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory(prefix="longhaul-scale-") as folder:
        path = pathlib.Path(folder) / "scenario.toml"
        path.write_text(SCENARIO.format(peers=peers, rounds=rounds))
        began = time.monotonic()
        words = [lab.LONGHAUL, "sim", path, "--json", "--folder", folder]
        done = subprocess.run(words, capture_output=True, text=True)
        took = time.monotonic() - began
        if done.returncode != 0:
            return f"| {peers} | it failed: {(done.stderr or done.stdout).strip()[-200:]} | | | | | {took:.0f} s |"
        sent: dict[str, dict[str, list[float]]] = collections.defaultdict(lambda: collections.defaultdict(list))
        beyond = []
        for file in pathlib.Path(folder).glob("*/events.jsonl"):
            for line in file.open():
                event = json.loads(line)
                if event["event"] != "round_committed" or event["round"] <= FIRST:
                    continue
                for what in ("messages_sent", "wire_sent"):
                    sent[what][event["node"]].append(event[what])
                beyond.append(event["seconds"] - STEPS * STEP)
    cells = []
    for what in ("messages_sent", "wire_sent"):
        each = [statistics.median(rounds_of_it) for rounds_of_it in sent[what].values()]
        cells += [f"{statistics.median(each):,.0f}", f"{max(each):,.0f}"]
    return f"| {peers} | {' | '.join(cells)} | {statistics.median(beyond):.3f} s | {took:.0f} s |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench scale", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="4,8,16,32,64,128", help="so many, one after another")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--save", action="store_true", help=f"write {PAGE.relative_to(lab.ROOT)}")
    options = parser.parse_args()
    rows = [HEAD, "|---" * 7 + "|"]
    print("\n".join(rows), flush=True)
    for peers in map(int, options.peers.split(",")):
        rows.append(play(peers, options.rounds))
        print(rows[-1], flush=True)
    if options.save:
        about = __doc__.split("\n\n", 2)[2]
        facts = f"Measured {datetime.date.today()}, {lab.commit()}, by `scripts/bench scale --save`."
        PAGE.write_text("# Peers and coordination, simulated\n\n" + about + "\n" + "\n".join(rows) + f"\n\n{facts}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
