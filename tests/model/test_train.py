"""A run can be repeated, killed and resumed, and learns what there is to learn."""

from importlib.resources import files

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.cohort import Cohort, Samples
from model.net import NetConfig
from model.train import STATE, TrainConfig, Trainer, log_odds_offsets, stretch, validation_rows
from schemas.features import STATISTICS, FeatureSpec
from schemas.tasks import load_tasks
from schemas.variables import Treatment, Variable

TASKS = load_tasks()
NAMES = [task.name for task in TASKS]
SPEC = FeatureSpec(
    variables=tuple(
        Variable(name=f"v{i}", display="V", unit="1", plausible=(-9, 9)) for i in range(3)
    ),
    treatments=(Treatment(name="t", display="T", pattern="t"),),
    spellings={},
    image_side=16,
    tokenizer_json=files("schemas").joinpath("tokenizer.json").read_text("utf-8"),
)
CONFIG = TrainConfig(
    net=NetConfig(width=16, task_width=8, image_channels=(8,), clusters=2),
    epochs=4,
    batch=64,
)


def make_cohort(count=240, name="made", seed=0):
    """A third of the patients have an image; diabetes follows the first variable."""
    draw = np.random.default_rng(seed)
    signal = draw.normal(size=count)
    statistics = draw.normal(size=(count, 3, len(STATISTICS))).astype(np.float32)
    statistics[:, 0] = signal[:, None]
    statistics[draw.random(statistics.shape) < 0.2] = np.nan
    outcomes = np.full((count, len(TASKS)), np.nan, np.float32)
    for i, task in enumerate(TASKS):
        if task.kind == "binary":
            outcomes[:, i] = draw.random(count) < 0.3
        elif task.kind == "multiclass":
            outcomes[:, i] = draw.integers(0, len(task.classes), count)
        elif task.kind == "regression":
            outcomes[:, i] = draw.lognormal(size=count)
    outcomes[:, NAMES.index("diabetes")] = signal + draw.normal(size=count) * 0.2 > 0.5
    present = np.ones((count, 4), np.bool_)
    present[:, 3] = draw.random(count) < 0.3
    lengths = draw.integers(1, 9, count)
    samples = Samples(
        patient=np.array([f"p{i // 2}" for i in range(count)]),
        site=np.array([f"h{i % 20}" for i in range(count)]),
        stay=np.arange(count).astype(np.str_),
        landmark=np.full(count, 24, np.float32),
        present=present,
        outcomes=outcomes,
        tabular=draw.normal(size=(count, len(SPEC.tabular_names))).astype(np.float32),
        statistics=statistics,
        treatments=draw.normal(size=(count, 1, 4)).astype(np.float32),
        tokens=draw.integers(3, 100, lengths.sum()).astype(np.int32),
        lengths=lengths,
        pixels=draw.integers(0, 256, (present[:, 3].sum(), 1, 16, 16)).astype(np.uint8),
    )
    return Cohort(name, "made for this test", TASKS, SPEC, samples, digest=name)


def run(trainer, folder=None):
    for _ in trainer.run(folder):
        pass
    return trainer.checkpoint()


def assert_equal(one, other):
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], rtol=0, atol=0, msg=name)


def test_the_same_seed_gives_the_same_model():
    assert_equal(run(Trainer([make_cohort()], CONFIG)), run(Trainer([make_cohort()], CONFIG)))


def test_a_killed_run_goes_on_as_if_it_had_not_been_killed(tmp_path):
    whole = run(Trainer([make_cohort()], CONFIG))
    for epoch in Trainer([make_cohort()], CONFIG).run(tmp_path):
        if epoch.number == 2:
            break
    assert (tmp_path / STATE).is_file()
    resumed = Trainer([make_cohort()], CONFIG)
    checkpoint = run(resumed, tmp_path)
    assert_equal(whole, checkpoint)


def test_a_run_does_not_go_on_from_another_configuration(tmp_path):
    next(iter(Trainer([make_cohort()], CONFIG).run(tmp_path)))
    other = CONFIG.model_copy(update={"learning_rate": 1e-4})
    with pytest.raises(ValueError, match="another run"):
        run(Trainer([make_cohort()], other), tmp_path)


def test_training_stops_when_validation_patients_gain_nothing():
    config = CONFIG.model_copy(update={"epochs": 200, "patience": 2, "learning_rate": 3e-2})
    trainer = Trainer([make_cohort()], config)
    run(trainer)
    assert trainer.epoch == trainer.best_epoch + 2 < 200


def test_what_there_is_to_learn_is_learned():
    config = CONFIG.model_copy(update={"epochs": 40, "learning_rate": 5e-3})
    trainer = Trainer([make_cohort(600)], config)
    run(trainer)
    column = trainer.net.calibrate.names.index("diabetes")
    score = trainer.raw(trainer.validation)["binary"][:, column]
    truth = (
        trainer.data.outcomes[torch.from_numpy(trainer.validation), NAMES.index("diabetes")] == 1
    )
    greater = (score[truth][:, None] > score[~truth][None]).float().mean()
    assert greater > 0.85


def test_a_checkpoint_read_back_is_the_model_that_was_written(tmp_path):
    trainer = Trainer([make_cohort()], CONFIG)
    run(trainer).save(tmp_path)
    net = Checkpoint.load(tmp_path).net()
    present = torch.tensor([[True, True, True, False]])
    inputs = trainer.data.inputs(torch.tensor([0]), present)
    expected = trainer.net.eval()(inputs, present)[0]
    for name, value in net(inputs, present)[0].items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_no_patient_and_no_hospital_is_on_both_sides_of_validation():
    samples = make_cohort().samples
    training, validation = validation_rows(samples, 0.2, seed=0)
    assert not set(samples.site[training]) & set(samples.site[validation])


def test_cohorts_of_different_specs_are_refused():
    other = make_cohort(name="other")
    spec = SPEC.model_copy(update={"window_hours": 12.0})
    with pytest.raises(ValueError, match="made and other"):
        Trainer([make_cohort(), Cohort("other", "", TASKS, spec, other.samples, "x")], CONFIG)


def test_a_sampled_prevalence_is_told_by_its_log_odds():
    first, second = make_cohort(), make_cohort(name="sampled")
    column = NAMES.index("pneumonia")
    first.samples.outcomes[:, column] = np.arange(240) % 10 == 0
    second.samples.outcomes[:, column] = np.arange(240) % 2 == 0
    offsets = log_odds_offsets([first, second])
    assert offsets[0]["pneumonia"] == 0
    assert offsets[1]["pneumonia"] == pytest.approx(np.log(9), abs=0.15)


def test_a_task_sees_only_modalities_that_it_had_labels_beside():
    eicu, images = make_cohort(), make_cohort(name="images")
    eicu.samples.present[:, 3] = False
    eicu = Cohort("eicu", "", TASKS, SPEC, eicu.samples.take(np.arange(240)), "a")
    images.samples.outcomes[:, [i for i, n in enumerate(NAMES) if n != "pneumonia"]] = np.nan
    facts = Trainer([eicu, images], CONFIG).facts
    seen = {task.name: facts.seen(task) for task in TASKS}
    assert seen["pneumonia"] == ("tabular", "series", "notes", "image")
    assert seen["diabetes"] == ("tabular", "series", "notes")


def test_calibration_repairs_log_odds_that_are_too_large():
    draw = torch.Generator().manual_seed(0)
    evidence, base = torch.randn(20_000, generator=draw), torch.full((20_000,), -1.0)
    target = (torch.rand(20_000, generator=draw) < torch.sigmoid(base + evidence)).float()
    assert stretch(evidence * 3, base, target) == pytest.approx(1 / 3, abs=0.03)


def test_calibration_leaves_a_task_with_few_patients_nearly_as_it_is():
    wrong = stretch(torch.tensor([1.0, -1.0]), torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert 0.5 < wrong < 1
    nothing = torch.empty(0)
    assert stretch(nothing, nothing, nothing) == pytest.approx(1.0, abs=1e-3)


def test_what_is_known_by_nothing_is_the_prevalence():
    trainer = Trainer([make_cohort(600)], CONFIG.model_copy(update={"epochs": 15}))
    run(trainer)
    net = trainer.net.eval()
    with torch.no_grad():
        nothing = torch.zeros(1, 4, dtype=torch.bool)
        raw, _ = net.fusion(torch.zeros(1, 4, net.width), nothing)
        served = net.calibrate(raw)["binary"][0]
    expected = torch.tensor([trainer.facts.prevalence[name] for name in net.calibrate.names])
    child = [net.calibrate.names.index(n) for n in ("septic_shock", "end_stage_renal_disease")]
    keep = [i for i in range(len(expected)) if i not in child]
    assert (served - expected)[keep].abs().max() < 0.05
