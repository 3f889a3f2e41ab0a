#!/usr/bin/env python3
"""Writes torch.json: what PyTorch computes for the built-in models, against which liblonghaul_torch.so is tested.

    .venv/bin/python tests/golden/make_torch.py > tests/golden/torch.json

Data and weights come from counter_random.py, so that no large file is committed.
"""

import json
import sys

import numpy as np
import torch

from counter_random import combine_key, random_below, random_normal
from reference import CNN, GPT, MLP, Images, Text, decay_groups, evaluate

TEXT = 20_000  # bytes
IMAGES = 120
SHARD, SEED = 3, 11


def text():
    tokens = torch.tensor([97 + random_below(123, i, 26) for i in range(TEXT)])
    return Text(tokens, context=8, batch=4, seed=SEED, eval_batches=3)


def images():
    pixels = np.array([random_below(321, i, 256) for i in range(IMAGES * 784)], dtype=np.uint8)
    labels = np.array([random_below(322, i, 10) for i in range(IMAGES)])
    return Images(pixels.reshape(IMAGES, 1, 28, 28), labels, batch=5, seed=SEED, validation=0.25, eval_batches=3)


def fill(model):
    """The same weights as the C++ test's."""
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            values = np.array([random_normal(combine_key(77, i), k) for k in range(p.numel())], dtype=np.float32)
            values *= np.float32(0.08)
            if p.dim() == 1 and name.endswith("weight"):
                values += np.float32(1)
            p.copy_(torch.from_numpy(values).view(p.shape))


def run(name, model, data, optimizer, lr, steps=6, clip=1.0, **options):
    fill(model)
    inner = optimizer(decay_groups(model, 0.1), lr=lr, **options)
    case = {"name": name, "lr": lr, "tensors": [[n, list(p.shape)] for n, p in model.named_parameters()]}
    case["held_out_before"] = evaluate(model, data)
    case["losses"] = []
    for step in range(steps):
        x, y = data.train(SHARD, step)
        loss = model(x, y)
        inner.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        inner.step()
        case["losses"].append(loss.item())
    case["held_out_after"] = evaluate(model, data)
    case["after"] = []
    for _, p in model.named_parameters():
        flat = p.detach().double().flatten()
        case["after"].append({"sum": flat.sum().item(), "first": flat[:6].tolist()})
    return case


def main():
    torch.set_num_threads(1)
    cases = [
        run("gpt-adamw", GPT(2, 16, 2, 8, 256), text(), torch.optim.AdamW, 1e-2, betas=(0.9, 0.95)),
        run("gpt-sgd", GPT(2, 16, 2, 8, 256), text(), torch.optim.SGD, 0.1, momentum=0.0),
        run("mlp-sgd", MLP(2, 8), images(), torch.optim.SGD, 0.05, momentum=0.9),
        run("cnn-adamw", CNN(8), images(), torch.optim.AdamW, 1e-2, betas=(0.9, 0.95)),
    ]
    json.dump({"torch": torch.__version__, "cases": cases}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
