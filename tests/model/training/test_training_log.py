"""The log of a training run, also if the run is killed, resumed or distributed."""

import csv
import math
import subprocess
import sys

import pytest

from model.cli.progress import RemainingEpochs
from model.training.preparation import PreparedTraining
from model.training.trainer import Trainer
from model.training.training_log import EPOCHS, TENSORBOARD, Epoch, TrainingLog
from tests.support.inputs.cohorts import CONFIG, make_cohort


def epoch_of(member, number, auroc=0.5):
    return Epoch(member, number, {"binary": 0.4}, {"binary": 0.5}, True, auroc, 2.0, 1e-3)


def read(folder):
    with (folder / EPOCHS).open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(folder):
    return [(int(row["member"]), int(row["epoch"])) for row in read(folder)]


def test_a_resumed_run_has_the_log_of_an_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trained = list(Trainer(PreparedTraining([make_cohort()], CONFIG)).run(whole))
    for epoch in Trainer(PreparedTraining([make_cohort()], CONFIG)).run(killed):
        if (epoch.member, epoch.number) == (1, 2):
            break
    for _ in Trainer(PreparedTraining([make_cohort()], CONFIG)).run(killed):
        pass
    assert numbers(whole) == [(e.member + 1, e.number) for e in trained]
    assert numbers(whole) == numbers(killed)
    for one, other in zip(read(whole), read(killed), strict=True):
        assert one | {"seconds": ""} == other | {"seconds": ""}
    for row, epoch in zip(read(whole), trained, strict=True):
        assert float(row["held_out_binary"]) == pytest.approx(epoch.validation["binary"], rel=1e-5)
        assert float(row["train_regression"]) == pytest.approx(epoch.training["regression"], 1e-5)
        assert float(row["learning_rate"]) == CONFIG.learning_rate
        assert float(row["seconds"]) > 0
        assert 0 < float(row["auroc"]) < 1
        assert row["best"] == str(int(epoch.best))


def test_the_auroc_of_an_epoch_is_that_of_held_out_samples(tmp_path):
    config = CONFIG.model_copy(update={"members": 1, "epochs": 1})
    trainer = Trainer(PreparedTraining([make_cohort()], config))
    (epoch,) = trainer.run(tmp_path)
    from sklearn.metrics import roc_auc_score

    areas = []
    for i, name in enumerate(trainer.net.calibrate.names):
        column = [t.name for t in trainer.facts.tasks].index(name)
        rows, outcome, _ = trainer.calibration_samples(column)
        if 0 < outcome.sum() < len(outcome):
            areas.append(roc_auc_score(outcome, trainer.held_out["binary"][rows, i]))
    # The trainer's outputs are computed with weights in half precision.
    assert epoch.auroc == pytest.approx(sum(areas) / len(areas), abs=2e-3)


def test_another_run_in_the_same_folder_restarts_the_log(tmp_path):
    log = TrainingLog(tmp_path, members=3)
    for member in range(3):
        log.resume(member, 0)
        log.write(epoch_of(member, 1))
    other = TrainingLog(tmp_path, members=2)
    other.resume(0, 0)
    other.resume(1, 0)
    other.write(epoch_of(1, 1))
    assert numbers(tmp_path) == [(2, 1)]


def test_lines_with_other_columns_are_replaced(tmp_path):
    (tmp_path / EPOCHS).write_text("member,epoch,loss\n1,1,0.5\n")
    log = TrainingLog(tmp_path, members=1)
    log.resume(0, 1)
    log.write(epoch_of(0, 2))
    assert numbers(tmp_path) == [(1, 2)]


@pytest.mark.parametrize("torn", ["1,2", '1,2,"', "1,2,1,0.5\n", "\x00\x00", "hello\n", "\n"])
def test_an_incomplete_line_is_removed(tmp_path, torn):
    log = TrainingLog(tmp_path, members=1)
    log.resume(0, 0)
    log.write(epoch_of(0, 1))
    with (tmp_path / EPOCHS).open("a") as file:
        file.write(torn)
    again = TrainingLog(tmp_path, members=1)
    again.resume(0, 1)
    again.write(epoch_of(0, 2))
    assert numbers(tmp_path) == [(1, 1), (1, 2)]


WRITER = """
import sys
from pathlib import Path
from model.training.training_log import Epoch, TrainingLog
log = TrainingLog(Path(sys.argv[1]), members=4)
log.resume(int(sys.argv[2]), 0)
for number in range(1, 51):
    log.write(Epoch(int(sys.argv[2]), number, {"binary": 1}, {"binary": 1}, False, 0.5, 1, 1e-3))
"""


def test_several_processes_write_one_log(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(member)])
        for member in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert sorted(numbers(tmp_path)) == [(m, n) for m in range(1, 5) for n in range(1, 51)]


def test_tensorboard_has_each_epoch_once(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra 'test'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path, members=1)
    log.resume(0, 0)
    for number in (1, 2, 3):
        log.write(epoch_of(0, number, auroc=number / 10))
    log.resume(0, 2)  # the third was logged, but its state was not saved
    log.write(epoch_of(0, 3, auroc=0.9))
    log.close()
    events = EventAccumulator(str(tmp_path / TENSORBOARD / "member-1"))
    events.Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("auroc")] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.9),
    ]
    assert set(events.Tags()["scalars"]) == epoch_of(0, 1).scalars().keys()


def test_the_remaining_time_follows_the_duration_of_epochs():
    left = RemainingEpochs([0, 2], epochs=10)
    assert (left.total, left.left) == (20, 20)
    assert left.record(epoch_of(0, 1)).total_seconds() == 19 * 2
    # The second member starts because the first stopped early.
    assert left.record(epoch_of(2, 1)).total_seconds() == 9 * 2
    assert left.record(epoch_of(2, 10)).total_seconds() == 0
    assert math.isclose(left.left, 0)
