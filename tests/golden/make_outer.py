#!/usr/bin/env python3
"""Writes outer.json: trajectories of torch.optim.SGD, against which optim/outer.cpp is tested.

    .venv/bin/python tests/golden/make_outer.py > tests/golden/outer.json

The pseudo-gradients are the "gradients" of torch.optim.SGD. Values are written as their exact f32 bits.
"""

import json
import sys

import torch


def bits(t):
    return [v & 0xFFFFFFFF for v in t.detach().view(torch.int32).tolist()]


def trajectory(name, lr, momentum, nesterov, steps=12, elements=24):
    generator = torch.Generator().manual_seed(sum(name.encode()))
    # Magnitudes over six decades, as in a real model.
    scale = 10.0 ** (torch.rand(elements, generator=generator) * 6 - 4)
    theta = torch.nn.Parameter(torch.randn(elements, generator=generator) * scale)
    optimizer = torch.optim.SGD([theta], lr=lr, momentum=momentum, nesterov=nesterov)
    case = {"name": name, "lr": lr, "momentum": momentum, "nesterov": nesterov, "start": bits(theta), "steps": []}
    for _ in range(steps):
        theta.grad = torch.randn(elements, generator=generator) * scale * 0.1
        optimizer.step()
        state = optimizer.state[theta].get("momentum_buffer")
        buffer = torch.zeros(elements) if state is None else state
        case["steps"].append({"delta": bits(theta.grad), "theta": bits(theta), "momentum": bits(buffer)})
    return case


def main():
    cases = [
        trajectory("sgd", 1.0, 0.0, False),
        trajectory("sgd-0.7", 0.7, 0.0, False),
        trajectory("heavy-ball", 0.7, 0.9, False),
        trajectory("diloco", 0.7, 0.9, True),
        trajectory("longhaul-default", 0.7, 0.8, True),
        trajectory("few-rounds", 1.0, 0.5, True),
    ]
    json.dump({"torch": torch.__version__, "cases": cases}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
