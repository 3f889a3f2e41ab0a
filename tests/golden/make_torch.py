#!/usr/bin/env python3
"""Writes torch.json: what PyTorch computes for the built-in models, against which liblonghaul_torch.so is tested.

    .venv/bin/python tests/golden/make_torch.py > tests/golden/torch.json

The models are written here again, after nanoGPT (github.com/karpathy/nanoGPT, model.py) and plain torch.nn; data order
and weights come from counter_random.py, so that no large file is committed.
"""

import json
import math
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from counter_random import combine_key, random_below, random_normal

TEXT = 20_000  # bytes
IMAGES = 120
SHARD, SEED = 3, 11


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.heads = heads

    def forward(self, x):
        b, t, c = x.size()
        q, k, v = (p.view(b, t, self.heads, c // self.heads).transpose(1, 2) for p in self.c_attn(x).split(c, dim=2))
        # Written out, so that the reference does not use the kernel that is tested.
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        scores = scores.masked_fill(torch.ones(t, t).tril() == 0, float("-inf"))
        y = F.softmax(scores, dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).reshape(b, t, c))


class Feed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.c_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, bias=False)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, bias=False)
        self.mlp = Feed(width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, layers, width, heads, context, vocab):
        super().__init__()
        self.transformer = nn.ModuleDict(
            dict(
                wte=nn.Embedding(vocab, width),
                wpe=nn.Embedding(context, width),
                h=nn.ModuleList([Block(width, heads) for _ in range(layers)]),
                ln_f=nn.LayerNorm(width, bias=False),
            )
        )
        self.lm_head = nn.Linear(width, vocab, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, x, y):
        h = self.transformer.wte(x) + self.transformer.wpe(torch.arange(x.size(1)))
        for block in self.transformer.h:
            h = block(h)
        logits = self.lm_head(self.transformer.ln_f(h))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1))


class MLP(nn.Module):
    def __init__(self, layers, width):
        super().__init__()
        sizes = [784] + [width] * layers
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        self.head = nn.Linear(width, 10)

    def forward(self, x, y):
        x = x.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return F.cross_entropy(self.head(x), y)


class CNN(nn.Module):
    def __init__(self, width):
        super().__init__()
        groups = min(width, 4)
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, 2 * width)
        self.head = nn.Linear(2 * width * 49, 10)

    def forward(self, x, y):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        return F.cross_entropy(self.head(x.flatten(1)), y)


def sampler_row(items, shards, rows_per_pass, position, batch, row):
    """shard_sampler::row of optim/data.cpp."""
    shard = (SHARD % shards + position * batch // rows_per_pass) % shards
    in_shard = (items - shard + shards - 1) // shards
    key = combine_key(combine_key(combine_key(combine_key(SEED, shard), position), row), 0)
    return shard + shards * random_below(key, 0, in_shard), combine_key(key, 1)


def spread(i, n, room):
    return 0 if n < 2 else int(float(room) * float(i) / float(n - 1))


class Text:
    def __init__(self, context, batch, shards=16, validation=0.05, eval_batches=3):
        self.tokens = torch.tensor([97 + random_below(123, i, 26) for i in range(TEXT)])
        self.training = TEXT - max(1, int(TEXT * validation))
        self.context, self.batch, self.shards, self.eval_batches = context, batch, shards, eval_batches
        self.block = max(min(64 * context, self.training // (4 * shards)), context + 1)

    def windows(self, starts):
        x = torch.stack([self.tokens[s : s + self.context] for s in starts])
        return x, torch.stack([self.tokens[s + 1 : s + 1 + self.context] for s in starts])

    def train(self, position):
        rows_per_pass = max(1, self.training // self.shards // self.context)
        starts = []
        for row in range(self.batch):
            item, key = sampler_row(self.training // self.block, self.shards, rows_per_pass, position, self.batch, row)
            starts.append(item * self.block + random_below(key, 0, self.block - self.context))
        return self.windows(starts)

    def held_out(self, i):
        room = TEXT - self.training - (self.context + 1)
        n = self.eval_batches * self.batch
        return self.windows([self.training + spread(i * self.batch + r, n, room) for r in range(self.batch)])


class Images:
    def __init__(self, batch, shards=16, validation=0.25, eval_batches=3):
        pixels = np.array([random_below(321, i, 256) for i in range(IMAGES * 784)], dtype=np.uint8)
        floats = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081)
        self.pixels = torch.from_numpy(floats).view(IMAGES, 1, 28, 28)
        self.labels = torch.tensor([random_below(322, i, 10) for i in range(IMAGES)])
        self.training = IMAGES - max(1, int(IMAGES * validation))
        self.batch, self.shards, self.eval_batches = batch, shards, eval_batches

    def pick(self, index):
        return self.pixels[index], self.labels[index]

    def train(self, position):
        passes = self.training // self.shards
        return self.pick(
            [sampler_row(self.training, self.shards, passes, position, self.batch, r)[0] for r in range(self.batch)]
        )

    def held_out(self, i):
        n = self.eval_batches * self.batch
        room = IMAGES - self.training - 1
        return self.pick([self.training + spread(i * self.batch + r, n, room) for r in range(self.batch)])


def fill(model):
    """The same weights as the C++ test's."""
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            values = np.array([random_normal(combine_key(77, i), k) for k in range(p.numel())], dtype=np.float32)
            values *= np.float32(0.08)
            if p.dim() == 1 and name.endswith("weight"):
                values += np.float32(1)
            p.copy_(torch.from_numpy(values).view(p.shape))


def evaluate(model, data):
    with torch.no_grad():
        return sum(model(*data.held_out(i)).item() for i in range(data.eval_batches)) / data.eval_batches


def run(name, model, data, optimizer, lr, steps=6, clip=1.0, **options):
    fill(model)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    inner = optimizer(groups, lr=lr, **options)
    case = {"name": name, "lr": lr, "tensors": [[n, list(p.shape)] for n, p in model.named_parameters()]}
    case["held_out_before"] = evaluate(model, data)
    case["losses"] = []
    for step in range(steps):
        x, y = data.train(step)
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
    gpt = lambda: GPT(2, 16, 2, 8, 256)
    cases = [
        run("gpt-adamw", gpt(), Text(8, 4), torch.optim.AdamW, 1e-2, betas=(0.9, 0.95)),
        run("gpt-sgd", gpt(), Text(8, 4), torch.optim.SGD, 0.1, momentum=0.0),
        run("mlp-sgd", MLP(2, 8), Images(5), torch.optim.SGD, 0.05, momentum=0.9),
        run("cnn-adamw", CNN(8), Images(5), torch.optim.AdamW, 1e-2, betas=(0.9, 0.95)),
    ]
    json.dump({"torch": torch.__version__, "cases": cases}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
