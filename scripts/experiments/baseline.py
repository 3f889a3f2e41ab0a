"""Data-parallel training in one PyTorch process: AdamW on the joint batch of all peers, f32, the same model from the
same initial parameters, the same batches and the same held-out windows as the daemons'.

    .venv/bin/python scripts/experiments/baseline.py '{"text": …, "lr": …, …}'    prints the result as JSON
"""

from __future__ import annotations

import json
import math
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from counter_random import combine_key, random_normal  # noqa: E402
from reference import GPT, Text, decay_groups, evaluate  # noqa: E402


def initial(model: torch.nn.Module, layers: int, seed: int) -> None:
    """libtorch_trainer::initial_parameters of optim/torch/trainer.cpp."""
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if p.dim() == 1:
                p.fill_(1)
                continue
            scale = 0.02 / math.sqrt(2 * layers) if name.endswith("c_proj.weight") else 0.02
            key = combine_key(seed, i)
            values = np.array([random_normal(key, k) for k in range(p.numel())], dtype=np.float32)
            p.copy_(torch.from_numpy(values * np.float32(scale)).view(p.shape))


def learning_rate(peak: float, position: int, total: int, warmup: int, final_share: float) -> float:
    if position < warmup:
        return peak * (position + 1) / warmup
    progress = min(1.0, (position - warmup) / max(1, total - warmup))
    return peak * (final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress)))


def data_parallel(text: str, lr: float, seed: int, rounds: int, steps: int, peers: int, every: int = 5) -> dict:
    """`rounds` × `steps` steps; a held-out loss each `every` rounds."""
    torch.set_num_threads(1)
    started = time.time()
    layers, width, heads, context, vocab, batch = 3, 64, 4, 64, 256, 16
    tokens = torch.from_numpy(np.fromfile(text, dtype=np.uint8).astype(np.int64))
    # As peers/peer.cpp: the founder is peer 1, and each peer has a shard and a seed of its own.
    readers = {number: Text(tokens, context, batch, combine_key(seed, number)) for number in range(1, peers + 1)}
    model = GPT(layers, width, heads, context, vocab)
    initial(model, layers, seed)
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=lr, betas=(0.9, 0.95), fused=True)
    total = rounds * steps
    curve = []
    for position in range(total):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(lr, position, total, 100, 0.1)
        parts = [reader.train(number, position) for number, reader in readers.items()]
        loss = model(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))
        if position == 0:
            first_loss = loss.item()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (position + 1) % (every * steps) == 0 or position + 1 == total:
            tokens_read = (position + 1) * peers * batch * context
            curve.append({"round": (position + 1) // steps, "tokens": tokens_read, "loss": evaluate(model, readers[1])})
    elements = sum(p.numel() for p in model.parameters())
    return {
        "lr": lr,
        "seed": seed,
        "first_loss": first_loss,
        "curve": curve,
        "final": curve[-1]["loss"],
        "elements": elements,
        "payload_bytes_per_peer": 4 * elements * total,
        "seconds": time.time() - started,
    }


if __name__ == "__main__":
    print(json.dumps(data_parallel(**json.loads(sys.argv[1]))))
