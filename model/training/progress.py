"""How far a command is, on stderr."""

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

from model.training.train import Trainer
from model.training.training_log import Epoch

console = Console(stderr=True)


def progress_of_records() -> Progress:
    """Without a total: how many there will be is not known."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console)


def progress_of_jobs(*, disable: bool = False) -> Progress:
    """With how many are done, and the time that is left."""
    columns = (MofNCompleteColumn(), TextColumn("left:"), TimeRemainingColumn())
    return Progress(*Progress.get_default_columns()[:2], *columns, console=console, disable=disable)


class EpochsLeft:
    """How many epochs this process has to train at most, and the time that they take at most.

    A member that stops early takes fewer.
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

    def trained(self, epoch: Epoch) -> timedelta:
        """Takes note of an epoch; gives the time that is left at most."""
        for member in self._left:  # they are trained in this order
            if member == epoch.member:
                break
            self._left[member] = 0
        self._left[epoch.member] = self._epochs - epoch.number
        self._seconds.append(epoch.seconds)
        mean = sum(self._seconds) / len(self._seconds)
        return timedelta(seconds=math.ceil(mean * self.left))


def watch(trainer: Trainer, out: Path) -> None:
    """Trains, and prints each epoch; of several processes each its own, without a bar."""
    processes, config = trainer.processes, trainer.config
    mine = processes.mine(config.members)
    with progress_of_jobs(disable=processes.size > 1) as progress:
        who = f"{processes}: " if processes.size > 1 else ""
        named = ", ".join(str(k + 1) for k in mine)
        what = f"{who}member {named} of {config.members} on {trainer.device}"
        progress.console.print(what, soft_wrap=True)
        epochs = EpochsLeft(mine, config.epochs)
        bar = progress.add_task("training", total=epochs.total)
        for epoch in trainer.run(out):
            left = epochs.trained(epoch)
            losses = "  ".join(
                f"{kind} {epoch.training[kind]:.4f}/{value:.4f}"
                for kind, value in epoch.validation.items()
            )
            where = f"member {epoch.member + 1}/{config.members}, "
            where += f"epoch {epoch.number:2d}/{config.epochs}"
            line = f"{where}  (train/held out) {losses}  AUROC {epoch.auroc:.4f}"
            line += f"{' *' if epoch.best else ''}  {epoch.seconds:.1f} s, at most {left} left"
            progress.console.print(line, soft_wrap=True)
            progress.update(
                bar, completed=epochs.total - epochs.left, description=f"training: {where}"
            )
