"""A small model of synthetic patients, and its bundle."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from export.bundle import export_bundle
from model.cohorts import labels, synthetic
from model.cohorts.store import Cohort, write
from model.network.config import NetConfig
from model.training.config import TrainConfig
from model.training.preparation import PreparedTraining
from model.training.trainer import Trainer
from schemas.features import FeatureSpec

CONFIG = TrainConfig(
    net=NetConfig(width=24, task_width=8, image_channels=(8, 8), clusters=3),
    members=2,
    epochs=2,
)


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    """The cohort that the small model learns from."""
    folder = tmp_path_factory.mktemp("cohort")
    records = synthetic.patients(80, seed=3)
    made_by = (synthetic, labels)
    spec = FeatureSpec.default()
    for _ in write(records, folder, name="synthetic", source="made", made_by=made_by, spec=spec):
        pass
    return folder


def write_held_out_cohort(folder, name="elsewhere", spec=None, keep=lambda _: True):
    """Writes the patients that `keep` selects of those that the small model did not learn from."""
    records = filter(keep, synthetic.patients(150, seed=7))
    made = {"made_by": (synthetic, labels), "spec": spec or FeatureSpec.default()}
    for _ in write(records, folder, name=name, source="made", **made):
        pass
    return folder


@pytest.fixture(scope="session")
def held_out_cohort(tmp_path_factory):
    """Patients that the small model did not learn from."""
    return write_held_out_cohort(tmp_path_factory.mktemp("held_out"))


@pytest.fixture(scope="session")
def checkpoint(learned):
    trainer = Trainer(PreparedTraining([Cohort.load(learned)], CONFIG, command="m3h-model train …"))
    for _ in trainer.run():
        pass
    return trainer.checkpoint()


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "small"
    digest, parity = export_bundle(
        checkpoint,
        folder,
        name="small",
        version="0.0.1",
        golden=synthetic.examples(),
        evaluation={},
    )
    return folder, digest, parity


@pytest.fixture(scope="session")
def without_torch() -> Callable[..., str]:
    """Runs `m3h-export` where torch cannot be imported; returns its output."""

    def run(*arguments: str) -> str:
        code = (
            "import sys\n"
            "class Absent:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'torch': raise ModuleNotFoundError(name)\n"
            "sys.meta_path.insert(0, Absent())\n"
            "from export.cli import app\n"
            f"app({[*arguments]!r}, standalone_mode=False)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
