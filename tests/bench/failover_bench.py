"""Kills of members and of coordinators on six emulated machines: how much later the next commit comes

usage: scripts/bench failover [--kills N] [--seconds N] [--model quadratic|gpt] [--stop]

Six daemons behind lines of 100 Mbit/s, 100 ms of round trip between any two, train a quadratic of 100,000 numbers or
the demo's byte GPT (H = 30), whose steps are paced so that six of them leave this machine some time. Again and again
one of them is killed with signal 9 at a random instant of a round, a member and who coordinates in turn, and started
again by the address of another one, until --kills each are done or --seconds are over. --stop: they are stopped
(SIGSTOP) instead, and go on when the others have committed. The delay of a kill is the time between the commits before
and after it, as the others saw them, less the median of that time without kills. A line for each kind: how many,
median, 90th and 99th percentile, most.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import signal
import statistics
import subprocess
import time

import lab

PEERS, VOTERS = 6, 5
QUADRATIC = """
[model]
kind = "quadratic"
width = 100000
[inner]
optimizer = "sgd"
lr = 0.02
weight_decay = 0.0
steps = 30
warmup = 0
"""
GPT = """
[model]
kind = "gpt"
layers = 3
width = 64
heads = 4
context = 64
[data]
kind = "stdlib"
[inner]
optimizer = "adamw"
lr = 8e-3
batch = 4
steps = 30
"""
MODELS = {"quadratic": (QUADRATIC, "20 ms"), "gpt": (GPT, "50 ms")}  # and what a step takes
RUN = """
name = "failover"
{model}
[peers]
min = 6
[eval]
every = 0
[stop]
rounds = 1000000
"""
PATIENCE = 60.0  # seconds for whatever has to happen


class Daemon:
    """One daemon in its machine, and what its events say."""

    def __init__(self, machines: lab.Lab, name: str, step_time: str):
        self.machines, self.name, self.step_time = machines, name, step_time
        self.folder = pathlib.Path(machines.folder.name) / name
        self.lives = 0
        self.read = 0
        self.commits: list[float] = []  # when, by the machine's clock
        self.roots: dict[tuple[int, int], str] = {}
        self.coordinates = False
        self.voters: set[str] = set()

    def start(self, *words: object) -> None:
        self.lives += 1
        address = self.machines.address(self.name)
        own = ["--listen", f"{address}:7400", "--state-dir", self.folder, "--name", self.name, "--json-ready"]
        pace = ["--set", f"node.step_time={self.step_time}", "--set", "node.threads=1"]
        with (self.folder.parent / f"{self.name}.{self.lives}.log").open("w") as out:
            self.process = self.machines.start(
                self.name, lab.LONGHAUL, *words, *own, *pace, stdout=out, stderr=subprocess.STDOUT
            )

    def ticket(self) -> str:
        path = self.folder.parent / f"{self.name}.{self.lives}.log"
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for line in path.read_text().splitlines():
                if line.startswith("{") and "ticket" in line:
                    return json.loads(line)["ticket"]
            time.sleep(0.05)
        raise SystemExit(f"bench: {self.name} is not ready: {path.read_text()}")

    def look(self) -> None:
        """Reads the events that are new."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self.read)
            news = file.read()
        whole = news.rfind(b"\n") + 1
        self.read += whole
        for line in news[:whole].splitlines():
            event = json.loads(line)
            if event["event"] == "round_committed":
                self.commits.append(event["t"])
                self.roots[event["generation"], event["round"]] = event["root"]
            elif event["event"] == "coordinator":
                self.coordinates = event["self"]
            elif event["event"] == "voters":
                self.voters = set(event["names"].split(", "))


def until(condition, daemons: list[Daemon], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            for d in daemons:
                print(d.name, "coordinates," if d.coordinates else "follows,", "voters:", *sorted(d.voters))
                print("   ", *(d.folder / "events.jsonl").read_text().splitlines()[-4:], sep="\n    ")
            raise SystemExit(f"bench: {what} did not happen within {PATIENCE:.0f} s")
        time.sleep(0.02)
        for daemon in daemons:
            daemon.look()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--model", choices=MODELS, default="quadratic")
    options = parser.parse_args()
    model, step_time = MODELS[options.model]
    drawn = random.Random(1)
    delays: dict[str, list[float]] = {"member": [], "coordinator": []}
    with lab.Lab(lab.SIX_PEERS) as machines:
        config = pathlib.Path(machines.folder.name) / "run.toml"
        config.write_text(RUN.format(model=model))
        daemons = [Daemon(machines, f"peer-{i + 1}", step_time) for i in range(PEERS)]
        daemons[0].start("run", config)
        ticket = daemons[0].ticket()
        for daemon in daemons[1:]:
            daemon.start("join", ticket)
        everybody_goes_on = lambda: all(len(d.commits) >= 12 for d in daemons) and len(daemons[0].voters) == VOTERS
        until(everybody_goes_on, daemons, "the first rounds")
        usual = statistics.median(b - a for a, b in zip(daemons[0].commits[2:], daemons[0].commits[3:]))
        print(f"without kills: a round takes {usual:.2f} s in the median")
        began = time.monotonic()
        kind = "member"
        while time.monotonic() - began < options.seconds and min(map(len, delays.values())) < options.kills:
            leaders = [d for d in daemons if d.coordinates]
            if len(leaders) != 1:
                until(lambda: sum(d.coordinates for d in daemons) == 1, daemons, "an election")
                continue
            victim = leaders[0] if kind == "coordinator" else drawn.choice([d for d in daemons if d is not leaders[0]])
            others = [d for d in daemons if d is not victim]
            time.sleep(drawn.random() * usual)
            for daemon in daemons:
                daemon.look()
            before = {d: len(d.commits) for d in others}
            if options.stop:
                victim.process.send_signal(signal.SIGSTOP)
            else:
                victim.process.kill()
                victim.process.wait()
            victim.look()
            victim.coordinates = False
            until(lambda: all(len(d.commits) > before[d] for d in others), others, "the next commit")
            waited = [d.commits[before[d]] - d.commits[before[d] - 1] for d in others if before[d] > 0]
            delays[kind].append(max(0.0, statistics.median(waited) - usual))
            known = len(victim.commits)
            if options.stop:
                victim.process.send_signal(signal.SIGCONT)
            elif victim is daemons[0]:
                victim.start("run", config)
            else:
                victim.start("join", drawn.choice(others).ticket())
            until(lambda: len(victim.commits) > known + 2, daemons, f"the return of {victim.name}")
            until(lambda: all(len(d.voters) == VOTERS for d in others), daemons, "the return of all voters")
            kind = "coordinator" if kind == "member" else "member"
        roots: dict[tuple[int, int], str] = {}
        for daemon in daemons:
            for key, root in daemon.roots.items():
                if roots.setdefault(key, root) != root:
                    raise SystemExit(f"bench: round {key} has two roots")
        print(f"emulator {'kept up' if machines.kept_up() else 'FELL BEHIND: the figures mean nothing'}")
    for name, values in delays.items():
        if values:
            typical, most = statistics.median(values), max(values)
            times = f"{len(values)} {'stops' if options.stop else 'kills'}"
            print(f"{name}: {times}, the next commit later by {typical:.2f} s in the median,", end=" ")
            tails = f"{percentile(values, 0.9):.2f} and {percentile(values, 0.99):.2f} s"
            print(f"{tails} in the 90th and 99th percentile, {most:.2f} s at most")


main()
