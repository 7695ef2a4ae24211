"""Any damage of a cohort or checkpoint gives a one-line error that names the file."""

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from export.cli import app as export_app
from model.cli.main import app as model_app
from model.cohorts.samples import Samples
from model.cohorts.store import COHORT, Cohort, CohortError
from model.errors import RunError
from model.network.checkpoint import FACTS, WEIGHTS, Checkpoint, CheckpointError
from model.network.tensor_files import read_tensors
from model.training.preparation import PreparedTraining
from model.training.trainer import STATE, Trainer
from schemas.manifest import TOKENIZER, sha256
from tests.support.inputs.cohorts import CONFIG, make_cohort, save
from tests.support.inputs.damaged_files import copied, damage_file, damage_json

CONFIG_OF_ONE_EPOCH = CONFIG.model_copy(update={"members": 2, "epochs": 1})
SHARD = "shard.npz"
OTHER_TYPES = ["U4", "f8", "i2", "c16", "O", ">f4", "S3", "M8[s]"]
EXAMPLES = settings(max_examples=120, deadline=None, database=None)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "cohort"
    save(make_cohort(40), folder)
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A checkpoint with the state of a member."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    trainer = Trainer(PreparedTraining([make_cohort(40)], CONFIG_OF_ONE_EPOCH))
    for _ in trainer.run(folder):
        pass
    trainer.checkpoint().save(folder)
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "copy"


def fault_of(read, error):
    """The one-line error of `read`; "" without an error."""
    message = ""
    try:
        read()
    except error as caught:
        message = str(caught)
        assert message
    assert "\n" not in message
    return message


def same_tensors(folder, whole, name):
    """The content can differ without harm: any byte but 0 of a boolean is true."""
    (tensors, metadata), (expected, its_metadata) = (
        read_tensors(f / name) for f in (folder, whole)
    )
    assert metadata == its_metadata
    return all(torch.equal(tensors[n], expected[n]) for n in tensors.keys() | expected.keys())


def may_start(folder, whole):
    """Whether the first member's state is undamaged, or absent so that the member starts again."""
    name = STATE.format(0)
    return not os.path.lexists(folder / name) or same_tensors(folder, whole, name)


def with_digests(folder):
    """Updates the digests to the present content."""
    facts = json.loads((folder / COHORT).read_bytes())
    facts["shards"] = {SHARD: sha256((folder / SHARD).read_bytes())}
    (folder / COHORT).write_text(json.dumps(facts))


def with_arrays(folder, **changed):
    with np.load(folder / SHARD) as kept:
        arrays = {name: kept[name] for name in kept.files} | changed
    np.savez(folder / SHARD, **{k: v for k, v in arrays.items() if v is not None})
    with_digests(folder)


# ------------------------------------------------------------------------------------------ cohorts


@pytest.mark.parametrize("name", [COHORT, TOKENIZER, SHARD])
def test_a_damaged_file_of_a_cohort_is_named(cohort, target, name):
    @EXAMPLES
    @given(st.data())
    def try_one(data):
        folder = copied(cohort, target)
        damage_file(data.draw, folder / name)
        said = fault_of(lambda: Cohort.load(folder), CohortError)
        assert said == "" or said.startswith(str(folder))

    try_one()


def test_damaged_facts_of_a_cohort_are_named(cohort, target):
    @EXAMPLES
    @given(st.data())
    def try_one(data):
        folder = copied(cohort, target)
        damage_json(data.draw, folder / COHORT)
        said = fault_of(lambda: Cohort.load(folder), CohortError)
        assert said == "" or said.startswith(str(folder))

    try_one()


def test_a_damaged_shard_with_a_matching_digest_is_named(cohort, target):
    """The damage of a faulty writer, not that of a disk."""

    @EXAMPLES
    @given(st.data())
    def try_one(data):
        folder = copied(cohort, target)
        damage_file(data.draw, folder / SHARD)
        if (folder / SHARD).is_file():
            with_digests(folder)
        said = fault_of(lambda: Cohort.load(folder), CohortError)
        assert said == "" or said.startswith(str(folder / SHARD)) or "older version" in said

    try_one()


def test_arrays_of_another_type_or_shape_are_named(cohort, target):
    samples = Cohort.load(cohort).samples

    @EXAMPLES
    @given(st.sampled_from(list(vars(samples))), st.data())
    def try_one(name, data):
        folder, array = copied(cohort, target), getattr(samples, name)
        others = [o for o in OTHER_TYPES if np.dtype(o).kind != "U" or array.dtype.kind != "U"]
        other = data.draw(st.sampled_from(others))
        changed = data.draw(
            st.sampled_from(
                [
                    np.zeros(array.shape, other),
                    array[:-1],
                    array[None],
                    array[..., None],
                    np.concatenate([array, array]),
                    array.reshape(-1)[0],
                ]
            )
        )
        with_arrays(folder, **{name: changed})
        said = fault_of(lambda: Cohort.load(folder), CohortError)
        assert said.startswith(f"{folder / SHARD}: ")
        assert f" {name} " in f" {said} " or "shape" in said or "Object arrays" in said

    try_one()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {"outcomes": s.outcomes + 7}, "outcomes of "),
        (lambda s: {"outcomes": s.outcomes - 7}, "outcomes of "),
        (lambda s: {"tokens": s.tokens - 10**8}, "tokens holds ids outside"),
        (lambda s: {"tokens": s.tokens + 10**8}, "tokens holds ids outside"),
        (lambda s: {"tabular": s.tabular + np.float32(np.inf)}, "tabular holds infinite"),
        (lambda s: {"lengths": -s.lengths}, "tokens has the shape"),
        (lambda s: {"present": ~s.present}, "pixels has the shape"),
        (lambda s: {"tabular": None}, "did not write tabular"),
        (lambda s: vars(s.take(np.arange(0))), "the shard holds no record"),
    ],
)
def test_invalid_values_are_named(cohort, target, change, said):
    folder = copied(cohort, target)
    with_arrays(folder, **change(Cohort.load(cohort).samples))
    assert said in fault_of(lambda: Cohort.load(folder), CohortError)


class Marked:
    """Unpickling it would create a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickled_object_is_never_loaded(cohort, target, tmp_path):
    folder = copied(cohort, target)
    mark = tmp_path / "was here"
    with_arrays(folder, tabular=np.array([Marked(mark)], dtype=object))
    assert "Object arrays cannot be loaded" in fault_of(lambda: Cohort.load(folder), CohortError)
    assert not mark.exists()


def test_a_shard_outside_the_folder_is_refused(cohort, target):
    folder = copied(cohort, target)
    facts = json.loads((folder / COHORT).read_bytes())
    facts["shards"] = {f"../{cohort.name}/{SHARD}": next(iter(facts["shards"].values()))}
    (folder / COHORT).write_text(json.dumps(facts))
    assert "shards" in fault_of(lambda: Cohort.load(folder), CohortError)


def test_an_undamaged_cohort_is_read(cohort):
    samples = Cohort.load(cohort).samples
    for name, array in vars(make_cohort(40).samples).items():
        np.testing.assert_array_equal(getattr(samples, name), array)
    assert isinstance(samples, Samples)


# -------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", [FACTS, WEIGHTS, TOKENIZER])
def test_a_damaged_file_of_a_checkpoint_is_named(run_folder, target, name):
    @EXAMPLES
    @given(st.data())
    def try_one(data):
        folder = copied(run_folder, target)
        damage_file(data.draw, folder / name)
        said = fault_of(lambda: Checkpoint.load(folder), CheckpointError)
        assert said.startswith(str(folder)) or (
            said == "" and (name != WEIGHTS or same_tensors(folder, run_folder, name))
        )

    try_one()


def test_damaged_facts_of_a_checkpoint_are_reported(run_folder, target):
    @EXAMPLES
    @given(st.data())
    def try_one(data):
        folder = copied(run_folder, target)
        damage_json(data.draw, folder / FACTS)
        fault_of(lambda: Checkpoint.load(folder).net(), CheckpointError)

    try_one()


def test_a_damaged_matrix_beside_a_checkpoint_is_named(run_folder, target):
    folder = copied(run_folder, target)
    (folder / "tim.json").write_text('{"tasks": 3}')
    said = fault_of(lambda: Checkpoint.load(folder), CheckpointError)
    assert said.startswith(f"{folder / 'tim.json'}: ")


def test_weights_of_another_network_are_refused(run_folder, target):
    folder = copied(run_folder, target)
    facts = json.loads((folder / FACTS).read_bytes())
    facts["net"]["width"] += 1
    (folder / FACTS).write_text(json.dumps(facts))
    assert "do not belong together" in fault_of(
        lambda: Checkpoint.load(folder).net(), CheckpointError
    )


def test_a_damaged_state_of_a_run_is_named(run_folder, target):
    prepared = PreparedTraining([make_cohort(40)], CONFIG_OF_ONE_EPOCH)

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.data())
    def try_one(data):
        folder = copied(run_folder, target)
        damage_file(data.draw, folder / STATE.format(0))
        said = fault_of(lambda: next(iter(Trainer(prepared).run(folder)), None), RunError)
        assert said.startswith(str(folder)) or (said == "" and may_start(folder, run_folder))

    try_one()


# ------------------------------------------------------------------------------------- the commands


def error_of(app, *arguments):
    """The one-line error of a command that must fail."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    (line,) = done.stderr.splitlines()
    return line


def test_the_commands_print_one_line_for_a_fault(cohort, run_folder, target, bundle_dir, tmp_path):
    folder = copied(cohort, target)
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:100])
    named = f"{folder / SHARD} was changed since the cohort was made"
    train = ("train", "--cohort", folder, "--out", tmp_path / "run")
    assert error_of(model_app, *train) == f"m3h-model: {named}"
    assert error_of(model_app, "score", run_folder, "--cohort", folder) == f"m3h-model: {named}"
    by = ("--recalibrate", folder)
    assert error_of(export_app, bundle_dir, tmp_path / "b", *by) == f"m3h-export: {named}"
    reduced = ("--precision", "int8", "--cohort", folder)
    assert error_of(export_app, bundle_dir, tmp_path / "b", *reduced) == f"m3h-export: {named}"
    broken = copied(run_folder, tmp_path / "broken")
    (broken / FACTS).write_text("{}")
    assert (
        error_of(export_app, broken, tmp_path / "b")
        == f"m3h-export: {broken / FACTS}: spec is missing"
    )
    assert not (tmp_path / "b").exists()


def test_an_unwritable_folder_is_named(cohort, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    command = ["train", "--cohort", str(cohort), "--out", str(out), "--device", "cpu"]
    done = CliRunner().invoke(model_app, command)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"m3h-model: {out}: Not a directory"
