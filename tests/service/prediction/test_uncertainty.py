"""Intervals and conformal sets of predictions."""

from dataclasses import replace

import numpy as np
import pytest

from schemas.manifest import ConformalSets, VennAbersCurve
from tests.support.inputs.modality_subsets import joined, without


@pytest.mark.parametrize("absent", [set(), {"notes", "image"}, {"tabular", "series"}], ids=joined)
def test_each_probability_and_value_lies_inside_its_interval(service, payload, absent):
    for prediction in service.predict(without(payload, absent))["predictions"]:
        number = prediction.get("probability", prediction.get("value"))
        assert ("interval" in prediction) == (number is not None)
        if number is not None:
            assert prediction["interval"]["low"] <= number <= prediction["interval"]["high"]


def test_a_probability_has_the_interval_of_the_scores_around_it(computed):
    steps = VennAbersCurve(scores=(0.0, 1.0), low=(0.0, 0.7), high=(0.1, 1.0))
    for prediction in computed.answer(interval=steps).values():
        if prediction.kind == "binary" and not prediction.abstained:
            assert prediction.interval.low == 0.0
            assert prediction.interval.high == 1.0
    assert all(p.interval is None for p in computed.answer(interval=None).values() if p.probability)


def test_rounding_in_the_graph_does_not_put_a_value_outside_its_interval(computed):
    beside = np.array([2, np.nextafter(np.float32(2), 3), 1.5], dtype=np.float32)
    fusion = computed.outputs.fusion | {"length_of_stay": beside}
    prediction = computed.answer(replace(computed.outputs, fusion=fusion))["length_of_stay"]
    assert (prediction.interval.low, prediction.value, prediction.interval.high) == (2, 2, 2)


def test_each_classification_has_a_conformal_set_or_a_reason_for_none(service, bundle, payload):
    classes = {f.task.name: f.task.classes or ("no", "yes") for f in bundle.manifest.tasks}
    for prediction in service.predict(payload)["predictions"]:
        choice = prediction["kind"] in ("binary", "multiclass") and "abstained" not in prediction
        assert len({"set", "no_set"} & prediction.keys()) == choice
        assert set(prediction.get("set", ())) <= set(classes[prediction["task"]])


@pytest.mark.parametrize(
    ("no", "yes", "expected"),
    [(0.0, 0.0, ("no", "yes")), (1.0, 1.0, ()), (0.0, 1.0, ("no",)), (1.0, 0.0, ("yes",))],
)
def test_a_set_contains_the_classes_that_reach_their_threshold(computed, no, yes, expected):
    classes = (name for facts in computed.manifest.tasks for name in facts.task.classes)
    sets = ConformalSets(thresholds=dict.fromkeys(classes, 0.0) | {"no": no, "yes": yes})
    for prediction in computed.answer(sets=sets).values():
        if prediction.kind == "binary" and not prediction.abstained:
            assert prediction.set == expected


def test_a_probability_equal_to_the_threshold_reaches_it(computed):
    before = computed.answer()["discharge_disposition"].probabilities
    sets = ConformalSets(thresholds=before | {"no": 0.0, "yes": 0.0})
    assert computed.answer(sets=sets)["discharge_disposition"].set == tuple(before)


def test_the_reason_of_a_missing_set_is_in_the_answer(computed):
    for prediction in computed.answer(sets=ConformalSets(reason="only 3 patients")).values():
        choice = prediction.kind in ("binary", "multiclass") and not prediction.abstained
        assert prediction.no_set == ("only 3 patients" if choice else None)
        assert prediction.set is None


def test_a_task_that_abstains_has_no_interval_and_no_set(computed):
    for prediction in computed.answer(abstains="too few patients").values():
        assert prediction.abstained
        assert prediction.interval is prediction.description is None
        assert prediction.set is prediction.no_set is None
