"""The experiment `outer`: see scripts/experiment. The loop of SparseLoCo in plain PyTorch, without a daemon: what an
outer optimizer does behind top-k with error feedback, and with nothing lost."""

from __future__ import annotations

import argparse
import copy
import pathlib
import sys
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "golden"))

LAYERS, WIDTH, HEADS, CONTEXT, BATCH, STEPS, PEERS, BETA, LR = 2, 64, 4, 32, 8, 10, 2, 0.95, 4e-3
KEEP, RUN = 64, 4096
OUTER = [("SGD", 1.0, 0.0), ("heavy ball", 1.0, 0.8), ("Nesterov", 0.7, 0.8), ("Nesterov", 0.7, 0.9)]


def top_k(p):
    """topk-64/4096: the largest of each run, as a sign and one of two means."""
    import torch

    if p.dim() < 2 or p.numel() < RUN:
        return p.clone()
    out = torch.zeros_like(p).view(-1)
    for first in range(0, p.numel(), RUN):
        run = p.view(-1)[first : first + RUN]
        places = run.abs().topk(-(-run.numel() * KEEP // RUN)).indices
        kept = run[places]
        sizes = kept.abs()
        up = sizes > sizes.mean()
        for side in (up, ~up):
            if side.any():
                sizes[side] = sizes[side].mean()
        out[first + places] = sizes * kept.sign()
    return out.view_as(p)


def curve(kind: str, lr: float, momentum: float, codec: Callable, rounds: int, seed: int = 1) -> list[float]:
    """Held-out loss before the first round and after each."""
    import torch
    from counter_random import combine_key
    from experiments.baseline import initial
    from reference import GPT, Text, decay_groups, evaluate

    sources = sorted(pathlib.Path(f"/usr/lib/python3.{sys.version_info.minor}").glob("*.py"))
    text = b"".join(path.read_bytes() for path in sources)[: 4 << 20]
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    readers = [Text(tokens, CONTEXT, BATCH, combine_key(seed, n + 1)) for n in range(PEERS)]
    anchor = GPT(LAYERS, WIDTH, HEADS, CONTEXT, 256)
    initial(anchor, LAYERS, seed)
    models = [copy.deepcopy(anchor) for _ in range(PEERS)]
    inner = [torch.optim.AdamW(decay_groups(m, 0.1), lr=LR, betas=(0.9, 0.95), fused=True) for m in models]
    parameters = list(anchor.parameters())
    residuals = [[torch.zeros_like(p) for p in parameters] for _ in range(PEERS)]
    buffers = [torch.zeros_like(p) for p in parameters]
    losses = [evaluate(anchor, readers[0])]
    for done in range(rounds):
        mean = [torch.zeros_like(p) for p in parameters]
        for i, (model, optimizer) in enumerate(zip(models, inner)):
            model.load_state_dict(anchor.state_dict())
            for step in range(STEPS):
                loss = model(*readers[i].train(i + 1, done * STEPS + step))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            with torch.no_grad():
                for j, (local, start) in enumerate(zip(model.parameters(), parameters)):
                    p = start - local + BETA * residuals[i][j]
                    said = codec(p)
                    residuals[i][j] = p - said
                    mean[j] += said / PEERS
        with torch.no_grad():
            for p, delta, buffer in zip(parameters, mean, buffers):
                buffer.mul_(momentum).add_(delta)
                p.sub_(lr * (delta + momentum * buffer if kind == "Nesterov" else buffer))
        losses.append(evaluate(anchor, readers[0]))
    return losses


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/experiment outer")
    parser.add_argument("--rounds", type=int, default=15)
    flags = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    print("| outer optimizer | codec | held-out loss, round by round |\n|---|---|---|")
    for kind, lr, momentum in OUTER:
        for name, codec in (("top-k 64/4096, ef", top_k), ("f32", lambda p: p.clone())):
            losses = " ".join(f"{x:.2f}" for x in curve(kind, lr, momentum, codec, flags.rounds))
            print(f"| {kind} {lr:g}/{momentum:g} | {name} | {losses} |", flush=True)
    return 0
