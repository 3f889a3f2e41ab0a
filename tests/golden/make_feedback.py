#!/usr/bin/env python3
"""Writes feedback.json: EF21's and EControl's recurrences in NumPy, against which compress/feedback is tested.

    .venv/bin/python tests/golden/make_feedback.py > tests/golden/feedback.json

EF21 (arXiv 2106.05203, algorithm 2): c = C(g - h); h <- h + c. EControl (arXiv 2311.05645, algorithm 3):
c = C(eta e + g - h); e <- e + g - h - c; h <- h + c. Receivers sum the c with a momentum rho, which is 1 in the papers:
what they repeat is rho h. C is topk-4/64: the 4 largest magnitudes of each 64, decoded to one of two means.
"""

import json
import sys

import numpy as np

N, RUN, KEEP = 4096, 64, 4


def gradient(r):
    """Multiples of 1/8 that differ from round to round."""
    i = np.arange(N)
    return ((i * 7 + (i // 64) * 3 + r * 5) % 13 - 6) / 8.0


def compress(p):
    """The 4 largest of each 64, of equal ones the first: signs times the mean of those above the mean, or not."""
    out = np.zeros(N)
    kept = []
    for first in range(0, N, RUN):
        order = np.argsort(-np.abs(p[first : first + RUN]), kind="stable")[:KEEP]
        kept += sorted(first + int(o) for o in order)
    kept = np.array(kept)
    size = np.abs(p[kept])
    up = size > size.mean()
    for side in (up, ~up):
        if side.any():
            out[kept[side]] = np.copysign(1, p[kept[side]]) * bf16(size[side].mean())
    return out


def bf16(x):
    bits = int(np.float32(x).view(np.uint32))
    return float(np.uint32((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).view(np.float32))


def views(x):
    """Its products with four vectors of small whole numbers."""
    i = np.arange(N)
    return [float(x @ ((i * k) % 17 - 8)) for k in (1, 3, 5, 7)]


def trace(name, eta, rho, rounds=6):
    h, e, heavy = np.zeros(N), np.zeros(N), np.zeros(N)
    steps = []
    for r in range(rounds):
        p = eta * e + gradient(r) - rho * h
        c = compress(p)
        e = e + gradient(r) - rho * h - c if name == "econtrol" else e
        h = rho * h + c
        heavy = rho * heavy + c
        assert np.allclose(heavy, h)  # what one peer's receivers hold
        steps.append({"h": views(h), "e": views(e), "distance": float(np.linalg.norm(h - gradient(r)))})
    return {"name": name, "eta": eta, "rho": rho, "steps": steps}


def main():
    cases = [
        trace("ef21", 0.0, 1.0),
        trace("ef21", 0.0, 0.875),
        trace("econtrol", 0.25, 1.0),
        trace("econtrol", 0.125, 0.875),
    ]
    json.dump({"numpy": np.__version__, "cases": cases}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
