"""The experiment `codecs`: see scripts/experiment."""

from __future__ import annotations

import datetime
import pathlib
import statistics

from experiments import diloco

LR, ROUNDS = 4e-3, 100
NOISE = 0.01  # differences of the held-out loss below it say nothing at this size
# By codec: its feedback. Those that need it have the outer step that comes with it, SGD at 1.
SETTINGS = {
    "f32": "none",
    "int8": "none",
    "int4": "none",
    "e3m0": "none",
    "ecsq-3": "none",
    "ecsq-1": "ef",
    "topk-4/64": "ef",
    "topk-64/4096": "ef",
}


def setting_of(codec: str) -> diloco.Setting:
    feedback = SETTINGS[codec]
    if feedback == "none":
        return diloco.Setting(LR, codec=codec)
    return diloco.Setting(LR, codec=codec, feedback=feedback, outer="")


def sent(results: list[diloco.Result]) -> float:
    """Bytes that a peer sent to one other in the whole run, everything counted."""
    return statistics.mean(r["wire_sent_per_peer"] for r in results) / (diloco.PEERS - 1)


def row(codec: str, results: list[diloco.Result], full: list[diloco.Result]) -> str:
    gaps = [a["final"] / b["final"] - 1 for a, b in zip(results, full)]
    told = f"{statistics.mean(gaps):+.1%} ({', '.join(f'{g:+.1%}' for g in gaps)})"
    if codec == "f32":
        told = ""
    elif abs(statistics.mean(gaps)) < NOISE:
        told += ", noise"
    feedback = "" if SETTINGS[codec] == "none" else SETTINGS[codec]
    return (
        f"| `{codec}` | {feedback} | {diloco.spread(results)} | {told} | {sent(results) / 1e6:,.2f} MB "
        f"| {sent(full) / sent(results):.1f} |"
    )


def draw(path: pathlib.Path, found: dict[str, list[diloco.Result]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for k, (codec, results) in enumerate(found.items()):
        per_round = sent(results) / ROUNDS / 1e6
        for i, r in enumerate(results):
            axes.plot(
                [p["round"] * per_round for p in r["curve"]],
                [p["loss"] for p in r["curve"]],
                color=f"C{k}",
                alpha=0.8,
                lw=1.2,
                label=codec if i == 0 else None,
            )
    axes.set_xscale("log")
    axes.set_xlabel("MB sent by each peer to each other peer, everything counted")
    axes.set_ylabel("held-out loss (nats a byte)")
    axes.set_ylim(1.6, 2.8)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def page(found: dict[str, list[diloco.Result]], command: str) -> str:
    rows = "\n".join(row(codec, results, found["f32"]) for codec, results in found.items())
    seeds = len(found["f32"])
    return f"""# What codecs cost in loss, and save in bytes

Written by `{command}`; do not edit.
{datetime.date.today()}, {diloco.machine()}.

The byte GPT of [diloco.md](diloco.md) on the same text, {diloco.PEERS} daemons, AdamW at {LR:g}, {ROUNDS} rounds of
H = {diloco.STEPS}, {seeds} seeds; outer Nesterov 0.7/0.8, and with feedback SGD at 1, as is the default. Bytes are all
that a peer gave to the sockets to one other peer: payloads, their headers and signatures, heartbeats, the log.

| codec | feedback | held-out loss | difference from f32 (by seed) | sent to one other | ratio |
|---|---|---|---|---|---|
{rows}

Differences below {NOISE:.0%} are noise at this size. The model has so few parameters that what is sent beside the
payloads is a part of the smallest ones; docs/COMPRESSION.md has the bits an element of each codec.

![held-out loss over bytes](codecs.png)
"""


def main(arguments: list[str]) -> int:
    parser = diloco.parser_of("codecs")
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS), help="run these and write nothing")
    options = parser.parse_args(arguments)
    if diloco.missing(options):
        return 2
    folder, text = options.dir.resolve(), str(options.text.resolve())

    def run(codec: str, seed: int) -> diloco.Result:
        name = f"{codec.replace('/', '-')}-seed{seed}"
        return diloco.kept(
            folder, name, lambda: diloco.diloco(text, setting_of(codec), seed, ROUNDS, folder / name)
        )

    seeds = range(1, options.seeds + 1)
    found = {codec: [run(codec, seed) for seed in seeds] for codec in options.only or SETTINGS}
    if options.only:
        return 0
    told = page(found, " ".join(["scripts/experiment codecs", *arguments]))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "codecs.md").write_text(told)
    draw(options.out / "codecs.png", found)
    print(told)
    return 0
