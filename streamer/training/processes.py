"""The processes, started by ``torchrun``, that train one model together; without it, this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed


class Processes:
    """This process's place among those that train.

    Attributes:
        rank: Number of this process; 0 prints and writes files.
        world: Number of processes.
        local: Its number on this machine, and that of its GPU.
    """

    def __init__(self, rank: int = 0, world: int = 1, local: int = 0) -> None:
        self.rank, self.world, self.local = rank, world, local

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values_N: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        if self.world > 1:
            distributed.all_reduce(values_N)
        return values_N

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the others where ``torchrun`` has set RANK, WORLD_SIZE and LOCAL_RANK: NCCL on GPUs, else gloo."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes()
        return
    here = Processes(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield here
    finally:
        distributed.destroy_process_group()
