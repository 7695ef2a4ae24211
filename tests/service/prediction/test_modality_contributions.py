"""Contributions of the modalities: they add up to the number and are Shapley values."""

import math
from dataclasses import replace
from itertools import chain, combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.features import extract_features
from schemas.payload import as_payload
from schemas.response import MODALITIES
from service.prediction.explanation import attribution
from service.runtime.bundle import Bundle
from service.runtime.coalitions import coalitions
from service.runtime.engine import Engine
from tests.support.inputs.modality_subsets import joined, without

SETS = [set(some) for k in range(len(MODALITIES)) for some in combinations(MODALITIES, k)]


SOME = (*MODALITIES, "baseline")


def numbers(prediction: dict[str, Any]) -> dict[str, float]:
    """The predicted numbers by class. A single number has an empty name."""
    if "probabilities" in prediction:
        return prediction["probabilities"]
    return {"": prediction.get("probability", prediction.get("value"))}


def by_class(contributions: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {"": contributions} if "baseline" in contributions else contributions


@pytest.mark.parametrize("absent", SETS, ids=lambda s: "without " + " ".join(sorted(s)))
def test_contributions_add_up_to_the_number_and_absent_or_hidden_modalities_add_0(
    service, bundle, payload, absent
):
    answer = service.predict(without(payload, absent))
    explained = answer["explanation"]["modalities"]
    visible = {facts.task.name: facts.visible_modalities for facts in bundle.manifest.tasks}
    predicted = [p for p in answer["predictions"] if "abstained" not in p]
    assert explained.keys() == {p["task"] for p in predicted}
    assert predicted
    for prediction in predicted:
        name = prediction["task"]
        contributions = by_class(explained[name])
        assert contributions.keys() == numbers(prediction).keys()
        for label, number in numbers(prediction).items():
            assert contributions[label].keys() == set(SOME)
            assert sum(contributions[label].values()) == pytest.approx(number, abs=1e-5)
            for modality in MODALITIES:
                if modality in absent or modality not in visible[name]:
                    assert contributions[label][modality] == 0


def test_the_baseline_is_the_number_without_any_modality(service, engine, payload):
    explained = service.predict(payload)["explanation"]["modalities"]
    (nothing,) = engine.run([{}])
    for facts in engine.bundle.manifest.tasks:
        rows = np.atleast_1d(nothing.fusion[facts.output])
        expected = rows if facts.column is None else rows[[facts.column]]
        baselines = [row["baseline"] for row in by_class(explained[facts.task.name]).values()]
        np.testing.assert_allclose(baselines, expected, atol=1e-6)
        if facts.prevalence is not None:
            assert baselines[0] == pytest.approx(facts.prevalence, abs=1e-5)


@pytest.mark.parametrize("absent", [set(), {"notes"}, {"image", "tabular"}], ids=joined)
def test_contributions_are_shapley_values_over_all_orders(service, engine, payload, absent):
    """Compares with runs of the engine for each order in which modalities can be added."""
    payload = without(payload, absent)
    arrays = extract_features(as_payload(payload), engine.bundle.manifest.spec).arrays
    coalition_values = {
        frozenset(some): engine.run([{m: arrays[m] for m in some}])[0].fusion
        for some in chain.from_iterable(combinations(arrays, k) for k in range(len(arrays) + 1))
    }
    explained = service.predict(payload)["explanation"]["modalities"]
    orders = list(permutations(arrays))
    for modality in arrays:
        for facts in engine.bundle.manifest.tasks:
            gains = [
                coalition_values[frozenset(order[: order.index(modality) + 1])][facts.output]
                - coalition_values[frozenset(order[: order.index(modality)])][facts.output]
                for order in orders
            ]
            mean = np.atleast_1d(np.mean(gains, axis=0, dtype=np.float64))
            expected = mean if facts.column is None else mean[[facts.column]]
            contributions = [row[modality] for row in by_class(explained[facts.task.name]).values()]
            np.testing.assert_allclose(contributions, expected, atol=2e-6)


def test_a_modality_can_influence_a_task_through_one_it_must_agree_with(bundle):
    manifest = bundle.manifest
    tasks = {facts.task.name: facts for facts in manifest.tasks}
    for name in ("sepsis", "in_hospital_mortality"):
        tasks[name] = tasks[name].model_copy(update={"visible_modalities": MODALITIES})
    manifest = manifest.model_copy(update={"tasks": tuple(tasks.values())})
    for name in ("sepsis", "septic_shock", "in_hospital_mortality", "discharge_disposition"):
        assert "image" in attribution.influencing_modalities(tasks[name], manifest)
    assert "image" not in attribution.influencing_modalities(tasks["diabetes"], manifest)


def test_coalitions_are_all_subsets_of_the_present_modalities():
    rows = coalitions((True, False, True, True))
    assert len({tuple(row) for row in rows.tolist()}) == 8
    assert not rows[0].any()
    assert rows[-1].tolist() == [True, False, True, True]
    assert not rows[:, 1].any()


def test_coalitions_are_computed_only_if_requested(bundle, payload):
    rows = []

    class Counting:
        def run(self, inputs):
            rows.append(len(inputs["present"]))
            return bundle.fusion.run(inputs)

    engine = Engine(replace(bundle, fusion=Counting()))
    arrays = extract_features(as_payload(payload), bundle.manifest.spec).arrays
    engine.run([arrays])
    engine.run([arrays, arrays, {}], {1})
    engine.run([arrays], {0})
    assert rows == [1, 15 + 2, 1, 15]  # the baseline is the same for all patients


def test_an_explanation_does_not_depend_on_the_batch(engine, payload):
    whole = extract_features(as_payload(payload), engine.bundle.manifest.spec).arrays
    part = {"series": whole["series"]}
    alone = engine.run([part], {0})[0]
    beside = engine.run([whole, part, {}], {0, 1, 2})[1]
    for name, rows in alone.coalitions.items():
        np.testing.assert_allclose(beside.coalitions[name], rows, rtol=1e-6, atol=1e-6)
    assert len(alone.coalitions["binary"]) == 2


def test_the_default_explanation_has_the_largest_attention_weights(service, bundle, payload):
    full = service.predict(payload, explain="full")["explanation"]["attention"]
    names, weights = full["tasks"], np.array(full["weights"])
    assert names == [f.task.name for f in bundle.manifest.tasks]
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    short = service.predict(payload)["explanation"]["attention"]
    for i, (name, own) in enumerate(zip(names, short, strict=True)):
        assert own["task"] == name
        assert own["own"] == pytest.approx(weights[i, i], abs=1e-6)
        drawn = [d["weight"] for d in own["drawn_from"]]
        others = np.sort(np.delete(weights[i], i))[::-1][:5]
        np.testing.assert_allclose(drawn, others, atol=1e-6)
        assert name not in {d["task"] for d in own["drawn_from"]}


def test_the_explanation_can_be_left_out(service, payload):
    assert "explanation" not in service.predict(payload, explain="none")


def test_outputs_that_are_not_finite_have_no_explanation(engine):
    (outputs,) = engine.run([{}], {0})
    nan = {name: np.full_like(rows, math.nan) for name, rows in outputs.fusion.items()}
    broken = replace(outputs, fusion=nan)
    assert attribution.explain_outputs(broken, engine.bundle.manifest, "full") is None
    coalitions = {name: np.full_like(rows, math.nan) for name, rows in outputs.coalitions.items()}
    broken = replace(outputs, coalitions=coalitions)
    explanation = attribution.explain_outputs(broken, engine.bundle.manifest, "default")
    assert explanation["modalities"] == {}


def test_predictions_are_the_same_with_and_without_an_explanation(service, payload):
    answers = [
        service.predict(payload, explain=e)["predictions"] for e in ("none", "default", "full")
    ]
    for other in answers[1:]:
        for prediction, same in zip(answers[0], other, strict=True):
            assert numbers(prediction) == pytest.approx(numbers(same), abs=1e-6)


def test_a_task_that_abstains_is_not_explained(serve, changed_bundle, payload):
    def abstain(manifest: dict[str, Any], _: Path) -> None:
        manifest["tasks"][0]["abstains"] = "too few patients"

    engine = Engine(Bundle.load(changed_bundle(abstain), "cpu"))
    engine.replay_golden()
    service = serve(engine)
    name = engine.bundle.manifest.tasks[0].task.name
    assert name not in service.predict(payload)["explanation"]["modalities"]
    answer = service.client.post(f"/predict?explain=full&task={name}", json=payload)
    assert answer.status_code == 422
