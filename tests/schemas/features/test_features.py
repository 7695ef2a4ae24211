"""From a payload to arrays: units, order, duplicates, missing values, and a receipt of it all."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features import (
    STATISTICS,
    TREATMENT_FEATURES,
    FeatureSpec,
    features,
    note_text,
    note_tokens,
    phrases_of,
    stack,
)
from schemas.payload import InvalidPayload, as_payload, parse_payload
from tests.support.chest_films import encoded, film

SPEC = FeatureSpec.default()
AS_OF = datetime(2026, 11, 23, 10, tzinfo=UTC)


def at(hours_before):
    return AS_OF - timedelta(hours=hours_before)


def read(**parts):
    return features(as_payload({"as_of": AS_OF, **parts}), SPEC)


def series(variable, unit, *pairs):
    times, values = zip(*pairs, strict=True)
    return {
        "variable": variable,
        "unit": unit,
        "times": [at(h) for h in times],
        "values": list(values),
    }


def statistic(found, variable, name):
    rows = found.arrays["series"]["statistics"]
    return float(rows[SPEC.variable_index[variable], STATISTICS.index(name)])


def treatment(found, name, feature):
    rows = found.arrays["series"]["treatments"]
    return float(rows[SPEC.treatment_index[name], TREATMENT_FEATURES.index(feature)])


def refused(**parts):
    with pytest.raises(InvalidPayload) as caught:
        read(**parts)
    return {(error.pointer, error.rule) for error in caught.value.errors}


def ignored(found):
    return {(entry.pointer, entry.reason) for entry in found.receipt.ignored}


# --- series -----------------------------------------------------------------------------------


def test_a_statistic_is_what_its_name_says():
    found = read(series=[series("heart_rate", "/min", (5, 80.0), (3, 100.0), (1, 90.0))])
    expected = {
        "last": 90,
        "mean": 90,
        "minimum": 80,
        "maximum": 100,
        "spread": np.std([80, 100, 90]),
        "change": 10,
        "log_count": np.log(4),
        "hours_since_last": 1,
        "recent_mean": 90,
        "recent_minimum": 80,
        "recent_maximum": 100,
    }
    for name, value in expected.items():
        assert statistic(found, "heart_rate", name) == pytest.approx(value), name


def test_recent_is_the_last_six_hours():
    found = read(series=[series("heart_rate", "/min", (7, 80.0), (5, 100.0))])
    assert statistic(found, "heart_rate", "mean") == 90
    assert statistic(found, "heart_rate", "recent_mean") == 100


def test_a_variable_that_was_not_measured_is_missing_not_zero():
    found = read(series=[series("heart_rate", "/min", (1, 80.0))])
    assert np.isnan(statistic(found, "creatinine", "last"))
    assert statistic(found, "creatinine", "log_count") == 0


def test_amounts_add_up_over_the_window():
    found = read(series=[series("urine_output", "mL", (20, 400.0), (3, 200.0), (1, 100.0))])
    assert statistic(found, "urine_output", "mean") == pytest.approx(700 / 48)
    assert statistic(found, "urine_output", "recent_mean") == pytest.approx(300 / 6)


@pytest.mark.parametrize(
    ("variable", "unit", "value", "canonical"),
    [
        ("creatinine", "umol/L", 180.0, 2.036),
        ("temperature", "[degF]", 98.6, 37.0),
        ("temperature", "°F", 98.6, 37.0),
        ("heart_rate", "bpm", 92.0, 92.0),
        ("glucose", "mmol/L", 5.5, 99.1),
        ("fraction_inspired_oxygen", "1", 0.21, 21.0),
        ("platelets", "10*9/L", 150.0, 150.0),
        ("ph", None, 7.4, 7.4),
        ("gcs_eye", None, 4.0, 4.0),
    ],
)
def test_a_unit_is_converted_never_assumed(variable, unit, value, canonical):
    found = read(series=[series(variable, unit, (1, value))])
    assert statistic(found, variable, "last") == pytest.approx(canonical, rel=1e-3)


def test_the_receipt_names_what_was_converted():
    found = read(series=[series("loinc:2160-0", "umol/L", (1, 180.0))])
    (entry,) = found.receipt.converted
    assert (entry.variable, entry.from_unit, entry.to_unit) == ("creatinine", "umol/L", "mg/dL")
    assert found.receipt.used[0].variable == "creatinine"


@pytest.mark.parametrize(
    ("variable", "unit", "reason"),
    [
        ("creatinine", "zebra", "unknown_unit"),
        ("creatinine", "mmHg", "unknown_unit"),
        ("creatinine", None, "unit_required"),
        ("temperature", "mg/dL", "unknown_unit"),
        ("gcs_eye", "mg/dL", "unknown_unit"),
    ],
)
def test_a_series_whose_unit_cannot_be_converted_is_left_out_and_named(variable, unit, reason):
    found = read(series=[series(variable, unit, (2, 1.0), (1, 1.0)), series("ph", None, (1, 7.4))])
    assert statistic(found, "ph", "last") == pytest.approx(7.4)
    assert np.isnan(statistic(found, variable, "last"))
    (entry,) = found.receipt.ignored
    assert (entry.pointer, entry.reason, entry.observations) == ("/series/0/unit", reason, 2)
    assert SPEC.variables[SPEC.variable_index[variable]].unit in entry.detail
    assert "zebra" not in entry.detail


def test_a_value_outside_the_plausible_range_is_missing_and_named():
    found = read(series=[series("temperature", "Cel", (2, 98.6), (1, 37.0))])
    assert statistic(found, "temperature", "maximum") == 37
    assert ignored(found) == {("/series/0/values", "implausible_value")}


def test_an_unknown_variable_is_ignored_and_named():
    found = read(series=[series("aura", "mL", (1, 3.0)), series("heart_rate", "/min", (1, 80.0))])
    assert ignored(found) == {("/series/0", "unknown_variable")}


def test_one_variable_given_by_name_and_by_loinc_is_merged_and_named():
    found = read(
        series=[
            series("creatinine", "mg/dL", (5, 1.0)),
            series("loinc:2160-0", "mg/dL", (1, 2.0)),
        ]
    )
    assert statistic(found, "creatinine", "change") == 1
    (entry,) = found.receipt.merged
    assert (entry.reason, entry.pointers) == ("given_more_than_once", ("/series/0", "/series/1"))


def test_unsorted_times_are_put_in_order_and_named():
    found = read(series=[series("heart_rate", "/min", (1, 90.0), (5, 80.0))])
    assert statistic(found, "heart_rate", "last") == 90
    assert [entry.reason for entry in found.receipt.merged] == ["unsorted_times"]


def test_duplicate_times_become_one_value_and_are_named():
    found = read(
        series=[
            series("heart_rate", "/min", (5, 70.0), (1, 80.0), (1, 80.0), (1, 90.0)),
            series("urine_output", "mL", (1, 100.0), (1, 100.0), (1, 50.0)),
        ]
    )
    assert statistic(found, "heart_rate", "last") == 85
    assert statistic(found, "heart_rate", "log_count") == pytest.approx(np.log(3))
    assert statistic(found, "urine_output", "last") == 250  # amounts add up, equal ones too
    assert {entry.reason for entry in found.receipt.merged} == {"duplicate_times"}


def test_what_lies_before_the_window_is_not_used_and_named():
    found = read(series=[series("heart_rate", "/min", (49, 70.0), (1, 80.0))])
    assert statistic(found, "heart_rate", "log_count") == pytest.approx(np.log(2))
    assert ignored(found) == {("/series/0/times", "before_window")}


def test_a_series_of_nothing_usable_is_as_if_it_were_absent():
    found = read(tabular={"age": 50}, series=[series("temperature", "Cel", (1, 98.6))])
    assert "series" not in found.arrays
    assert found.receipt.modalities["series"].status == "absent"


@settings(max_examples=50, deadline=None)
@given(
    data=st.lists(
        st.tuples(
            st.sampled_from(["heart_rate", "creatinine", "urine_output"]),
            st.floats(0.0, 40.0),
            st.floats(0.0, 300.0),
        ),
        min_size=1,
        max_size=40,
    ),
    seed=st.randoms(use_true_random=False),
)
def test_neither_order_nor_grouping_of_the_observations_matters(data, seed):
    units = {"heart_rate": "/min", "creatinine": "mg/dL", "urine_output": "mL"}
    one_each = [series(name, units[name], (h, v)) for name, h, v in data]
    shuffled = list(one_each)
    seed.shuffle(shuffled)
    together = [
        series(name, units[name], *[(h, v) for n, h, v in data if n == name])
        for name in sorted({n for n, _, _ in data})
    ]
    first, *others = (read(tabular={"age": 1}, series=s) for s in (one_each, shuffled, together))
    for other in others:
        assert first.arrays.keys() == other.arrays.keys()
        if "series" in first.arrays:
            np.testing.assert_allclose(
                first.arrays["series"]["statistics"],
                other.arrays["series"]["statistics"],
                rtol=1e-5,
                atol=1e-4,
            )


def test_one_observation_says_nothing_of_how_much_a_variable_varies():
    found = read(series=[series("creatinine", "mg/dL", (1, 2.0))])
    assert statistic(found, "creatinine", "last") == 2
    assert np.isnan(statistic(found, "creatinine", "spread"))
    assert np.isnan(statistic(found, "creatinine", "change"))


# --- treatments -------------------------------------------------------------------------------


def given_treatment(**fields):
    return {"name": "norepinephrine", "start": at(5), "end": None, **fields}


def test_a_running_treatment_has_its_rate_in_the_canonical_unit():
    found = read(
        tabular={"weight_kg": 80.0},
        treatments=[given_treatment(rate=8.0, unit="mcg/min")],
    )
    assert treatment(found, "norepinephrine", "running") == 1
    assert treatment(found, "norepinephrine", "rate") == pytest.approx(0.1)
    assert treatment(found, "norepinephrine", "hours_since_start") == 5


def test_an_ended_treatment_was_given_and_does_not_run():
    found = read(treatments=[given_treatment(end=at(2), rate=0.1, unit="ug/kg/min")])
    assert treatment(found, "norepinephrine", "given") == 1
    assert treatment(found, "norepinephrine", "running") == 0
    assert np.isnan(treatment(found, "norepinephrine", "rate"))


def test_an_absolute_rate_without_a_weight_is_not_guessed():
    found = read(treatments=[given_treatment(rate=8.0, unit="ug/min")])
    assert np.isnan(treatment(found, "norepinephrine", "rate"))
    assert ignored(found) == {("/treatments/0/rate", "weight_needed_for_rate")}


@pytest.mark.parametrize(
    ("unit", "reason"),
    [("mg/dL", "unknown_unit"), ("mL/hr", "unknown_unit"), (None, "unit_required")],
)
def test_a_rate_in_a_unit_that_cannot_be_converted_is_left_out(unit, reason):
    found = read(treatments=[given_treatment(rate=8.0, unit=unit)])
    assert ignored(found) == {("/treatments/0/unit", reason)}
    assert treatment(found, "norepinephrine", "running") == 1
    assert np.isnan(treatment(found, "norepinephrine", "rate"))


def test_the_receipt_names_the_treatments_and_a_rate_that_is_not_read():
    found = read(treatments=[given_treatment(), given_treatment(name="aspirin", rate=1.0)])
    assert found.receipt.treatments == ("norepinephrine", "aspirin")
    assert ignored(found) == {("/treatments/1/rate", "rate_not_read")}


def test_an_unknown_treatment_is_ignored_and_named():
    found = read(tabular={"age": 50}, treatments=[given_treatment(name="leeches")])
    assert ignored(found) == {("/treatments/0", "unknown_treatment")}


@pytest.mark.parametrize("starts", [(5, 5), (1, 5), (5, 1)])
@pytest.mark.parametrize("rates", [(0.1, 0.5), (0.5, 0.1)])
def test_the_rates_of_courses_that_run_together_add_up_in_any_order(starts, rates):
    found = read(
        treatments=[
            given_treatment(start=at(start), rate=rate, unit="ug/kg/min")
            for start, rate in zip(starts, rates, strict=True)
        ]
    )
    assert treatment(found, "norepinephrine", "rate") == pytest.approx(0.6)
    assert treatment(found, "norepinephrine", "hours_since_start") == 5
    assert [entry.reason for entry in found.receipt.merged] == ["rates_added"]


def test_a_course_that_is_sent_twice_counts_once():
    course = given_treatment(rate=0.1, unit="ug/kg/min")
    found = read(treatments=[course, given_treatment(name="aspirin"), course])
    assert treatment(found, "norepinephrine", "rate") == pytest.approx(0.1)
    (entry,) = found.receipt.merged
    assert entry.pointers == ("/treatments/0", "/treatments/2")


def test_a_rate_that_changes_is_the_latest_one():
    found = read(
        treatments=[
            given_treatment(start=at(5), end=at(2), rate=0.4, unit="ug/kg/min"),
            given_treatment(start=at(2), rate=0.1, unit="ug/kg/min"),
        ]
    )
    assert treatment(found, "norepinephrine", "rate") == pytest.approx(0.1)


@pytest.mark.parametrize("unit", ["ug/kg/min", "mL/hr", None])
def test_a_course_at_a_rate_of_zero_does_not_run(unit):
    paused = given_treatment(rate=0, unit=unit)
    found = read(treatments=[paused])
    assert treatment(found, "norepinephrine", "given") == 1
    assert treatment(found, "norepinephrine", "running") == 0
    assert np.isnan(treatment(found, "norepinephrine", "rate"))
    assert [entry.pointer for entry in found.receipt.read_as] == ["/treatments/0/rate"]
    other = given_treatment(rate=0.2, unit="ug/kg/min")
    found = read(treatments=[other, paused])
    assert treatment(found, "norepinephrine", "rate") == pytest.approx(0.2)


def test_a_negative_rate_is_not_used():
    found = read(treatments=[given_treatment(rate=-0.1, unit="ug/kg/min")])
    assert ignored(found) == {("/treatments/0/rate", "implausible_value")}


@pytest.mark.parametrize(
    ("name", "rate", "unit", "expected"),
    [
        ("heparin", 18, "units/kg/hr", 1440),
        ("heparin", 18, "U/kg/h", 1440),
        ("heparin", 1440, "units/hr", 1440),
        ("fentanyl", 1.5, "mcg/kg/hr", 120),
        ("fentanyl", 0.025, "mcg/kg/min", 120),
        ("nitroglycerin", 0.5, "mcg/kg/min", 40),
        ("nitroglycerin", 0.5, "gamma/kg/min", 40),
        ("insulin", 0.05, "U/kg/h", 4),
        ("midazolam", 50, "mcg/kg/h", 4),
        ("propofol", 50, "mcg/kg/min", 50),
        ("propofol", 3, "mg/kg/hr", 50),
        ("propofol", 240, "mg/hr", 50),
        ("norepinephrine", 8, "MCG/MIN", 0.1),
        ("norepinephrine", 0.48, "mg/hour", 0.1),
        ("norepinephrine", 0.1, "ug.kg-1.min-1", 0.1),
        ("norepinephrine", 0.1, "mcg per kg per min", 0.1),
        ("vasopressin", 2.4, "units/hr", 0.04),
        ("vasopressin", 40, "mU/min", 0.04),
        ("vasopressin", 0.0005, "units/kg/min", 0.04),
        ("amiodarone", 720, "mg/day", 0.5),
    ],
)
def test_a_rate_is_converted_by_its_unit_and_the_weight(name, rate, unit, expected):
    given = given_treatment(name=name, rate=rate, unit=unit)
    found = read(tabular={"weight_kg": 80.0}, treatments=[given])
    assert ignored(found) == set()
    assert treatment(found, name, "rate") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unit", ["mL/hr", "mg", "U/h", "mg/kg", "mmol/h", "%", "zebra" * 100])
def test_another_unit_is_no_rate_of_norepinephrine(unit):
    found = read(tabular={"weight_kg": 80.0}, treatments=[given_treatment(rate=5.0, unit=unit)])
    assert ignored(found) == {("/treatments/0/unit", "unknown_unit")}
    assert treatment(found, "norepinephrine", "running") == 1


def test_a_weight_that_was_observed_serves_rates():
    course = given_treatment(rate=8.0, unit="ug/min")
    weights = series("loinc:29463-7", "[lb_av]", (9, 300.0), (1, 176.36981))
    found = read(series=[weights], treatments=[course])
    assert treatment(found, "norepinephrine", "rate") == pytest.approx(0.1)
    assert [(e.pointer, e.read_as) for e in found.receipt.read_as] == [("/series/0", "weight_kg")]
    found = read(tabular={"weight_kg": 40.0}, series=[weights], treatments=[course])
    assert treatment(found, "norepinephrine", "rate") == pytest.approx(0.2)
    found = read(tabular={"weight_kg": 2.5, "age": 71}, series=[weights], treatments=[course])
    assert treatment(found, "norepinephrine", "rate") == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Norepinephrine", "norepinephrine"),
        ("NOREPINEPHRINE 8 MG/250 ML D5W", "norepinephrine"),
        ("levophed", "norepinephrine"),
        ("noradrenaline", "norepinephrine"),
        ("Noradrenalin", "norepinephrine"),
        ("norepinephrine bitartrate", "norepinephrine"),
        ("Epinephrine", "epinephrine"),
        ("adrenaline", "epinephrine"),
        ("racemic epinephrine", "bronchodilator"),
        ("Heparin", "heparin"),
        ("heparin infusion", "heparin"),
        ("Lovenox 40 mg", "enoxaparin"),
        ("low molecular weight heparin subcutaneous", "enoxaparin"),
        ("Beta Blocker", "beta_blocker"),
        ("metoprolol tartrate", "beta_blocker"),
        ("Mechanical Ventilation", "mechanical_ventilation"),
        ("non-invasive mechanical ventilation", "noninvasive_ventilation"),
        ("CRRT", "continuous_renal_replacement"),
        ("hemodialysis", "hemodialysis"),
        ("Piperacillin-Tazobactam", "piperacillin_tazobactam"),
        ("  Propofol  ", "propofol"),
        ("PRBC", "packed_red_cells"),
    ],
)
def test_a_treatment_is_known_by_the_names_that_hospitals_write(written, name):
    found = read(treatments=[given_treatment(name=written)])
    assert found.receipt.treatments == (name,)
    if written != name:
        (entry,) = found.receipt.read_as
        assert (entry.pointer, entry.read_as) == ("/treatments/0/name", name)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("aspirin and clopidogrel", "ambiguous_treatment"),
        ("no aspirin", "unknown_treatment"),
        ("aspirin held", "unknown_treatment"),
        ("vancomycin trough level", "unknown_treatment"),
        ("heparin flush", "unknown_treatment"),
        ("lidocaine with epinephrine", "unknown_treatment"),
        ("physiotherapy", "unknown_treatment"),
        ("norepinephrine " + "x" * 300, "unknown_treatment"),
    ],
)
def test_a_name_of_something_else_is_ignored(written, reason):
    found = read(tabular={"age": 50}, treatments=[given_treatment(name=written)])
    assert ignored(found) == {("/treatments/0", reason)}


# --- tabular ----------------------------------------------------------------------------------


def tabular(found):
    return dict(zip(SPEC.tabular_names, found.arrays["tabular"]["values"].tolist(), strict=True))


def test_tabular_values_are_where_their_names_are():
    found = read(
        tabular={
            "age": 71,
            "sex": "female",
            "height_cm": 160.0,
            "weight_kg": 64.0,
            "unit_type": "medical_icu",
            "admitted_at": at(25),
        }
    )
    values = tabular(found)
    assert values["age"] == 71
    assert values["body_mass_index"] == pytest.approx(25.0)
    assert values["hours_since_admission"] == 25
    assert (values["sex=female"], values["sex=male"]) == (1, 0)
    assert values["unit_type=medical_icu"] == 1


def test_an_unknown_category_and_an_implausible_number_are_missing_and_named():
    found = read(tabular={"age": 71, "sex": "zebra", "weight_kg": 7000.0})
    assert ignored(found) == {
        ("/tabular/sex", "unknown_category"),
        ("/tabular/weight_kg", "implausible_value"),
    }
    assert np.isnan(tabular(found)["weight_kg"])


def test_tabular_data_of_which_nothing_can_be_used_are_absent():
    found = read(tabular={"sex": "zebra"}, series=[series("heart_rate", "/min", (1, 80.0))])
    assert "tabular" not in found.arrays


# --- notes ------------------------------------------------------------------------------------


def test_a_note_of_any_length_is_read_whole():
    words = 20_000
    found = read(notes=[{"time": at(1), "text": "dyspnoea and fever " * words}])
    assert len(found.arrays["notes"]["tokens"]) > 3 * words


def test_notes_that_are_too_long_to_be_read_are_refused_not_cut():
    texts = [{"time": at(1), "text": "fever " * 100_000}] * 2
    assert refused(notes=texts) == {("/notes", "text_limit")}


def test_notes_are_read_from_old_to_new():
    first, second = {"time": at(5), "text": "fever"}, {"time": at(1), "text": "cough"}
    one, other = read(notes=[first, second]), read(notes=[second, first])
    np.testing.assert_array_equal(one.arrays["notes"]["tokens"], other.arrays["notes"]["tokens"])


def test_a_phrase_is_known_by_itself_and_by_the_headings_it_stands_under():
    text = "History: cardiac: heart  failure; Gout.\nAsthma"
    assert phrases_of(text, np.zeros(len(text) + 1, dtype=bool)) == [
        "history",
        "history: cardiac",
        "history: cardiac: heart failure",
        "cardiac",
        "cardiac: heart failure",
        "heart failure",
        "gout",
        "asthma",
    ]


@given(st.text(max_size=400))
def test_every_id_of_a_note_is_within_the_vocabulary(text):
    if note_text(text).text.strip():
        tokens = read(notes=[{"time": at(1), "text": text}]).arrays["notes"]["tokens"]
        assert (tokens >= 0).all()
        assert (tokens < SPEC.vocabulary).all()


def tokens_of(text, spec=SPEC):
    payload = as_payload({"as_of": AS_OF, "notes": [{"time": at(1), "text": text}]})
    tokens = features(payload, spec).arrays["notes"]["tokens"]
    return set(tokens.tolist()) - {spec.tokenizer.token_to_id("[SEP]")}


def test_the_tokens_of_a_request_are_those_of_its_notes_from_old_to_new():
    texts = ["Pneumonia. No fever.", "History: heart failure: systolic"]
    notes = [{"time": at(2 - i), "text": text} for i, text in enumerate(texts)]
    expected = [token for text in texts for token in note_tokens(text, SPEC).ids.tolist()]
    assert read(notes=notes).arrays["notes"]["tokens"].tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Fever, cough for three days.\n\tNo gout; " * 40, id="prose"),
        pytest.param("x" * 300 + " fever " + "y" * 200, id="words longer than a piece"),
        pytest.param(" \n\t" * 100 + "fever", id="spaces"),
        pytest.param("résumé naïve 胸片 " * 30, id="accents and Chinese"),
    ],
)
def test_a_long_note_is_read_in_pieces_as_if_at_once(text, monkeypatch):
    whole = note_tokens(text, SPEC)
    monkeypatch.setattr("schemas.features.notes.encoding._PIECE", 50)
    pieces = note_tokens(text, SPEC)
    for name in ("ids", "first", "last"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))


def test_reading_ends_with_what_the_check_raises(monkeypatch):
    monkeypatch.setattr("schemas.features.notes.encoding._PIECE", 50)
    asked = []

    def check():
        asked.append(True)
        if len(asked) == 3:
            raise TimeoutError

    payload = as_payload({"as_of": AS_OF, "notes": [{"time": at(1), "text": "fever " * 100}]})
    with pytest.raises(TimeoutError):
        features(payload, SPEC, check=check)


def test_a_word_that_is_denied_is_another_word():
    assert tokens_of("gout") <= tokens_of("Asthma; gout")
    assert not tokens_of("gout") & tokens_of("No gout; asthma")
    assert tokens_of("asthma") <= tokens_of("No gout; asthma")


def test_what_is_denied_under_a_heading_is_another_phrase():
    assert not tokens_of("heart failure") & tokens_of("Not found: heart failure")
    assert tokens_of("Not found: heart failure") & tokens_of("Not seen: heart failure")


def test_a_spec_from_before_denials_were_read_reads_as_before():
    facts = SPEC.model_dump(exclude={"denied_apart"}) | {"tokenizer_json": SPEC.tokenizer_json}
    assert tokens_of("gout") <= tokens_of("Not seen: gout", FeatureSpec.model_validate(facts))


def test_phrases_have_ids_of_their_own():
    tokens = read(notes=[{"time": at(1), "text": "gout"}]).arrays["notes"]["tokens"]
    assert (tokens >= SPEC.vocabulary - SPEC.phrases).sum() == 1


# --- the whole --------------------------------------------------------------------------------


def test_the_same_sample_in_memory_and_as_json_gives_the_same_arrays():
    payload = as_payload(
        {
            "as_of": AS_OF,
            "tabular": {"age": 71.5, "weight_kg": 80.0, "admitted_at": at(24.3)},
            "series": [series("heart_rate", "/min", (1 / 3, 80.1), (0.7, 1e2))],
            "treatments": [given_treatment(rate=0.123, unit="ug/kg/min")],
            "notes": [{"time": at(1), "text": "Fièvre, toux."}],
            "images": [{"time": at(1), "media_type": "image/png", "data": encoded(film())}],
        }
    )
    one, other = features(payload, SPEC), features(parse_payload(payload.model_dump_json()), SPEC)
    assert one.receipt == other.receipt
    for modality, arrays in one.arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, other.arrays[modality][name])


def test_a_spec_written_and_read_back_reads_alike():
    dumped = json.loads(SPEC.model_dump_json())
    assert FeatureSpec(**dumped, tokenizer_json=SPEC.tokenizer_json) == SPEC


def test_a_batch_pads_notes_with_zeros_at_the_end():
    found = [read(notes=[{"time": at(1), "text": t}]).arrays["notes"] for t in ("a", "a b c")]
    tokens = stack(found)["tokens"]
    assert (tokens[0, len(found[0]["tokens"]) :] == 0).all()
    assert (tokens[1] != 0).all()
