"""Pairs, verdicts and the summary agree with an independent implementation, and are exact."""

import json
import math

import numpy as np
import pytest

from model.evaluation.behaviour.distinct_inputs import DistinctInputs
from model.evaluation.behaviour.expectations import Expectation, load_expectations
from model.evaluation.behaviour.judgement import judge, judge_pair, log_odds
from model.evaluation.behaviour.pairs import NEUTRAL_NOTE, make_pair
from model.evaluation.behaviour.patients import made_patients
from model.evaluation.behaviour.summary import shortened, summarize, table
from schemas.evaluation import Evaluation
from schemas.payload import as_payload
from tests.model.evaluation.behaviour.predictors import (
    lactate_predictor,
    random_predictor,
    random_probabilities,
)
from tests.model.evaluation.behaviour.test_expectations import as_json

EXPECTATIONS = load_expectations()
HEALTHY = made_patients()["healthy"]


def expectation(**fields):
    return Expectation.model_validate({"id": "x", "reason": "It is so.", **fields})


def without_id(payload):
    return payload.model_copy(update={"patient_id": None})


# ---- agreement with ask.py -----------------------------------------------------------------------


def test_the_healthy_patient_is_that_of_ask(ask):
    assert without_id(as_payload(ask.made())) == without_id(HEALTHY)


def test_every_pair_is_that_of_ask(ask):
    base = ask.made()
    for one in EXPECTATIONS:
        before, after = ask.pair(base, as_json(one))
        pair = make_pair(as_payload(base), one)
        # ask.py writes the notes of a patient without notes in one way, the payload in another.
        assert as_payload(before) == pair.before, one.id
        assert as_payload(after) == pair.after, one.id


def test_every_verdict_is_that_of_ask(ask):
    for k, one in enumerate(EXPECTATIONS):
        before, after = random_probabilities(f"before {k}"), random_probabilities(f"after {k}")
        theirs = sorted(ask.judge(as_json(one), before, after), key=repr)
        assert sorted(judge_pair(one, before, after), key=repr) == theirs


def test_the_summary_is_that_of_ask(ask, tmp_path, monkeypatch, capsys):
    """The whole program, with the same answers instead of a service."""
    asked = [e for e in (e.restrict(random_probabilities("")) for e in EXPECTATIONS) if e]
    path = tmp_path / "expectations.json"
    path.write_text(json.dumps([as_json(e) for e in asked]))
    bases = [ask.made(age) for age in (30, 50, 70, 90)]
    monkeypatch.setattr(ask, "mimic", lambda _: bases)
    monkeypatch.setattr(ask, "predict", lambda _, p: random_predictor([as_payload(p)])[0])
    monkeypatch.setattr("sys.argv", ["ask.py", "http://", str(path), "--show", "10000"])
    ask.main()
    lines = capsys.readouterr().out.splitlines()
    patients = {str(k): as_payload(base) for k, base in enumerate([ask.made(), *bases])}
    summary = summarize(judge(random_predictor, EXPECTATIONS, patients))
    assert f"concordance {summary.concordance:.3f} of " in lines[-1]
    assert f"; {summary.reliable:.3f} of {summary.expectations} expectations" in lines[-1]
    theirs = sorted((*line.split("mean change"),) for line in lines[:-1])
    mine = sorted(
        (f"{row.share:6.0%}  {row.expectation:34} {row.task:28} ", f" {row.mean_change:+.2f} ")
        for row in summary.rows
    )
    assert [name for name, _ in mine] == [name for name, _ in theirs]
    for (_, change), (_, other) in zip(mine, theirs, strict=True):
        assert float(change) == pytest.approx(float(other), abs=0.011)


# ---- pairs ---------------------------------------------------------------------------------------


def test_a_series_replaces_all_values_under_any_name():
    named = [
        {"variable": name, "unit": "/min", "times": [HEALTHY.as_of], "values": [99]}
        for name in ("heart_rate", "Heart Rate", "HR", "loinc:8867-4", "LOINC:8867-4")
    ]
    patient = as_payload({"as_of": HEALTHY.as_of, "series": named})
    change = {"heart_rate": {"unit": "/min", "from": 78, "to": 145}}
    pair = make_pair(patient, expectation(series=change, still=True))
    (before,), (after,) = pair.before.series, pair.after.series
    assert (set(before.values), set(after.values)) == ({78.0}, {145.0})
    assert before.times == after.times
    assert len(before.times) == 24


def test_a_treatment_that_the_patient_has_is_absent_before():
    patient = made_patients()["septic man"]
    pair = make_pair(patient, expectation(treatment="norepinephrine", still=True))
    before, after = ([c.name for c in p.treatments] for p in (pair.before, pair.after))
    assert "norepinephrine" not in before
    assert after == [*before, "norepinephrine"]
    assert "vancomycin" in before


def test_a_note_follows_a_neutral_note_and_no_other_note_stays():
    patient = made_patients()["septic man"]
    pair = make_pair(patient, expectation(note="Asthma.", still=True))
    assert [n.text for n in pair.before.notes] == [NEUTRAL_NOTE]
    assert [n.text for n in pair.after.notes] == [f"{NEUTRAL_NOTE} Asthma."]
    alone = make_pair(patient, expectation(note="", against_none=True, still=True))
    assert alone.before.notes == []


def test_only_the_named_fact_of_a_patient_changes():
    pair = make_pair(HEALTHY, expectation(tabular={"age": [40, 88]}, still=True))
    assert (pair.before.tabular.age, pair.after.tabular.age) == (40, 88)
    same = pair.after.tabular.model_copy(update={"age": 40})
    assert pair.before == pair.after.model_copy(update={"tabular": same})


# ---- verdicts and summary ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "change", "holds"),
    [
        ({"up": {"sepsis": 0.3}}, 0.31, True),
        ({"up": {"sepsis": 0.3}}, 0.29, False),
        ({"not_down": ["sepsis"]}, -0.04, True),
        ({"not_down": ["sepsis"]}, -0.06, False),
        ({"not_up": ["sepsis"]}, 0.04, True),
        ({"not_up": ["sepsis"]}, 0.06, False),
        ({"still": True}, -0.14, True),
        ({"still": True}, 0.16, False),
    ],
)
def test_the_tolerances(fields, change, holds):
    after = 1 / (1 + math.exp(-(log_odds(0.2) + change)))
    one = expectation(treatment="aspirin", **fields)
    ((task, held, moved),) = judge_pair(one, {"sepsis": 0.2}, {"sepsis": after})
    assert (task, held) == ("sepsis", holds)
    assert moved == pytest.approx(change)


def test_a_probability_of_0_or_1_has_finite_log_odds():
    assert log_odds(0.0) == pytest.approx(-log_odds(1.0)) == pytest.approx(-13.8, abs=0.1)


def test_batches_give_the_verdicts_of_single_requests(monkeypatch):
    patients = dict([*made_patients().items()][:3])
    together = judge(random_predictor, EXPECTATIONS[:30], patients)
    monkeypatch.setattr("model.evaluation.behaviour.judgement.BATCH", 2)
    assert judge(random_predictor, EXPECTATIONS[:30], patients) == together


def test_a_predictor_gets_batches_of_at_most_64():
    sizes = []

    def counted(payloads):
        sizes.append(len(payloads))
        return random_predictor(payloads)

    judge(counted, EXPECTATIONS[:40], made_patients())
    assert max(sizes) == 64


def test_a_model_that_follows_the_lactate_keeps_the_expectations_of_the_lactate():
    asked = [e for e in EXPECTATIONS if e.id in ("lactate 1.1 to 8", "glucose 110 to 450")]
    summary = summarize(judge(lactate_predictor, asked, made_patients()))
    assert [(row.expectation, row.task, row.share) for row in summary.rows] == [
        ("glucose 110 to 450", "diabetes", 0.0),
        ("lactate 1.1 to 8", "sepsis", 1.0),
    ]
    assert (summary.expectations, summary.patients) == (2, len(made_patients()))
    assert (summary.concordance, summary.reliable) == (0.5, 0.5)
    text = table(summary, 1)
    assert "glucose 110 to 450" in text
    assert "lactate" not in text
    assert text.endswith("0.500 of 2 expectations hold in nine of ten patients (10 patients)")


def test_the_manifest_gets_the_worst_rows_and_none_that_always_holds():
    summary = summarize(judge(random_predictor, EXPECTATIONS, made_patients()))
    short = shortened(summary, 5)
    assert [row["share"] for row in short["rows"]] == [row.share for row in summary.rows[:5]]
    assert Evaluation.model_validate({"behaviour": short}).behaviour.reliable == summary.reliable
    perfect = summary.model_copy(
        update={"rows": [r.model_copy(update={"share": 1.0}) for r in summary.rows]}
    )
    assert shortened(perfect, 5)["rows"] == []


def test_each_distinct_input_of_an_encoder_is_computed_once():
    calls = []

    def double(modality, inputs):
        calls.append((modality, len(inputs)))
        return [float(arrays["values"].sum() * 2) for arrays in inputs]

    distinct = DistinctInputs(double)
    rows = [{"values": np.array([k], np.float32)} for k in (1, 2, 1)]
    assert distinct.results("tabular", rows) == [2.0, 4.0, 2.0]
    assert distinct.results("tabular", [*rows, {"values": np.array([3.0])}]) == [2.0, 4.0, 2.0, 6.0]
    distinct.results("notes", rows[:1])
    assert calls == [("tabular", 2), ("tabular", 1), ("notes", 1)]
