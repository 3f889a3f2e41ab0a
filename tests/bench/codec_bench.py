"""Codecs: time, bits and error of each, beside memcpy and what torch does for the same, on one core

usage: scripts/bench codec [--elements N] [--repeat N]

One run on one machine: `longhaul bench codec` first, then torch with one thread on values of the same kind. Speeds are
GB of f32 a second, the fastest of the repeats.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import time
from collections.abc import Callable

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGHAUL = ROOT / "build" / "release" / "longhaul"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=1 << 24)
    parser.add_argument("--repeat", type=int, default=3)
    flags = parser.parse_args()
    command = [LONGHAUL, "bench", "codec", "--elements", str(flags.elements), "--repeat", str(flags.repeat), "--json"]
    rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(f"kernels {rows[0]['kernels']}, memcpy {rows[0]['memcpy_bytes_per_second'] * 1e-9:.2f} GB/s")
    print(f"{'':<22}{'bits':>8}{'encode':>9}{'of memcpy':>11}{'add':>9}{'error':>9}")
    for r in rows:
        encode, memcpy = r["encode_bytes_per_second"], r["memcpy_bytes_per_second"]
        print(
            f"{r['codec']:<22}{r['bits_per_element']:>8.3f}{encode * 1e-9:>9.2f}{encode / memcpy:>11.0%}"
            f"{r['decode_bytes_per_second'] * 1e-9:>9.2f}{r['relative_error']:>9.4f}",
            flush=True,
        )
    for name, speed in torch_rows(flags.elements, flags.repeat):
        print(f"{name:<22}{'':>8}{speed:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
