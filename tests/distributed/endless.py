"""A program of one rank that computes, or waits for a rank that makes no call; `test_signals` sends it signals."""

import os
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing

from clearhead import distributed


def main(mode):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    own = [torch.randn(1, 2, 512, 16, requires_grad=True) for _ in range(3)]
    distributed.attention(*own).sum().backward()
    os.write(1, f"READY {rank} {os.getpid()}\n".encode())
    while mode == "waits" and rank == size - 1:
        time.sleep(0.1)
    while True:
        distributed.attention(*own).sum().backward()


def spawned(rank, size, port, mode):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    main(mode)


if __name__ == "__main__":
    if len(sys.argv) > 2:  # without torchrun
        torch.multiprocessing.spawn(spawned, (3, *sys.argv[:0:-1]), nprocs=3)
    else:
        main(sys.argv[1])
