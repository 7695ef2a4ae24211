"""Training is reproducible and resumable, and learns a signal."""

import numpy as np
import pytest
import torch

from model.network.checkpoint import Checkpoint
from model.training.data import RepresentedSamples, ensemble_outputs
from model.training.preparation import PreparedTraining
from model.training.trainer import STATE, Trainer
from tests.support.inputs.cohorts import CONFIG, NAMES, make_cohort


def run(trainer, folder=None):
    for _ in trainer.run(folder):
        pass
    return trainer.checkpoint()


def assert_equal(one, other):
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], rtol=0, atol=0, msg=name)


def test_the_same_seed_gives_the_same_model():
    assert_equal(
        run(Trainer(PreparedTraining([make_cohort()], CONFIG))),
        run(Trainer(PreparedTraining([make_cohort()], CONFIG))),
    )


def test_a_resumed_run_gives_the_same_model(tmp_path):
    whole = run(Trainer(PreparedTraining([make_cohort()], CONFIG)))
    for epoch in Trainer(PreparedTraining([make_cohort()], CONFIG)).run(tmp_path):
        if (epoch.member, epoch.number) == (1, 2):
            break
    assert (tmp_path / STATE.format(1)).is_file()
    resumed = Trainer(PreparedTraining([make_cohort()], CONFIG))
    checkpoint = run(resumed, tmp_path)
    assert_equal(whole, checkpoint)


def test_a_run_with_another_configuration_is_not_resumed(tmp_path):
    next(iter(Trainer(PreparedTraining([make_cohort()], CONFIG)).run(tmp_path)))
    other = CONFIG.model_copy(update={"learning_rate": 1e-4})
    with pytest.raises(ValueError, match="another run"):
        run(Trainer(PreparedTraining([make_cohort()], other)), tmp_path)


def test_training_stops_after_patience_epochs_without_improvement():
    config = CONFIG.model_copy(update={"epochs": 200, "patience": 2, "learning_rate": 3e-2})
    epochs = [e for e in Trainer(PreparedTraining([make_cohort()], config)).run() if e.member == 0]
    best = max(e.number for e in epochs if e.best)
    assert len(epochs) == best + 2 < 200


def test_a_signal_is_learned():
    config = CONFIG.model_copy(update={"epochs": 40, "learning_rate": 5e-3})
    trainer = Trainer(PreparedTraining([make_cohort(600)], config))
    run(trainer)
    column = trainer.net.calibrate.names.index("diabetes")
    rows, outcome, _ = trainer.calibration_samples(NAMES.index("diabetes"))
    score = trainer.held_out["binary"][rows, column]
    truth = torch.from_numpy(outcome == 1)
    greater = (score[truth][:, None] > score[~truth][None]).float().mean()
    assert greater > 0.85


def test_a_loaded_checkpoint_is_the_saved_model(tmp_path):
    trainer = Trainer(PreparedTraining([make_cohort()], CONFIG))
    run(trainer).save(tmp_path)
    data, rows = trainer.prepared.data, np.arange(10)
    net = Checkpoint.load(tmp_path).net()
    raw, _ = ensemble_outputs(net, RepresentedSamples.compute(data, net.encoders), data, rows)
    expected, _ = ensemble_outputs(trainer.net.eval(), trainer.prepared.represented, data, rows)
    for name, value in raw.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_single_task_can_be_trained():
    prepared = PreparedTraining([make_cohort()], CONFIG)
    trainer = Trainer(prepared, tasks=["diabetes"])
    run(trainer)
    assert [task.name for task in trainer.facts.tasks] == ["diabetes"]
    assert trainer.held_out["binary"].shape == (240, 1)


def test_a_patient_without_data_gets_the_prevalence():
    trainer = Trainer(
        PreparedTraining([make_cohort(600)], CONFIG.model_copy(update={"epochs": 15}))
    )
    run(trainer)
    net = trainer.net.eval()
    with torch.no_grad():
        nothing = torch.zeros(1, 4, dtype=torch.bool)
        raw, _ = net.fusion(torch.zeros(1, 4, net.width), nothing)
        served = net.calibrate(raw)["binary"][0]
    expected = torch.tensor([trainer.facts.prevalence[name] for name in net.calibrate.names])
    child = [net.calibrate.names.index(n) for n in ("septic_shock", "end_stage_renal_disease")]
    keep = [i for i in range(len(expected)) if i not in child]
    assert (served - expected)[keep].abs().max() < 1e-3


def test_the_ends_of_the_length_of_stay_have_the_finite_sample_correction():
    trainer = Trainer(PreparedTraining([make_cohort(60)], CONFIG))
    run(trainer)
    rows, days, _ = trainer.calibration_samples(NAMES.index("length_of_stay"))
    raw = trainer.held_out["length_of_stay"][rows].double().numpy()
    beyond = np.log(np.maximum(days, 1 / 24)) - raw[:, 2]
    # Twelve patients, of whom none may lie beyond the end, since 1 in 13 is more than 5 %.
    assert len(rows) < 38
    assert trainer.net.calibrate.margin[1] == pytest.approx(beyond.max(), abs=1e-5)
