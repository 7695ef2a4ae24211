"""Several processes that train one model together, started by `torchrun`.

Members of an ensemble are dealt to the processes, and so is what has to be computed once for each
sample. What they tell each other is told a few times in a run and lies in the computer's memory, so
it goes through gloo, on GPUs too: nccl would forbid that processes share a GPU.
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

# How long a process waits for one that has more to train. One that ends is noticed at once.
LONGEST_WAIT = timedelta(days=7)

Item = TypeVar("Item")


class ProcessesError(UserError):
    """Another process of this training ended, or does not answer."""


@dataclass(frozen=True)
class Processes:
    """One process, `rank` (from 0) among `size`; `local_…` count those of its machine alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size}"

    @property
    def first(self) -> bool:
        return self.rank == 0

    def owner(self, number: int) -> int:
        """The rank that a piece of work is dealt to."""
        return number % self.size

    def mine(self, count: int) -> list[int]:
        """Which of `count` pieces of work are dealt to this process."""
        return [i for i in range(count) if self.owner(i) == self.rank]

    def meet(self, having: str | None = None) -> None:
        """Waits until every process is here; `having` says on stderr what this one has done.

        Raises ProcessesError if another one ended.
        """
        if self.size == 1:
            return
        if having is not None:
            print(f"{self} {having}; it waits for the others", file=sys.stderr, flush=True)
        with self._others():
            dist.monitored_barrier(timeout=LONGEST_WAIT, wait_all_ranks=True)

    def send(self, tensors: Iterable[Tensor], *, source: int = 0) -> None:
        """Writes the tensors of the rank `source` into those of every other; all on the CPU.

        Raises ProcessesError if another one ended.
        """
        if self.size == 1:
            return
        with self._others():
            for tensor in tensors:
                dist.broadcast(tensor, src=source)

    def share(self, items: Sequence[Item], compute: Callable[[Item], Tensor]) -> list[Tensor]:
        """`compute` of each item, each by one process; all of it on the CPU of every process.

        Raises ProcessesError if another one ended.
        """
        found = {i: compute(items[i]).cpu().contiguous() for i in self.mine(len(items))}
        if self.size == 1:
            return list(found.values())
        self.meet()
        for i in range(len(items)):
            with self._others():
                like: list[Any] = [(found[i].shape, found[i].dtype) if i in found else None]
                dist.broadcast_object_list(like, src=self.owner(i))
            shape, dtype = like[0]
            found.setdefault(i, torch.empty(shape, dtype=dtype))
            self.send([found[i]], source=self.owner(i))
        return [found[i] for i in range(len(items))]

    @contextmanager
    def _others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ProcessesError(
                f"{self} stops, because another process ended or does not answer: see what that "
                "one said, then give the same command again to go on"
            ) from error


ALONE = Processes()


@contextmanager
def join() -> Iterator[Processes]:
    """The processes that `torchrun` (or another launcher that sets its variables) started."""
    env = os.environ
    size = int(env.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    dist.init_process_group("gloo")
    try:
        rank = dist.get_rank()
        local_rank = int(env.get("LOCAL_RANK", "0"))
        yield Processes(rank, size, local_rank, int(env.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        # The others notice that this process is gone.
        dist.destroy_process_group()
