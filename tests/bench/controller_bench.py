"""What the controller makes of three networks and of lines that fall: its plans, time in steps, predictions

usage: scripts/bench controller [--width N] [--peers N] [--step-time T] [--steps N] [--only NAME]
       scripts/bench controller --up RATE --rtt T [--width N] [--peers N] [--step-time T] [--steps N]

Real daemons (`longhaul lab`) train a paced quadratic with [controller] enabled and nothing else said, on a LAN, at 100
Mbit/s and 80 ms, and at 5 Mbit/s and 200 ms; then at 100 Mbit/s, which fall to 5 after a third of the time and stay
there. Or on one network of equal lines that the flags name. For each: the last plan; the share of the time that went
into steps, in the second half of the rounds; the median error of the predicted rounds; and where lines fell, the rounds
until the plan was another and how many peers were taken for dead.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import lab

RUN = """
[run]
name = "controller"
stop.rounds = {rounds}
inner = {{ optimizer = "sgd", lr = 0.02, weight_decay = 0.0, steps = 30, warmup = 0, schedule = "constant" }}
model = {{ kind = "quadratic", width = {width} }}
peers = {{ min = {peers} }}
controller.enabled = true
eval.every = 0
checkpoint.every = 100000
[links]
rtt = "{rtt}"
[[peer]]
name = "peer"
count = {peers}
up = "{up}"
down = "{up}"
step_time = "{step_ms} ms"
{fault}
[expect]
within = "{limit} s"
"""
FALL = """
[[fault]]
at = "{at} s"
for = "{lasting} s"
rate = "peer"
factor = 0.05
"""
NETWORKS = {
    "lan": ("1 Gbit/s", "1 ms", False),
    "fibre": ("100 Mbit/s", "80 ms", False),
    "thin": ("5 Mbit/s", "200 ms", False),
    "fall": ("100 Mbit/s", "80 ms", True),
}


def events_of(folder: pathlib.Path) -> dict[str, list[dict]]:
    found = {}
    for path in sorted(folder.glob("*/events.jsonl")):
        found[path.parent.name] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def tell(name: str, up: str, rtt: str, nodes: dict[str, list[dict]], fell_at: float | None) -> None:
    first = next(iter(nodes.values()))
    commits = [e for e in first if e["event"] == "round_committed"]
    plans = [e for e in first if e["event"] == "plan"]
    outcomes = [e for node in nodes.values() for e in node if e["event"] == "outcome"]
    half = commits[len(commits) // 2 :]
    span = half[-1]["t"] - half[0]["t"]
    share = sum(e["compute_seconds"] for e in half[1:]) / span if span > 0 else 0.0
    errors = [abs(e["seconds"] / e["predicted_seconds"] - 1) for e in outcomes]
    last = plans[-1]
    late = ", a round late" if last["tau_rounds"] else ""
    print(f"{name}: {up}, {rtt}: H = {last['H']} with {last['codec']}{late}, {last['mode']}")
    pace = f"{span / max(1, len(half) - 1):.2f} s a round"
    off = f"predictions off by {statistics.median(errors):.1%}"
    print(f"   {len(commits)} rounds; {pace}, {share:.0%} of it steps; {off}", flush=True)
    if fell_at is None:
        return
    before = [p for p in plans if p["t"] <= fell_at][-1]
    changed = [p for p in plans if p["t"] > fell_at and (p["H"], p["codec"]) != (before["H"], before["codec"])]
    if not changed:
        print(f"   the plan did not change when the lines fell (H = {before['H']} with {before['codec']})")
        return
    rounds = sum(fell_at < e["t"] <= changed[0]["t"] for e in commits)
    dead = sum(e["event"] == "peer_down" for node in nodes.values() for e in node)
    was = f"from H = {before['H']} with {before['codec']}"
    print(f"   {was}: {rounds} rounds after the fall, {dead} peers taken for dead", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench controller", description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=200_000, help="parameters")
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--step-time", type=int, default=50, help="of an inner step, in ms")
    parser.add_argument("--steps", type=int, default=3000, help="of the whole run")
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--up", help="rate of each line, both ways")
    parser.add_argument("--rtt", default="100 ms")
    options = parser.parse_args()
    networks = {"given": (options.up, options.rtt, False)} if options.up else NETWORKS
    for name, (up, rtt, falls) in networks.items():
        if options.only and name != options.only:
            continue
        seconds = options.steps * options.step_time / 1000
        at = 20 + int(seconds / 3)
        with tempfile.TemporaryDirectory(prefix="longhaul-controller-") as temporary:
            folder = pathlib.Path(temporary)
            scenario = folder / "scenario.toml"
            fault = FALL.format(at=at, lasting=int(20 * seconds)) if falls else ""
            words = {"rounds": -(-options.steps // 30), "width": options.width, "peers": options.peers, "rtt": rtt}
            limit = int(60 + 20 * seconds)
            scenario.write_text(RUN.format(**words, up=up, step_ms=options.step_time, fault=fault, limit=limit))
            command = [lab.LONGHAUL, "lab", scenario, "--json", "--folder", folder / "lab"]
            done = subprocess.run([str(w) for w in command], stdout=subprocess.PIPE, text=True)
            if not done.stdout.strip():
                raise SystemExit(f"bench: longhaul lab ended with {done.returncode}")
            nodes = events_of(folder / "lab")
            begun = min(node[0]["t"] for node in nodes.values())
            tell(name, up, rtt, nodes, begun + at if falls else None)
            if not json.loads(done.stdout.splitlines()[-1])["ok"]:
                print(f"   NOT ok: {done.stdout.splitlines()[-1][:500]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
