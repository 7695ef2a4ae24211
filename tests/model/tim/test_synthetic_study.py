"""The synthetic study compares the known relations of tasks with attention and predictions."""

import json
import re

import numpy as np
import pytest

from model.network.config import NetConfig
from model.tim import synthetic_study as study
from model.training.config import TrainConfig
from schemas.tasks import load_tasks

TASKS = [task for task in load_tasks() if task.kind != "clustering"]
SMALL = TrainConfig(members=1, epochs=1, net=NetConfig(width=16, task_width=8, clusters=2))


def test_only_tasks_with_a_common_factor_are_related():
    strength, related = study.relations(TASKS)
    names = [task.name for task in TASKS]
    sepsis, shock, asthma = map(names.index, ("sepsis", "septic_shock", "asthma"))
    assert related[sepsis, shock]
    assert not related[sepsis, asthma]
    assert (related == related.T).all()
    assert ((strength > 0) <= related).all()
    assert strength[sepsis, shock] == pytest.approx(0.65 * 0.55)


def test_agreement_is_1_for_the_relations_and_chance_for_random_weights():
    strength, _ = study.relations(TASKS)
    right = study.agreement(strength, TASKS)
    assert right["auroc"] == pytest.approx(1)
    assert right["rank_correlation"] == pytest.approx(1)
    chance = study.agreement(np.random.default_rng(0).random(strength.shape), TASKS)
    assert chance["auroc"] == pytest.approx(0.5, abs=0.05)
    assert chance["rank_correlation"] == pytest.approx(0, abs=0.07)
    # The diagonal does not count.
    assert study.agreement(strength + 9 * np.eye(len(TASKS)), TASKS) == right


def test_a_seed_compares_both_forms_before_and_after_training(monkeypatch):
    monkeypatch.setattr(study, "SINGLE_TASK_STEP", 20)
    found = study.measure(45, patients=150, config=SMALL)
    assert {"outcomes", "gain", *study.FORMS} == set(found)
    binary = [task.name for task in TASKS if task.kind == "binary"]
    assert list(found["gain"]) == binary[45 % 20 :: 20]
    assert found["balanced"]["before"]["own_weight"] == pytest.approx(0.5, abs=0.02)
    assert found["published"]["before"]["own_weight"] < 0.1
    # Even the few training outcomes show which tasks are related.
    assert found["outcomes"]["auroc"] > 0.6
    json.dumps(found)


def made_figures(attention, seed):
    draw = np.random.default_rng(seed)

    def agrees(auroc):
        noise = float(draw.normal(0, 0.004))
        return {"auroc": auroc + noise, "rank_correlation": 2 * auroc - 1 + noise}

    form = {
        "epochs": 30,
        "before": agrees(0.5) | {"own_weight": 0.5},
        "after": agrees(attention) | {"own_weight": 0.75},
        "predictions": agrees(0.9),
        "task_auroc": 0.74,
    }
    binary = [task.name for task in TASKS if task.kind == "binary"]
    gain = {name: float(draw.normal(0.01, 0.01)) for name in binary[seed % 3 :: 3]}
    return {"outcomes": agrees(0.91), "gain": gain} | dict.fromkeys(study.FORMS, form)


def write_seeds(folder, attention):
    for seed in study.SEEDS:
        text = json.dumps(made_figures(attention, seed))
        (folder / f"synthetic-{seed}.json").write_text(text)


def test_only_seeds_without_a_file_are_run(tmp_path, monkeypatch):
    write_seeds(tmp_path, 0.5)
    missing = tmp_path / f"synthetic-{study.SEEDS[1]}.json"
    text = missing.read_text()
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=missing.name):
        study.summarise(tmp_path)
    ran = []

    def measure(seed, *_):
        ran.append(seed)
        return json.loads(text)

    monkeypatch.setattr(study, "measure", measure)
    assert list(study.run(tmp_path)) == list(study.SEEDS)
    assert ran == [study.SEEDS[1]]
    assert study.summarise(tmp_path)["seeds"] == 3


def test_intervals_are_over_seeds_and_each_task_has_a_gain(tmp_path):
    write_seeds(tmp_path, 0.5)
    found = study.summarise(tmp_path)
    seeds = [made_figures(0.5, seed)["outcomes"]["auroc"] for seed in study.SEEDS]
    value, low, high = found["outcomes"]["auroc"]
    assert value == pytest.approx(np.mean(seeds), abs=1e-4)
    # Student's t with two degrees of freedom.
    assert high - value == pytest.approx(4.303 * np.std(seeds, ddof=1) / 3**0.5, abs=2e-4)
    assert value - low == pytest.approx(high - value, abs=2e-4)
    assert found["gain"]["tasks"] == 41


@pytest.mark.parametrize(
    ("attention", "expected"), [(0.5, "does not distinguish"), (0.8, "better than chance")]
)
def test_the_section_states_the_measured_figures(tmp_path, attention, expected):
    write_seeds(tmp_path, attention)
    found = study.summarise(tmp_path)
    text = "\n".join(study.report_lines(found))
    assert text.count(expected) == 2
    stated = [float(figure) for figure in re.findall(r"\d\.\d{3}", text)]
    measured = [abs(float(figure)) for figure in re.findall(r"-?\d+\.\d+", json.dumps(found))]
    assert stated
    assert all(min(abs(one - other) for other in measured) < 5.1e-4 for one in stated)
