"""The log of a training run: `epochs.csv` in its folder, and TensorBoard."""

import csv
import fcntl
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

EPOCHS = "epochs.csv"
TENSORBOARD = "tensorboard"

Row = dict[str, str]


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch of a member.

    `training`, `validation`: mean losses by kind of task, on training and on held-out samples.
    `auroc`: the mean over the binary tasks that have both outcomes among the held-out samples; NaN
    without a log, or if there is no such task.
    """

    member: int
    number: int
    training: dict[str, float]
    validation: dict[str, float]
    best: bool
    auroc: float
    seconds: float
    learning_rate: float

    def scalars(self) -> dict[str, float]:
        """The figures by their names in the log."""
        return {
            "auroc": self.auroc,
            "seconds": self.seconds,
            "learning_rate": self.learning_rate,
            **{f"train_{kind}": value for kind, value in self.training.items()},
            **{f"held_out_{kind}": value for kind, value in self.validation.items()},
        }


class TrainingLog:
    """The log of a run. All processes of a training write to it.

    A line of `epochs.csv` is an epoch of a member; both are counted from 1. A resumed run continues
    after the epoch of its saved state, so `resume` drops later lines. The file is locked while it
    is written. TensorBoard's files are written if `tensorboard` is installed.
    """

    def __init__(self, folder: Path, members: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._members = folder, members
        self._board: Any = None

    def resume(self, member: int, epoch: int) -> None:
        """Drops the member's lines after `epoch`; 0 for a member that is not trained yet."""
        with self._locked() as file:
            rows = _read(file)
            valid = [row for row in rows if self._is_valid(row, member, epoch)]
            if len(valid) < len(rows):
                _rewrite(file, valid)
        self.close()
        if find_spec(TENSORBOARD) is not None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional

            board = self._folder / TENSORBOARD / f"member-{member + 1}"
            self._board = SummaryWriter(str(board), purge_step=epoch + 1)

    def write(self, epoch: Epoch) -> None:
        """Adds an epoch of the member of the last `resume`."""
        row = {"member": str(epoch.member + 1), "epoch": str(epoch.number)}
        row |= {"best": str(int(epoch.best))}
        row |= {name: f"{value:.6g}" for name, value in epoch.scalars().items()}
        with self._locked() as file:
            rows = _read(file)
            if rows and rows[0].keys() == row.keys():
                _append(file, [row])
            else:  # the file is empty, or has the columns of other tasks
                _rewrite(file, [row])
        if self._board is not None:
            for name, value in epoch.scalars().items():
                self._board.add_scalar(name, value, epoch.number)
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None

    def _is_valid(self, row: Row, member: int, epoch: int) -> bool:
        row_member, row_epoch = int(row["member"]) - 1, int(row["epoch"])
        return row_member < self._members and (row_member != member or row_epoch <= epoch)

    @contextmanager
    def _locked(self) -> Iterator[TextIO]:
        with (self._folder / EPOCHS).open("a+", encoding="utf-8", newline="") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield file


def _read(file: TextIO) -> list[Row]:
    """The lines of the log. Removes a line that is incomplete because its process was killed."""
    file.seek(0)
    text = file.read()
    lines = list(csv.DictReader(io.StringIO(text)))
    rows = [line for line in lines if _is_complete(line)]
    if len(rows) < len(lines) or not text.endswith("\n"):
        _rewrite(file, rows)
    return rows


def _is_complete(line: dict[Any, Any]) -> bool:
    if None in line or None in line.values():
        return False
    return all(line.get(name, "").isdecimal() for name in ("member", "epoch"))


def _rewrite(file: TextIO, rows: Iterable[Row]) -> None:
    file.truncate(0)
    _append(file, rows, header=True)


def _append(file: TextIO, rows: Iterable[Row], *, header: bool = False) -> None:
    rows = list(rows)
    if rows:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
    file.flush()
