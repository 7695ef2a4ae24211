"""Failure signatures and their warnings."""

import numpy as np
import pytest

from model.network.checkpoint import Checkpoint
from model.training import failure_signatures
from model.training.preparation import PreparedTraining
from model.training.trainer import Trainer
from tests.support.inputs.cohorts import CONFIG, NAMES, TASKS, make_cohort


def train(cohort, *modalities, net=None, only=None, **changes):
    """The signatures of a trained model, and the warnings."""
    config = CONFIG.model_copy(update={**changes, "net": CONFIG.net.model_copy(update=net or {})})
    used = {"modalities": modalities} if modalities else {}
    trainer = Trainer(PreparedTraining([cohort], config, **used), tasks=only)
    for _ in trainer.run():
        pass
    found = failure_signatures.measure(trainer)
    return found, failure_signatures.warnings(
        trainer.facts.model_copy(update={"signatures": found})
    )


def informative_series(count=600, noise=0.0):
    """A cohort in which all diseases follow the first variable, and the rest is noise."""
    cohort = make_cohort(count)
    draw = np.random.default_rng(5)
    signal = np.nan_to_num(cohort.samples.statistics[:, 0, 0])
    for i, task in enumerate(TASKS):
        if task.kind == "binary":
            cohort.samples.outcomes[:, i] = signal + draw.normal(size=count) * noise > 0.5
    return cohort


def warnings_of(name, warnings):
    return [line for line in warnings if line.startswith(name)]


def test_uniform_attention_is_warned_of():
    found, warnings = train(make_cohort(), net={"attention": "published"})
    assert found.attention_entropy > 0.98
    (line,) = warnings_of("attention", warnings)
    assert f"{found.attention_entropy:.3f} of 1" in line
    assert 'attention = "balanced"' in line
    found, warnings = train(make_cohort())
    assert 0.4 < found.self_weight < 0.6
    assert not warnings_of("attention", warnings)


def test_a_modality_of_noise_has_no_influence():
    found, warnings = train(
        informative_series(), "series", "image", epochs=30, learning_rate=1e-2, weight_decay=3.0
    )
    assert found.influence["series"] + found.influence["image"] == pytest.approx(1)
    assert found.influence["image"] < 0.01
    assert "has no influence" in warnings_of("image", warnings)[0]
    assert "dominates" in warnings_of("series", warnings)[0]
    assert found.worth["series"] > 0.5


def test_a_constant_modality_has_influence_0():
    cohort = make_cohort()
    cohort.samples.pixels[:] = 0
    found, warnings = train(cohort)
    assert found.influence["image"] == 0
    assert "has no influence" in warnings_of("image", warnings)[0]


def test_a_memorised_modality_is_warned_of():
    found, warnings = train(
        informative_series(noise=0.3), "series", "notes", epochs=30, learning_rate=5e-3
    )
    assert found.influence["notes"] > 0.1
    assert found.worth["notes"] < 0 < found.worth["series"]
    assert "does not help" in warnings_of("notes", warnings)[0]
    assert not warnings_of("series", warnings)


def test_tasks_without_gain_are_listed():
    found, warnings = train(make_cohort(600), epochs=40, learning_rate=5e-3)
    assert "diabetes" not in found.learned_nothing  # it follows the first variable
    random = [n for n in NAMES if n not in ("diabetes", "patient_phenotype")]
    assert len(found.learned_nothing) > len(random) / 2
    assert set(found.learned_nothing) <= set(random)
    (line,) = [w for w in warnings if "learned nothing" in w]
    assert ", ".join(found.learned_nothing) in line


def test_members_that_stop_too_early_or_too_late_are_warned_of():
    chance = make_cohort()
    kinds = np.array([task.kind for task in TASKS])
    chance.samples.outcomes[:, kinds != "binary"] = np.nan
    found, warnings = train(chance, "notes", epochs=30, patience=3, learning_rate=1e-2)
    assert found.best_epoch == (1, 1)
    assert found.epochs == (4, 4)
    assert "best at epoch 1 of 4" in warnings_of("member 1", warnings)[0]
    found, warnings = train(informative_series(), epochs=3)
    assert found.best_epoch == found.epochs == (3, 3)
    assert "still improving at epoch 3" in warnings_of("member 2", warnings)[0]


def test_a_single_task_has_signatures():
    found, _ = train(make_cohort(), only=["diabetes"])
    assert (found.attention_entropy, found.self_weight) == (0, 1)
    assert set(found.influence) == {"tabular", "series", "notes", "image"}
    found, _ = train(make_cohort(), only=["length_of_stay"])
    assert found.influence == {}


def test_a_checkpoint_stores_its_signatures(tmp_path):
    trainer = Trainer(PreparedTraining([make_cohort()], CONFIG))
    for _ in trainer.run():
        pass
    failure_signatures.checkpoint_with_signatures(trainer).save(tmp_path)
    facts = Checkpoint.load(tmp_path).facts
    assert facts.signatures == failure_signatures.measure(trainer)
    assert failure_signatures.warnings(facts)
    assert not failure_signatures.warnings(facts.model_copy(update={"signatures": None}))
