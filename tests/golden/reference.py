"""The built-in models and the order of the data, written again in PyTorch: the models after nanoGPT
(github.com/karpathy/nanoGPT, model.py) and plain torch.nn, the batches after optim/data.cpp. Golden files are made from
it, and experiments use it as the data-parallel baseline.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from counter_random import combine_key, random_below


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


def sampler_row(shard, seed, items, shards, rows_per_pass, position, batch, row):
    """shard_sampler::row of optim/data.cpp."""
    shard = (shard % shards + position * batch // rows_per_pass) % shards
    in_shard = (items - shard + shards - 1) // shards
    key = combine_key(combine_key(combine_key(combine_key(seed, shard), position), row), 0)
    return shard + shards * random_below(key, 0, in_shard), combine_key(key, 1)


def spread(i, n, room):
    return 0 if n < 2 else int(float(room) * float(i) / float(n - 1))


class Text:
    """text_batches: `tokens` is a tensor of token numbers."""

    def __init__(self, tokens, context, batch, seed, shards=16, validation=0.05, eval_batches=20):
        self.tokens, self.context, self.batch, self.seed = tokens, context, batch, seed
        self.shards, self.eval_batches = shards, eval_batches
        self.training = len(tokens) - max(1, int(len(tokens) * validation))
        self.block = max(min(64 * context, self.training // (4 * shards)), context + 1)

    def windows(self, starts):
        index = torch.tensor(starts)[:, None] + torch.arange(self.context)
        return self.tokens[index], self.tokens[index + 1]

    def train(self, shard, position):
        rows_per_pass = max(1, self.training // self.shards // self.context)
        blocks = self.training // self.block
        starts = []
        for row in range(self.batch):
            item, key = sampler_row(shard, self.seed, blocks, self.shards, rows_per_pass, position, self.batch, row)
            starts.append(item * self.block + random_below(key, 0, self.block - self.context))
        return self.windows(starts)

    def held_out(self, i):
        room = len(self.tokens) - self.training - (self.context + 1)
        n = self.eval_batches * self.batch
        return self.windows([self.training + spread(i * self.batch + r, n, room) for r in range(self.batch)])


class Images:
    """image_batches: `pixels` is uint8 [n, 1, 28, 28], `labels` int64 [n]."""

    def __init__(self, pixels, labels, batch, seed, shards=16, validation=0.05, eval_batches=20):
        floats = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081)
        self.pixels, self.labels = torch.from_numpy(floats), torch.from_numpy(labels)
        self.training = len(labels) - max(1, int(len(labels) * validation))
        self.batch, self.seed, self.shards, self.eval_batches = batch, seed, shards, eval_batches

    def pick(self, index):
        return self.pixels[index], self.labels[index]

    def train(self, shard, position):
        passes = self.training // self.shards
        rows = range(self.batch)
        place = (shard, self.seed, self.training, self.shards, passes, position, self.batch)
        return self.pick([sampler_row(*place, r)[0] for r in rows])

    def held_out(self, i):
        n = self.eval_batches * self.batch
        room = len(self.labels) - self.training - 1
        return self.pick([self.training + spread(i * self.batch + r, n, room) for r in range(self.batch)])


def decay_groups(model, weight_decay):
    """Weight decay on tensors of two or more dimensions only."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def evaluate(model, data):
    """Mean held-out loss."""
    with torch.no_grad():
        return sum(model(*data.held_out(i)).item() for i in range(data.eval_batches)) / data.eval_batches
