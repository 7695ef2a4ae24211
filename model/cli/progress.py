"""Progress of commands, on stderr."""

import math
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from model.training.trainer import Trainer
from model.training.training_log import Epoch

console = Console(stderr=True)


def progress_of_records() -> Progress:
    """A spinner, for an unknown number of records."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console)


def progress_of_jobs(*, disable: bool = False) -> Progress:
    """A bar with the number of finished jobs and the remaining time."""
    columns = (MofNCompleteColumn(), TextColumn("left:"), TimeRemainingColumn())
    return Progress(*Progress.get_default_columns()[:2], *columns, console=console, disable=disable)


class RemainingEpochs:
    """An upper bound for this process's remaining epochs, and for their time.

    A member that stops early needs fewer.
    """

    def __init__(self, members: list[int], epochs: int) -> None:
        self._left = dict.fromkeys(members, epochs)
        self._epochs, self._members = epochs, len(members)
        self._seconds: list[float] = []

    @property
    def total(self) -> int:
        return self._epochs * self._members

    @property
    def left(self) -> int:
        return sum(self._left.values())

    def record(self, epoch: Epoch) -> timedelta:
        """Counts an epoch as done; returns the upper bound for the remaining time."""
        for member in self._left:  # in the order of training
            if member == epoch.member:
                break
            self._left[member] = 0
        self._left[epoch.member] = self._epochs - epoch.number
        self._seconds.append(epoch.seconds)
        mean = sum(self._seconds) / len(self._seconds)
        return timedelta(seconds=math.ceil(mean * self.left))


def train_with_progress(trainer: Trainer, out: Path) -> None:
    """Trains and prints each epoch. With several processes, each prints its own, without a bar."""
    processes, config = trainer.processes, trainer.config
    members = processes.own(config.members)
    with progress_of_jobs(disable=processes.size > 1) as progress:
        prefix = f"{processes}: " if processes.size > 1 else ""
        numbers = ", ".join(str(k + 1) for k in members)
        title = f"{prefix}member {numbers} of {config.members} on {trainer.device}"
        progress.console.print(title, soft_wrap=True)
        epochs = RemainingEpochs(members, config.epochs)
        bar = progress.add_task("training", total=epochs.total)
        for epoch in trainer.run(out):
            left = epochs.record(epoch)
            losses = "  ".join(
                f"{kind} {epoch.training[kind]:.4f}/{value:.4f}"
                for kind, value in epoch.validation.items()
            )
            position = f"member {epoch.member + 1}/{config.members}, "
            position += f"epoch {epoch.number:2d}/{config.epochs}"
            line = f"{position}  (train/held out) {losses}  AUROC {epoch.auroc:.4f}"
            line += f"{' *' if epoch.best else ''}  {epoch.seconds:.1f} s, at most {left} left"
            progress.console.print(line, soft_wrap=True)
            progress.update(
                bar, completed=epochs.total - epochs.left, description=f"training: {position}"
            )
