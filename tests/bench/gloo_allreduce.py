"""All-reduces by torch.distributed's Gloo, for comparison: gloo_allreduce.py RANK PEERS ADDRESS BYTES REPEAT.

The first rank prints the seconds as a JSON list. One warm-up is not counted.
"""

import json
import os
import sys
import time

import torch
import torch.distributed as dist

rank, peers, address, size, repeat = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
os.environ["GLOO_SOCKET_IFNAME"] = "longhaul0"
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://{address}:29500", rank=rank, world_size=peers)
tensor = torch.full((size // 4,), float(rank))
seconds = []
for _ in range(repeat + 1):
    tensor.fill_(float(rank))
    dist.barrier()
    begun = time.monotonic()
    dist.all_reduce(tensor)
    seconds.append(time.monotonic() - begun)
    assert tensor[0].item() == peers * (peers - 1) / 2
if rank == 0:
    print(json.dumps(seconds[1:]), flush=True)
# Gloo's threads sometimes abort the process at its end, when the other rank was faster.
os._exit(0)
