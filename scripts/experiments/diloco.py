"""The experiment `diloco`: see scripts/experiment."""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
DAEMON = ROOT / "build" / "release" / "longhaul"
PEERS, STEPS, BATCH, CONTEXT = 4, 30, 16, 64
# Three trials each, around the best of a coarser search; the middle one must win, or the search goes on.
TRIALS = {"diloco": [4e-3, 8e-3, 1.6e-2], "data-parallel": [4e-3, 8e-3, 1.6e-2]}
WANTED_GAP, WANTED_RATIO = 0.03, 50.0

RUN = """\
name = "diloco"
[model]
kind = "gpt"
layers = 3
width = 64
heads = 4
context = {context}
seed = {seed}
[data]
kind = "text"
path = "{text}"
seed = {seed}
[inner]
optimizer = "adamw"
lr = {lr}
batch = {batch}
steps = {steps}
warmup = 100
[outer]
{outer}
[exchange]
codec = "{codec}"
feedback = "{feedback}"
delay = {delay}
fragments = {fragments}
[peers]
min = {peers}
pace = "equal"
[eval]
every = 5
[stop]
rounds = {rounds}
"""

Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What of a run the experiments vary."""

    lr: float
    steps: int = STEPS
    delay: int = 0
    fragments: int = 1
    codec: str = "bf16"
    feedback: str = "none"
    outer: str = 'optimizer = "nesterov"\nlr = 0.7\nmomentum = 0.8'


def read_events(folder: pathlib.Path) -> list[list[dict]]:
    """The events of each node, in their order."""
    nodes = []
    for path in sorted(folder.glob("*/events.jsonl")):
        nodes.append([json.loads(line) for line in path.read_text().splitlines() if line])
    return nodes


def kept(folder: pathlib.Path, name: str, work: Callable[[], Result]) -> Result:
    """What `work` found, or had found before: it is a file in that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    if not path.exists():
        print(f"running {name}", flush=True)
        path.write_text(json.dumps(work()) + "\n")
    result = json.loads(path.read_text())
    print(f"{name}: held-out {result['final']:.4f} after {result['seconds']:.0f} s", flush=True)
    return result


def run_toml(text: str, setting: Setting, seed: int, rounds: int, peers: int = PEERS) -> str:
    about = {"text": text, "seed": seed, "rounds": rounds, "peers": peers}
    return RUN.format(**about, **dataclasses.asdict(setting), context=CONTEXT, batch=BATCH)


def diloco(text: str, setting: Setting, seed: int, rounds: int, folder: pathlib.Path) -> Result:
    """One run of four daemons on this machine; what they wrote in events.jsonl is the result."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "run.toml"
    config.write_text(run_toml(text, setting, seed, rounds))
    run = folder / "run"
    threads = max(1, (os.cpu_count() or 1) // PEERS)
    command = [PYTHON, "-m", "longhaul", "launch", config, "--peers", str(PEERS), "--dir", run, "--plain"]
    for argument in ("--threads", str(threads), "--data", text):
        command.append(f"--peer-arg={argument}")
    with (folder / "output.log").open("w") as log:
        found = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
        done = subprocess.run([str(c) for c in command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=found)
    nodes = read_events(run)
    commits = [[e for e in node if e["event"] == "round_committed"] for node in nodes]
    if done.returncode != 0 or len(nodes) != PEERS or any(len(c) != rounds for c in commits):
        lines = (folder / "output.log").read_text().splitlines()[-5:]
        raise SystemExit(f"the run in {run} did not finish (exit code {done.returncode}):\n" + "\n".join(lines))
    roots = [{c["round"]: c["root"] for c in node} for node in commits]
    if any(r != roots[0] for r in roots):
        raise SystemExit(f"the replicas in {run} differ")
    if any(c["merged"] != PEERS for c in commits[0]):
        raise SystemExit(f"not every round in {run} merged {PEERS} peers; was the machine overloaded?")
    losses = {e["round"]: e["loss"] for node in nodes for e in node if e["event"] == "eval"}
    if rounds not in losses:
        raise SystemExit(f"the last round in {run} was not evaluated")
    tokens = PEERS * setting.steps * BATCH * CONTEXT
    curve = [{"round": r, "tokens": r * tokens, "loss": loss} for r, loss in sorted(losses.items()) if r > 0]
    return {
        "lr": setting.lr,
        "seed": seed,
        "curve": curve,
        "final": losses[rounds],
        "wire_sent_per_peer": statistics.mean(sum(c["wire_sent"] for c in node) for node in commits),
        "raw_bytes_per_peer": sum(c["raw_bytes"] for c in commits[0]),
        "seconds": max(node[-1]["t"] - node[0]["t"] for node in commits),
    }


def data_parallel(text: str, lr: float, seed: int, rounds: int) -> Result:
    job = {"text": text, "lr": lr, "seed": seed, "rounds": rounds, "steps": STEPS, "peers": PEERS}
    command = [str(PYTHON), str(ROOT / "scripts" / "experiments" / "baseline.py"), json.dumps(job)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


class Runs:
    """All runs of the experiment, each kept as a JSON file."""

    def __init__(self, text: str, rounds: int, folder: pathlib.Path, jobs: int):
        self.text, self.rounds, self.folder, self.jobs = text, rounds, folder, jobs

    def get(self, method: str, lr: float, seed: int) -> Result:
        name = f"{method}-r{self.rounds}-lr{lr:g}-seed{seed}"
        if method == "diloco":
            return kept(
                self.folder, name, lambda: diloco(self.text, Setting(lr), seed, self.rounds, self.folder / name)
            )
        return kept(self.folder, name, lambda: data_parallel(self.text, lr, seed, self.rounds))

    def many(self, method: str, what: list[tuple[float, int]]) -> list[Result]:
        # The daemons of one run share the cores already.
        jobs = 1 if method == "diloco" else self.jobs
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(lambda w: self.get(method, *w), what))

    def tuned(self, method: str, seeds: int) -> tuple[list[Result], list[Result]]:
        """Trials of the learning rate with the first seed, then the best with all seeds."""
        trials = self.many(method, [(lr, 1) for lr in TRIALS[method]])
        best = min(trials, key=lambda r: r["final"])
        if best_at_edge(trials):
            print(f"{method}: the best learning rate {best['lr']:g} lies at the edge of its trials", flush=True)
        return trials, [best, *self.many(method, [(best["lr"], s) for s in range(2, seeds + 1)])]


def machine() -> str:
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, commit {commit.stdout.strip()}"


def spread(results: list[Result]) -> str:
    finals = [r["final"] for r in results]
    deviation = f" ± {statistics.stdev(finals):.3f}" if len(finals) > 1 else ""
    return f"{statistics.mean(finals):.3f}{deviation}"


def draw(out: pathlib.Path, local: list[Result], joint: list[Result]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    gradients = 4 * joint[0]["elements"] * STEPS
    wire = local[0]["wire_sent_per_peer"] / (PEERS - 1) / local[0]["curve"][-1]["round"]
    for results, colour, label, bytes_per_round in (
        (joint, "tab:gray", "data-parallel, f32 gradients", gradients),
        (local, "tab:blue", f"longhaul, H = {STEPS}, bf16", wire),
    ):
        style = {"color": colour, "alpha": 0.8, "lw": 1.2}
        for k, r in enumerate(results):
            losses = [p["loss"] for p in r["curve"]]
            left.plot([p["tokens"] / 1e6 for p in r["curve"]], losses, label=label if k == 0 else None, **style)
            right.plot([p["round"] * bytes_per_round / 1e6 for p in r["curve"]], losses, **style)
    left.set_xlabel("million tokens, all peers together")
    left.set_ylabel("held-out loss (nats a byte)")
    left.legend(frameon=False)
    right.set_xlabel("MB sent by each peer to each other peer")
    right.set_xscale("log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_ylim(1.5, 2.6)
    figure.tight_layout()
    figure.savefig(out / "diloco.png", dpi=120)


def best_at_edge(trials: list[Result]) -> bool:
    return min(trials, key=lambda r: r["final"]) in (trials[0], trials[-1])


def page(
    runs: Runs, trials: dict[str, list[Result]], local: list[Result], joint: list[Result], command: str
) -> tuple[str, bool]:
    gap = statistics.mean(r["final"] for r in local) / statistics.mean(r["final"] for r in joint) - 1
    elements = joint[0]["elements"]
    payload = 2 * elements * runs.rounds
    gradients = joint[0]["payload_bytes_per_peer"]
    wire = statistics.mean(r["wire_sent_per_peer"] for r in local)
    raw = local[0]["raw_bytes_per_peer"]
    ratio = gradients / payload
    ok = gap <= WANTED_GAP and ratio >= WANTED_RATIO
    rows = "\n".join(
        f"| {name} | " + " | ".join(f"{r['lr']:g}: {r['final']:.3f}" for r in trials[name]) + " |" for name in trials
    )
    pairs = ", ".join(f"{a['final'] / b['final'] - 1:+.1%}" for a, b in zip(local, joint))
    edge = " and of ".join(n for n, results in trials.items() if best_at_edge(results))
    if edge:
        edge = f"\nThe best of {edge} lies at the edge of its trials: it may be better beyond.\n"
    tokens = runs.rounds * STEPS * PEERS * BATCH * CONTEXT
    text = f"""# DiLoCo against data-parallel training

Written by `{command}`; do not edit.
{datetime.date.today()}, {machine()}.

A byte-level GPT ({elements:,} parameters: 3 layers, width 64, context 64) on tinyshakespeare (1.1 MB; the last 5 % are
held out), {PEERS} peers × batch {BATCH}, AdamW (0.9, 0.95), weight decay 0.1, 100 warm-up steps, cosine to 10 %,
{runs.rounds} rounds of H = {STEPS} inner steps: {tokens / 1e6:.1f} million tokens.

- longhaul: {PEERS} daemons on one machine, outer Nesterov 0.7/0.8, codec bf16.
- data-parallel: one PyTorch process, f32, AdamW on the joint batch of {PEERS * BATCH}, from the same initial
  parameters, with the same batches and the same held-out windows.

| | learning rate | held-out loss, {len(local)} seeds | sent by a peer to one other | ratio |
|---|---|---|---|---|
| data-parallel, f32 gradients every step | {joint[0]["lr"]:g} | {spread(joint)} | {gradients / 1e6:,.0f} MB | 1 |
| data-parallel, bf16 gradients (bytes only, not run) | | | {gradients / 2e6:,.0f} MB | 2 |
| longhaul, H = {STEPS}, bf16: payload | {local[0]["lr"]:g} | {spread(local)} | {payload / 1e6:,.1f} MB | {ratio:.0f} |
| longhaul: all bytes given to sockets | | | {wire / (PEERS - 1) / 1e6:,.1f} MB | {raw / wire:.1f} |

The held-out loss is **{gap:+.1%}** from data-parallel's (by seed: {pairs}) with **{ratio:.0f}×** fewer payload bytes
than f32 gradients and {ratio / 2:.0f}× fewer than bf16 gradients. After every round all replicas had the same root, and
every round merged {PEERS} peers.

![held-out loss over tokens and over bytes](diloco.png)

Learning rates, as many trials for each method (seed 1; learning rate: held-out loss):

| | trial | trial | trial |
|---|---|---|---|
{rows}
{edge}
What this does not show: larger models, other texts, or time on a slow link. Both methods pass {tokens / 1.06e6:.0f}
times over the text.
"""
    return text, ok


def parser_of(name: str) -> argparse.ArgumentParser:
    """What all experiments with daemons may be told."""
    shared = pathlib.Path(os.environ.get("LONGHAUL_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(prog=f"scripts/experiment {name}")
    parser.add_argument("--text", type=pathlib.Path, default=shared / "data" / "tinyshakespeare.txt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "runs" / f"experiment-{name}")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results")
    return parser


def missing(options: argparse.Namespace, daemon: bool = True) -> bool:
    """Says what the experiment cannot do without."""
    if not options.text.exists():
        print(f"experiment: no text at {options.text}; name one with --text", file=sys.stderr)
        return True
    if daemon and not DAEMON.exists():
        print("experiment: no daemon: cmake --preset release; cmake --build --preset release", file=sys.stderr)
        return True
    return False


def main(arguments: list[str]) -> int:
    parser = parser_of("diloco")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="baseline processes at a time")
    parser.add_argument("--only", choices=list(TRIALS), help="run this method and write nothing")
    options = parser.parse_args(arguments)
    if missing(options, options.only != "data-parallel"):
        return 2
    runs = Runs(str(options.text.resolve()), options.rounds, options.dir.resolve(), options.jobs)
    if options.only:
        runs.tuned(options.only, options.seeds)
        return 0
    trials, best = {}, {}
    for method in TRIALS:
        trials[method], best[method] = runs.tuned(method, options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["scripts/experiment diloco", *arguments])
    text, ok = page(runs, trials, best["diloco"], best["data-parallel"], command)
    (options.out / "diloco.md").write_text(text)
    draw(options.out, best["diloco"], best["data-parallel"])
    print(text)
    return 0 if ok else 1
