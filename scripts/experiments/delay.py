"""The experiment `delay`: see scripts/experiment."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import statistics
import sys

from experiments import diloco

STEPS_OF_ROUND, TOTAL_STEPS, LR = (30, 100), 3000, 4e-3


def tokens_until(curve: list[dict], loss: float) -> float:
    """Where that curve of held-out losses is first at `loss`, by straight lines between points; its end if never."""
    for before, after in zip(curve, curve[1:]):
        if after["loss"] <= loss < before["loss"]:
            share = (before["loss"] - loss) / (before["loss"] - after["loss"])
            return before["tokens"] + share * (after["tokens"] - before["tokens"])
    return curve[-1]["tokens"]


def row(H: int, at_once: list[dict], late: list[dict]) -> str:
    gaps = [b["final"] / a["final"] - 1 for a, b in zip(at_once, late)]
    more = [a["curve"][-1]["tokens"] / tokens_until(a["curve"], b["final"]) for a, b in zip(at_once, late)]
    by_seed = ", ".join(f"{gap:+.1%}" for gap in gaps)
    return (
        f"| {H} | {diloco.spread(at_once)} | {diloco.spread(late)} | {statistics.mean(gaps):+.1%} ({by_seed}) "
        f"| {statistics.mean(more):.2f} |"
    )


def page(rows: list[str], seeds: int, command: str) -> str:
    table = "\n".join(rows)
    return f"""# What a round of delay costs

Written by `{command}`; do not edit.
{datetime.date.today()}, {diloco.machine()}.

The byte GPT of [diloco.md](diloco.md) on the same text, {diloco.PEERS} daemons, AdamW at {LR:g}, bf16, outer Nesterov
0.7/0.8, {TOTAL_STEPS:,} inner steps in rounds of H, {seeds} seeds. At once: the next steps begin when a round is
committed. A round late (`exchange.delay = 1`): they begin while the payload is under way, from the anchor less the
peer's own pseudo-gradient.

| H | held-out loss, at once | a round late | difference (by seed) | tokens for the same loss |
|---|---|---|---|---|
{table}

The last column: all tokens, over those after which the run without delay had the loss that the late one ended with. The
learning rate falls along a cosine over all steps, so a run that is not at its end has not had its last gains: the true
factor is smaller. This is loss by tokens. What delay saves is time: docs/CONTROLLER.md.
"""


def main(arguments: list[str]) -> int:
    shared = pathlib.Path(os.environ.get("LONGHAUL_SHARED", diloco.ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(prog="scripts/experiment delay")
    parser.add_argument("--text", type=pathlib.Path, default=shared / "data" / "tinyshakespeare.txt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", type=pathlib.Path, default=diloco.ROOT / "runs" / "experiment-delay")
    parser.add_argument("--out", type=pathlib.Path, default=diloco.ROOT / "docs" / "results")
    options = parser.parse_args(arguments)
    for path, what in ((options.text, "no text"), (diloco.DAEMON, "no daemon (cmake --build --preset release)")):
        if not path.exists():
            print(f"experiment: {what} at {path}", file=sys.stderr)
            return 2
    folder = options.dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    def run(H: int, delay: int, seed: int) -> dict:
        name = f"H{H}-delay{delay}-seed{seed}"
        kept = folder / f"{name}.json"
        if not kept.exists():
            print(f"running {name}", flush=True)
            text = str(options.text.resolve())
            kept.write_text(json.dumps(diloco.diloco(text, LR, seed, TOTAL_STEPS // H, folder / name, H, delay)) + "\n")
        result = json.loads(kept.read_text())
        print(f"{name}: held-out {result['final']:.4f} after {result['seconds']:.0f} s", flush=True)
        return result

    seeds = range(1, options.seeds + 1)
    rows = [row(H, [run(H, 0, s) for s in seeds], [run(H, 1, s) for s in seeds]) for H in STEPS_OF_ROUND]
    text = page(rows, options.seeds, " ".join(["scripts/experiment delay", *arguments]))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "delay.md").write_text(text)
    print(text)
    return 0
