"""Six real daemons that are killed, stopped, cut off and slowed from a seeded schedule: do they agree, and what is lost

usage: scripts/bench chaos [--seconds N] [--kill-every S] [--partition-every S] [--seed N] [--folder DIR]

`longhaul lab` runs six daemons behind lines of 100 Mbit/s, 100 ms of round trip between any two. A kill (signal 9;
three in ten hit whoever coordinates) comes every --kill-every seconds and lasts three, and then the daemon is started
again; every --partition-every seconds somebody is cut off for three to ten (one in three: one way), stopped by SIGSTOP,
or its line falls to a hundredth. Nothing else is done to them by hand. Then the same six run without any of it for a
quarter of the time, five minutes at most. Told are the faults, what the invariants and the recovery say
(sim/README.md), and the tokens a second beside those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import random
import subprocess
import tempfile

import lab

RUN = """
[run]
name = "chaos"
inner = {{ optimizer = "sgd", lr = 0.02, weight_decay = 0.0, steps = 20, warmup = 0, schedule = "constant" }}
model = {{ kind = "quadratic", width = {width} }}
peers = {{ min = 6, silence_limit = "3 s" }}
checkpoint = {{ every = 5 }}
eval.every = 0
stop.rounds = 1000000
"""
SERVICES = """
step_time = "50 ms"
restart_after = "1 s"
[expect]
within = "{limit} s"
recovers_within = "120 s"
"""
BEGIN = 15  # seconds, until all have joined


def faults(seconds: int, kill_every: float, partition_every: float, seed: int) -> tuple[str, collections.Counter]:
    draw = random.Random(seed)
    lines, counted = [], collections.Counter()

    def add(at: float, lasting: float, kind: str, whom: str, more: str = "") -> None:
        counted[kind] += 1
        when = f'at = "{int(at * 1000)} ms"\nfor = "{int(lasting * 1000)} ms"'
        lines.append(f"[[fault]]\n{when}\n{kind} = {whom}\n{more}")

    def one() -> str:
        return f'"peer-{draw.randint(1, 6)}"'

    at = BEGIN + kill_every * draw.random()
    while at < BEGIN + seconds:
        add(at, 3, "kill", '"coordinator"' if draw.random() < 0.3 else one())
        at += kill_every * draw.uniform(0.5, 1.5)
    at = BEGIN + partition_every * draw.random()
    while at < BEGIN + seconds:
        kind = draw.choice(["partition", "partition", "partition", "one_way", "stop", "rate"])
        whom, more = one(), ""
        if kind == "one_way":
            first, second = draw.sample(range(1, 7), 2)
            whom = f'["peer-{first}", "peer-{second}"]'
        if kind == "rate":
            more = "factor = 0.01\n"
        add(at, draw.uniform(3, 10), kind, whom, more)
        at += partition_every * draw.uniform(0.5, 1.5)
    return "\n".join(lines), counted


def play(text: str, folder: pathlib.Path, seed: int) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scenario.toml"
    path.write_text(text)
    words = [lab.LONGHAUL, "lab", path, "--json", "--seed", seed, "--folder", folder]
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, text=True)
    if not done.stdout.strip():
        raise SystemExit(f"bench: longhaul lab ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def pace(folder: pathlib.Path, until: float) -> tuple[float, float, float]:
    """Tokens a second, seconds a round and payloads a round, from the end of the first round on, at most for so many
    seconds: by whichever node has seen the most tokens."""
    best = (0.0, 0.0, 0.0)
    for path in folder.glob("*/events.jsonl"):
        events = [json.loads(line) for line in path.read_text().splitlines() if '"round_committed"' in line]
        events = [e for e in events if e["t"] <= events[0]["t"] + until]
        if len(events) > 1:
            seconds, rounds = events[-1]["t"] - events[0]["t"], events[-1]["round"] - events[0]["round"]
            tokens = events[-1]["tokens"] - events[0]["tokens"]
            merged = sum(e["merged"] for e in events[1:]) / (len(events) - 1)
            best = max(best, (tokens / seconds, seconds / rounds, merged))
    return best


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=300, help="in which faults begin")
    parser.add_argument("--kill-every", type=float, default=10, help="seconds, on average")
    parser.add_argument("--partition-every", type=float, default=30, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--width", type=int, default=50_000, help="parameters")
    parser.add_argument("--folder", type=pathlib.Path, help="keep everything here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="longhaul-chaos-") as temporary:
        folder = options.folder or pathlib.Path(temporary)
        text, counted = faults(options.seconds, options.kill_every, options.partition_every, options.seed)
        run, services = RUN.format(width=options.width), SERVICES.format(limit=BEGIN + options.seconds + 300)
        scenario = run + lab.SIX_PEERS + services
        found = play(f"{scenario}{text}", folder / "chaos", options.seed)
        quiet_for = min(300, max(30, options.seconds // 4))
        calm = f'[[fault]]\nat = "{BEGIN + quiet_for} s"\nrestart = "peer-6"\n'
        play(f"{scenario}{calm}", folder / "calm", options.seed)
        disturbed, length, payloads = pace(folder / "chaos", options.seconds)
        undisturbed, usual_length, usual_payloads = pace(folder / "calm", quiet_for)
    print(", ".join(f"{n} × {kind}" for kind, n in counted.most_common()), flush=True)
    broken = {k: v for group in ("invariants", "expect") for k, v in found[group].items() if v != "ok"}
    print(f"{found['rounds']} rounds in {found['seconds']:.0f} s; {'all holds' if not broken else broken}")
    print(f"a round takes {length:.2f} s and merges {payloads:.2f} payloads", end="; ")
    print(f"undisturbed {usual_length:.2f} s and {usual_payloads:.2f}")
    print(f"tokens a second: {disturbed:.0f} of {undisturbed:.0f} undisturbed, {disturbed / undisturbed:.0%}")
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
