"""Distributed training: the processes that `torchrun` starts train one ensemble together.

Each process trains some of the members and computes some of the representations. They exchange
tensors a few times in a run. These are in host memory, so the backend is gloo, also on GPUs: nccl
does not let processes share a GPU.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from model.errors import UserError

# How long a process waits for one that trains longer. A process that ends is noticed at once.
MAX_WAIT = timedelta(days=7)

Item = TypeVar("Item")


class ProcessGroupError(UserError):
    """Another process of the training ended or does not respond."""


@dataclass(frozen=True)
class ProcessGroup:
    """The process `rank` (from 0) of `size`. `local_…` count the processes of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size}"

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def owner(self, number: int) -> int:
        """The rank of the process that does a piece of work."""
        return number % self.size

    def own(self, count: int) -> list[int]:
        """The pieces of work, of `count`, that this process does."""
        return [i for i in range(count) if self.owner(i) == self.rank]

    def barrier(self, done: str | None = None) -> None:
        """Waits until all processes are here. Prints `done`, what this one has done, on stderr.

        Raises ProcessGroupError if another process ended.
        """
        if self.size == 1:
            return
        if done is not None:
            print(f"{self} {done}; it waits for the others", file=sys.stderr, flush=True)
        with self._peer_errors():
            dist.monitored_barrier(timeout=MAX_WAIT, wait_all_ranks=True)

    def broadcast(self, tensors: Iterable[Tensor], *, source: int = 0) -> None:
        """Copies the tensors of the rank `source` into those of all others; all on the CPU.

        Raises ProcessGroupError if another process ended.
        """
        if self.size == 1:
            return
        with self._peer_errors():
            for tensor in tensors:
                dist.broadcast(tensor, src=source)

    def compute_all(self, items: Sequence[Item], compute: Callable[[Item], Tensor]) -> list[Tensor]:
        """`compute` of each item, on the CPU. One process computes an item; all get the results.

        Raises ProcessGroupError if another process ended.
        """
        results = {i: compute(items[i]).cpu().contiguous() for i in self.own(len(items))}
        if self.size == 1:
            return list(results.values())
        self.barrier()
        for i in range(len(items)):
            with self._peer_errors():
                form: list[Any] = [(results[i].shape, results[i].dtype) if i in results else None]
                dist.broadcast_object_list(form, src=self.owner(i))
            shape, dtype = form[0]
            results.setdefault(i, torch.empty(shape, dtype=dtype))
            self.broadcast([results[i]], source=self.owner(i))
        return [results[i] for i in range(len(items))]

    @contextmanager
    def _peer_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ProcessGroupError(
                f"{self} stops because another process ended or does not respond; see that "
                "process's error, then run the same command again to resume"
            ) from error


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """The group of processes that `torchrun` (or a launcher with its variables) started."""
    env = os.environ
    size = int(env.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    dist.init_process_group("gloo")
    try:
        rank = dist.get_rank()
        local_rank = int(env.get("LOCAL_RANK", "0"))
        yield ProcessGroup(rank, size, local_rank, int(env.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        # Makes the other processes notice that this one ended.
        dist.destroy_process_group()
