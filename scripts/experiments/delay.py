"""The experiment `delay`: see scripts/experiment."""

from __future__ import annotations

import datetime
import statistics

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
    options = diloco.parser_of("delay").parse_args(arguments)
    if diloco.missing(options):
        return 2
    folder, text = options.dir.resolve(), str(options.text.resolve())

    def run(H: int, delay: int, seed: int) -> dict:
        name = f"H{H}-delay{delay}-seed{seed}"
        setting = diloco.Setting(LR, H, delay)
        return diloco.kept(
            folder, name, lambda: diloco.diloco(text, setting, seed, TOTAL_STEPS // H, folder / name)
        )

    seeds = range(1, options.seeds + 1)
    rows = [row(H, [run(H, 0, s) for s in seeds], [run(H, 1, s) for s in seeds]) for H in STEPS_OF_ROUND]
    found = page(rows, options.seeds, " ".join(["scripts/experiment delay", *arguments]))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "delay.md").write_text(found)
    print(found)
    return 0
