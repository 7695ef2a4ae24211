"""Several processes train the same model as one, and stop if another process dies."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model.cohorts import labels, synthetic
from model.cohorts.store import write
from model.errors import RunError
from model.network.checkpoint import Checkpoint
from model.training.preparation import PreparedTraining
from model.training.processes.distributed import ProcessGroup
from model.training.trainer import STATE
from model.training.training_log import EPOCHS as EPOCHS_FILE
from schemas.features import FeatureSpec
from tests.support.inputs.cohorts import CONFIG, make_cohort

BIN = Path(sys.executable).parent
MEMBERS, EPOCHS = 3, 3
TOML = f"""
members = {MEMBERS}
epochs = {EPOCHS}
[net]
width = 24
task_width = 8
image_channels = [8, 8]
clusters = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a cohort and a configuration."""
    made = tmp_path_factory.mktemp("processes")
    (made / "small.toml").write_text(TOML)
    records = synthetic.patients(80, seed=3)
    made_by, spec = (synthetic, labels), FeatureSpec.default()
    cohort = made / "cohort"
    for _ in write(records, cohort, name="synthetic", source="made", made_by=made_by, spec=spec):
        pass
    return made


@pytest.fixture(scope="module")
def alone(folder):
    """The checkpoint that one process trains."""
    run(train(folder, folder / "alone"))
    return Checkpoint.load(folder / "alone")


def train(folder, out):
    command = (BIN / "m3h-model", "train", "--cohort", folder / "cohort", "--out", out)
    return [*map(str, command), "--config", str(folder / "small.toml"), "--device", "cpu"]


def run(command):
    """Runs a command that must succeed, with one thread, as torchrun runs its processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran


def start(command, rank, size, port, **more):
    """One of `size` processes, as a launcher starts it."""
    variables = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    env = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE, **more)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def assert_alike(one, other):
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], rtol=1e-5, atol=1e-6, msg=name)
    for name in ("intervals", "sets", "phenotypes", "signatures"):
        assert getattr(one.facts, name) == getattr(other.facts, name), name


def epochs(folder):
    """Member and number of each epoch in the log of a run."""
    with (folder / EPOCHS_FILE).open(newline="") as file:
        return sorted((int(row["member"]), int(row["epoch"])) for row in csv.DictReader(file))


def test_two_processes_train_the_same_model_as_one(folder, alone, tmp_path):
    launch = [str(BIN / "torchrun"), "--standalone", "--no-python", "--nproc-per-node", "2"]
    ran = run(launch + train(folder, tmp_path))
    assert ran.stdout.count("checkpoint of 3 members") == 1
    for k in range(MEMBERS):
        assert ran.stderr.count(f"member {k + 1}/{MEMBERS}, epoch  1/{EPOCHS} ") == 1
    assert "rank 1 of 2 has trained its members; it waits for the others" in ran.stderr
    # The first rank warns of members that the other rank trained.
    assert "warning: member 2 was still improving at epoch 3, its last" in ran.stderr
    assert_alike(Checkpoint.load(tmp_path), alone)
    evidence = [w for name, w in alone.weights.items() if name.endswith("evidence.weight")]
    assert sum(bool(weights.any()) for weights in evidence) == 3 * MEMBERS  # all but the image
    assert not list(tmp_path.glob("member-*"))
    assert epochs(tmp_path) == [(k + 1, n + 1) for k in range(MEMBERS) for n in range(EPOCHS)]


def test_the_others_stop_if_a_process_dies_and_fewer_can_resume(folder, alone, tmp_path):
    command, port = train(folder, tmp_path), free_port()
    first, second = (start(command, rank, 2, port) for rank in range(2))
    while not (tmp_path / STATE.format(1)).is_file():
        assert second.poll() is None, second.stderr.read()
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    _, stderr = first.communicate(timeout=300)
    second.communicate()
    assert first.returncode == 2
    assert "rank 0 of 2 stops because another process ended" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "checkpoint.json").exists()
    ran = run(command)
    assert "member 1/3" not in ran.stderr  # it was complete and is not trained again
    assert epochs(tmp_path) == [(k + 1, n + 1) for k in range(MEMBERS) for n in range(EPOCHS)]
    assert_alike(Checkpoint.load(tmp_path), alone)


def test_all_processes_get_all_computed_items():
    script = (
        "import torch\n"
        "from model.training.processes.distributed import join_process_group\n"
        "with join_process_group() as processes:\n"
        "    parts = processes.compute_all([3, 1, 2], lambda n: torch.full((n, 2), n).byte() + 1)\n"
        "    assert processes.size == 2\n"
        "print([part.tolist() for part in parts])\n"
    )
    port = free_port()
    command = [sys.executable, "-c", script]
    both = [start(command, rank, 2, port, stdout=subprocess.PIPE) for rank in range(2)]
    expected = str([[[n + 1, n + 1]] * n for n in (3, 1, 2)])
    for process in both:
        out, stderr = process.communicate(timeout=300)
        assert out.strip() == expected, stderr


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_each_member_is_trained_by_exactly_one_process(size):
    owned = [ProcessGroup(rank, size).own(5) for rank in range(size)]
    assert sorted(k for own in owned for k in own) == [0, 1, 2, 3, 4]
    assert all(ProcessGroup(0, size).owner(k) == r for r in range(size) for k in owned[r])


def test_more_processes_than_members_are_refused():
    with pytest.raises(RunError, match=r"3 processes cannot train 2 members.*members = 3"):
        PreparedTraining([make_cohort()], CONFIG, processes=ProcessGroup(rank=2, size=3))
