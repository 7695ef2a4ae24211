"""Intervals and conformal sets of predictions."""

from dataclasses import replace

import numpy as np
import pytest

from schemas.manifest import ConformalSets, VennAbersCurve
from tests.support.inputs.modality_subsets import joined, without


@pytest.mark.parametrize("absent", [set(), {"notes", "image"}, {"tabular", "series"}], ids=joined)
def test_each_probability_and_value_lies_inside_its_interval(service, payload, absent):
    for found in service.predict(without(payload, absent))["predictions"]:
        number = found.get("probability", found.get("value"))
        assert ("interval" in found) == (number is not None)
        if number is not None:
            assert found["interval"]["low"] <= number <= found["interval"]["high"]


def test_a_probability_has_the_interval_of_the_scores_around_it(computed):
    steps = VennAbersCurve(scores=(0.0, 1.0), low=(0.0, 0.7), high=(0.1, 1.0))
    for found in computed.answer(interval=steps).values():
        if found.kind == "binary" and not found.abstained:
            assert found.interval.low == 0.0
            assert found.interval.high == 1.0
    assert all(p.interval is None for p in computed.answer(interval=None).values() if p.probability)


def test_rounding_in_the_graph_does_not_put_a_value_outside_its_interval(computed):
    beside = np.array([2, np.nextafter(np.float32(2), 3), 1.5], dtype=np.float32)
    fusion = computed.outputs.fusion | {"length_of_stay": beside}
    found = computed.answer(replace(computed.outputs, fusion=fusion))["length_of_stay"]
    assert (found.interval.low, found.value, found.interval.high) == (2, 2, 2)


def test_each_classification_has_a_conformal_set_or_a_reason_for_none(service, bundle, payload):
    classes = {f.task.name: f.task.classes or ("no", "yes") for f in bundle.manifest.tasks}
    for found in service.predict(payload)["predictions"]:
        choice = found["kind"] in ("binary", "multiclass") and "abstained" not in found
        assert len({"set", "no_set"} & found.keys()) == choice
        assert set(found.get("set", ())) <= set(classes[found["task"]])


@pytest.mark.parametrize(
    ("no", "yes", "expected"),
    [(0.0, 0.0, ("no", "yes")), (1.0, 1.0, ()), (0.0, 1.0, ("no",)), (1.0, 0.0, ("yes",))],
)
def test_a_set_contains_the_classes_that_reach_their_threshold(computed, no, yes, expected):
    classes = (name for facts in computed.manifest.tasks for name in facts.task.classes)
    sets = ConformalSets(thresholds=dict.fromkeys(classes, 0.0) | {"no": no, "yes": yes})
    for found in computed.answer(sets=sets).values():
        if found.kind == "binary" and not found.abstained:
            assert found.set == expected


def test_a_probability_equal_to_the_threshold_reaches_it(computed):
    before = computed.answer()["discharge_disposition"].probabilities
    sets = ConformalSets(thresholds=before | {"no": 0.0, "yes": 0.0})
    assert computed.answer(sets=sets)["discharge_disposition"].set == tuple(before)


def test_the_reason_of_a_missing_set_is_in_the_answer(computed):
    for found in computed.answer(sets=ConformalSets(reason="only 3 patients")).values():
        choice = found.kind in ("binary", "multiclass") and not found.abstained
        assert found.no_set == ("only 3 patients" if choice else None)
        assert found.set is None


def test_a_task_that_abstains_has_no_interval_and_no_set(computed):
    for found in computed.answer(abstains="too few patients").values():
        assert found.abstained
        assert found.interval is found.set is found.no_set is found.description is None
