"""Codecs: time, bits and error of each, beside memcpy and what torch does for the same, on one core and on two

usage: scripts/bench codec [--elements N] [--repeat N] [--save]

One run on one machine: `longhaul bench codec` first, then torch with one thread on values of the same kind. Speeds are
GB of f32 a second, the fastest of the repeats. --save puts the table into docs/COMPRESSION.md and the figure beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import subprocess
import time
from collections.abc import Callable

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGHAUL = ROOT / "build" / "release" / "longhaul"
PAGE = ROOT / "docs" / "COMPRESSION.md"
FIGURE = ROOT / "docs" / "results" / "codec.png"
BEGIN, END = "<!-- written by scripts/bench codec --save -->\n", "<!-- to here -->\n"
FAMILIES = {
    "floats": ("bf16", "e3m0"),
    "integers": ("int8", "int4"),
    "entropy-coded": ("ecsq-4", "ecsq-3", "ecsq-2", "ecsq-1"),
    "signs": ("sign2", "sign1"),
    "top-k of runs": ("topk-4/64", "topk-64/4096"),
    "top-k of a tensor": ("topk-1%", "topk-0.1%"),
    "low rank": ("lowrank-4",),
}


def best(work: Callable[[], object], repeat: int) -> float:
    work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def torch_rows(elements: int, repeat: int) -> list[tuple[str, float]]:
    torch.set_num_threads(1)
    values = torch.randn(elements // 4096 * 4096) * 1e-3
    copy = torch.empty_like(values)
    runs = values.view(-1, 4096)
    works: list[tuple[str, Callable[[], object]]] = [
        ("torch copy_", lambda: copy.copy_(values)),
        ("torch absmax + int8", lambda: (values * (127 / values.abs().max())).round().to(torch.int8)),
        ("torch.topk 64/4096", lambda: runs.abs().topk(64, dim=1)),
        ("torch.topk 1 %", lambda: values.abs().topk(values.numel() // 100)),
    ]
    return [(name, values.numel() * 4e-9 / best(work, repeat)) for name, work in works]


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "an unknown processor"


def table(rows: list[dict], others: list[tuple[str, float]]) -> str:
    memcpy = rows[0]["memcpy_bytes_per_second"]
    text = "| codec | bits | encode | of memcpy | feedback | two threads | decode and add | relative error |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for r in rows:
        kinds = ("encode", "feedback", "two_threads", "decode")
        encode, both, two, add = (r[f"{what}_bytes_per_second"] for what in kinds)
        text += (
            f"| `{r['codec']}` | {r['bits_per_element']:.3f} | {encode * 1e-9:.2f} | {encode / memcpy:.0%} "
            f"| {both * 1e-9:.2f} | {two * 1e-9:.2f}, {two / both:.2f} × "
            f"| {add * 1e-9:.2f} | {r['relative_error']:.4f} |\n"
        )
    text += f"| memcpy | | {memcpy * 1e-9:.2f} | | | | | |\n"
    for name, speed in others:
        text += f"| {name} | | {speed:.2f} | {speed * 1e9 / memcpy:.0%} | | | | |\n"
    return text


def draw(rows: list[dict]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    by_name = {r["codec"]: r for r in rows}
    figure, axes = plt.subplots(figsize=(7, 4))
    for family, names in FAMILIES.items():
        points = [by_name[n] for n in names if n in by_name]
        axes.plot(
            [p["bits_per_element"] for p in points], [p["relative_error"] for p in points], marker="o", label=family
        )
        for p in points:
            axes.annotate(
                p["codec"], (p["bits_per_element"], p["relative_error"]), (4, 4), textcoords="offset points", size=8
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bits an element, headers, scales and places counted")
    axes.set_ylabel("‖C(x) − x‖ / ‖x‖")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=120)


def save(rows: list[dict], text: str) -> None:
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    head = (
        f"\n{datetime.date.today()}, one core of {processor()}, kernels {rows[0]['kernels']}, {rows[0]['elements']:,} "
        "elements close to normal;\nGB of f32 a second.\n\n"
    )
    PAGE.write_text(before + BEGIN + head + text + "\n" + END + after)
    draw(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=1 << 25)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="put the table and the figure into docs/COMPRESSION.md")
    flags = parser.parse_args()
    command = [LONGHAUL, "bench", "codec", "--elements", str(flags.elements), "--repeat", str(flags.repeat), "--json"]
    rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    text = table(rows, torch_rows(flags.elements, flags.repeat))
    print(text)
    if flags.save:
        save(rows, text)


if __name__ == "__main__":
    main()
