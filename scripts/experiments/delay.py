"""The experiment `delay`: see scripts/experiment."""

from __future__ import annotations

import datetime
import statistics

from experiments import diloco

STEPS_OF_ROUND, TOTAL_STEPS, LR = (30, 100), 3000, 4e-3
PARTS = 5
OTHERS = ((1, 1), (PARTS, 0), (PARTS, 1))  # parts, delay


def tokens_until(curve: list[dict], loss: float) -> float:
    """Where that curve of held-out losses is first at `loss`, by straight lines between points; its end if never."""
    for before, after in zip(curve, curve[1:]):
        if after["loss"] <= loss < before["loss"]:
            share = (before["loss"] - loss) / (before["loss"] - after["loss"])
            return before["tokens"] + share * (after["tokens"] - before["tokens"])
    return curve[-1]["tokens"]


def row(H: int, at_once: list[dict], others: list[list[dict]]) -> str:
    cells = []
    for late in others:
        gaps = [b["final"] / a["final"] - 1 for a, b in zip(at_once, late)]
        more = [a["curve"][-1]["tokens"] / tokens_until(a["curve"], b["final"]) for a, b in zip(at_once, late)]
        by_seed = f" ({', '.join(f'{gap:+.1%}' for gap in gaps)})" if len(gaps) > 1 else ""
        cells.append(f"{diloco.spread(late)}, {statistics.mean(gaps):+.1%}{by_seed}, {statistics.mean(more):.2f} ×")
    return f"| {H} | {diloco.spread(at_once)} | {' | '.join(cells)} |"


def page(rows: list[str], seeds: int, command: str) -> str:
    table = "\n".join(rows)
    return f"""# What a round of delay costs

Written by `{command}`; do not edit.
{datetime.date.today()}, {diloco.machine()}.

The byte GPT of [diloco.md](diloco.md) on the same text, {diloco.PEERS} daemons, AdamW at {LR:g}, bf16, outer Nesterov
0.7/0.8, {TOTAL_STEPS:,} inner steps, {seeds} seeds; an element is exchanged every H steps. At once: the next steps
begin when a round is committed. A round late (`exchange.delay = 1`): they begin while the payload is under way, from
the anchor less the peer's own pseudo-gradient. In parts (`exchange.fragments = {PARTS}`): each of {PARTS} rounds of
H/{PARTS} steps exchanges a part of the model, and a late part is mixed half and half with what the peer has learnt of
it meanwhile. Held-out loss, its difference from that at once, and the tokens that are needed for the same loss.

| H | at once | a round late | in parts | in parts, late |
|---|---|---|---|---|
{table}

The factor of tokens: all of them, over those after which the run without delay had the loss that the other one ended
with. The learning rate falls along a cosine over all steps, so a run that is not at its end has not had its last gains:
the true factor is smaller. This is loss by tokens. What delay saves is time: docs/CONTROLLER.md.
"""


def main(arguments: list[str]) -> int:
    options = diloco.parser_of("delay").parse_args(arguments)
    if diloco.missing(options):
        return 2
    folder, text = options.dir.resolve(), str(options.text.resolve())

    def run(H: int, parts: int, delay: int, seed: int) -> dict:
        name = f"H{H}-parts{parts}-delay{delay}-seed{seed}"
        setting = diloco.Setting(LR, H // parts, delay, parts)
        rounds = TOTAL_STEPS // setting.steps
        return diloco.kept(folder, name, lambda: diloco.diloco(text, setting, seed, rounds, folder / name))

    rows = []
    for H in STEPS_OF_ROUND:
        at_once, *others = (
            [run(H, parts, delay, seed) for seed in range(1, options.seeds + 1)]
            for parts, delay in ((1, 0), *OTHERS)
        )
        rows.append(row(H, at_once, others))
    found = page(rows, options.seeds, " ".join(["scripts/experiment delay", *arguments]))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "delay.md").write_text(found)
    print(found)
    return 0
