"""Several processes that train one model together, as ``torchrun`` starts them; without it: this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed


class Processes:
    """Who this process is among those that train.

    Attributes:
        rank: Number of this process; 0 speaks and writes files.
        world: How many there are.
        local: Its number on this machine, which is that of its GPU.
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
        """Until every process is here."""
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
