"""Explanations: contributions add up to the number and are those of this patient."""

import math
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from itertools import chain, combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features import EncodedNote, FeatureSpec, encode_note, extract_features
from schemas.payload import as_payload
from schemas.response import MODALITIES, Answer
from service.prediction.explanation import attribution, occlusion
from service.prediction.explanation.note_passages import MAX_PASSAGES
from service.prediction.explanation.occlusion import MAX_POINTERS, Ablation, ablations
from service.runtime.bundle import Bundle
from service.runtime.coalitions import coalitions
from service.runtime.engine import Engine
from tests.service.prediction.test_predictor import joined, without

SETS = [set(some) for k in range(len(MODALITIES)) for some in combinations(MODALITIES, k)]
SOME = (*MODALITIES, "baseline")


def numbers(prediction: dict[str, Any]) -> dict[str, float]:
    """By class what was predicted; of one number by an empty name."""
    if "probabilities" in prediction:
        return prediction["probabilities"]
    return {"": prediction.get("probability", prediction.get("value"))}


def by_class(told: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {"": told} if "baseline" in told else told


# ------------------------------------------------------------------------------------- modalities


@pytest.mark.parametrize("absent", SETS, ids=lambda s: "without " + " ".join(sorted(s)))
def test_contributions_add_up_to_the_number_and_absent_or_hidden_modalities_add_0(
    service, bundle, payload, absent
):
    answer = service.predict(without(payload, absent))
    told = answer["explanation"]["modalities"]
    seen = {facts.task.name: facts.visible_modalities for facts in bundle.manifest.tasks}
    assert told.keys() == seen.keys()
    for prediction in answer["predictions"]:
        name = prediction["task"]
        found = by_class(told[name])
        assert found.keys() == numbers(prediction).keys()
        for label, number in numbers(prediction).items():
            assert found[label].keys() == set(SOME)
            assert sum(found[label].values()) == pytest.approx(number, abs=1e-5)
            for modality in MODALITIES:
                if modality in absent or modality not in seen[name]:
                    assert found[label][modality] == 0


def test_the_baseline_is_the_number_without_any_modality(service, engine, payload):
    told = service.predict(payload)["explanation"]["modalities"]
    (nothing,) = engine.run([{}])
    for facts in engine.bundle.manifest.tasks:
        rows = np.atleast_1d(nothing.fusion[facts.output])
        expected = rows if facts.column is None else rows[[facts.column]]
        found = [one["baseline"] for one in by_class(told[facts.task.name]).values()]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        if facts.prevalence is not None:
            assert found[0] == pytest.approx(facts.prevalence, abs=1e-5)


@pytest.mark.parametrize("absent", [set(), {"notes"}, {"image", "tabular"}], ids=joined)
def test_contributions_are_shapley_values_over_all_orders(service, engine, payload, absent):
    """Compares with runs of the engine for each order in which modalities can be added."""
    payload = without(payload, absent)
    arrays = extract_features(as_payload(payload), engine.bundle.manifest.spec).arrays
    worth = {
        frozenset(some): engine.run([{m: arrays[m] for m in some}])[0].fusion
        for some in chain.from_iterable(combinations(arrays, k) for k in range(len(arrays) + 1))
    }
    told = service.predict(payload)["explanation"]["modalities"]
    orders = list(permutations(arrays))
    for modality in arrays:
        for facts in engine.bundle.manifest.tasks:
            gains = [
                worth[frozenset(order[: order.index(modality) + 1])][facts.output]
                - worth[frozenset(order[: order.index(modality)])][facts.output]
                for order in orders
            ]
            mean = np.atleast_1d(np.mean(gains, axis=0, dtype=np.float64))
            expected = mean if facts.column is None else mean[[facts.column]]
            found = [one[modality] for one in by_class(told[facts.task.name]).values()]
            np.testing.assert_allclose(found, expected, atol=2e-6)


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
    found = coalitions((True, False, True, True))
    assert len({tuple(row) for row in found.tolist()}) == 8
    assert not found[0].any()
    assert found[-1].tolist() == [True, False, True, True]
    assert not found[:, 1].any()


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
        np.testing.assert_allclose(beside.coalitions[name], rows, atol=1e-6)
    assert len(alone.coalitions["binary"]) == 2


# ------------------------------------------------------------------------------------ other tasks


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
    worthless = {name: np.full_like(rows, math.nan) for name, rows in outputs.coalitions.items()}
    broken = replace(outputs, coalitions=worthless)
    told = attribution.explain_outputs(broken, engine.bundle.manifest, "default")
    assert told["modalities"] == {}


def test_predictions_are_the_same_with_and_without_an_explanation(service, payload):
    found = [
        service.predict(payload, explain=e)["predictions"] for e in ("none", "default", "full")
    ]
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert numbers(one) == pytest.approx(numbers(same), abs=1e-6)


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


# ---------------------------------------------------------------------------- parts of the request


def found_parts(payload: dict[str, Any], bundle: Bundle) -> tuple[list[Ablation], Any]:
    read = as_payload(payload)
    arrays = extract_features(read, bundle.manifest.spec).arrays
    spec = bundle.manifest.spec
    return ablations(read, arrays, spec, partial(encode_note, spec=spec)), arrays


def cut(payload: dict[str, Any], part: Ablation) -> dict[str, Any]:
    """The request without the part."""
    payload = {**payload}
    fields = part.evidence
    if fields["kind"] == "note":
        number = int(fields["pointers"][0].split("/")[2])
        text = payload["notes"][number]["text"]
        text = text[: fields["start"]] + text[fields["end"] :]
        rest = [{**payload["notes"][number], "text": text}] if text.strip() else []
        payload["notes"] = payload["notes"][:number] + rest + payload["notes"][number + 1 :]
        return payload
    for pointer in fields["pointers"]:
        _, field, name = pointer.split("/")
        if field == "tabular":
            payload["tabular"] = {k: v for k, v in payload["tabular"].items() if k != name}
    gone = {int(p.split("/")[2]) for p in fields["pointers"] if not p.startswith("/tabular")}
    if gone:
        field = fields["pointers"][0].split("/")[1]
        payload[field] = [one for i, one in enumerate(payload[field]) if i not in gone]
    return payload


def test_an_ablation_has_the_features_of_a_request_without_the_part(bundle, payload):
    payload["notes"].append(
        {"kind": "admission", "time": payload["as_of"], "text": "Fever; cough.\nPH 7.2 today. Ill."}
    )
    payload["series"].append({**payload["series"][0], "variable": "loinc:8867-4"})
    found, arrays = found_parts(payload, bundle)
    assert {part.evidence["kind"] for part in found} == {
        "tabular", "series", "treatment", "note", "image",
    }  # fmt: skip
    for part in found:
        expected = extract_features(as_payload(cut(payload, part)), bundle.manifest.spec).arrays
        assert (part.remaining is None) == (part.modality not in expected)
        if part.remaining is not None:
            for name, array in part.remaining.items():
                np.testing.assert_array_equal(array, expected[part.modality][name])
                assert array.dtype == arrays[part.modality][name].dtype


def test_an_ablation_of_the_only_part_removes_the_modality(bundle, payload):
    payload["series"], payload["tabular"] = payload["series"][:1], {"age": 61.0}
    payload["treatments"] = []
    found, _ = found_parts(payload, bundle)
    assert all(part.remaining is None for part in found)
    assert [part.evidence["name"] for part in found][:2] == ["age", "heart_rate"]


def test_input_that_was_not_used_has_no_ablation(bundle, payload):
    payload["tabular"] |= {"age": 300.0, "unit_type": "submarine"}
    payload["series"] = [{**payload["series"][0], "variable": "shoe_size"}]
    payload["treatments"] = [{"name": "leeches", "start": payload["as_of"]}]
    names = {part.evidence["name"] for part in found_parts(payload, bundle)[0]}
    assert not names & {"age", "unit_type", "shoe_size", "leeches"}


TEXTS = {
    "few": ["One. Two; three\nfour", "x" * 500, "  \n Lone. ", "A sentence. " * 200],
    "one long among short": ["Short note. "] * 40 + ["A sentence. " * 500] + ["Another."] * 30,
    "200 alike": ["Patient stable. Plan: continue.\n" * 20] * 200,
    "1,000 short": [f"Note {i}." for i in range(1000)],
    "long with short ends": ["A sentence of many words. " * 30 + "End."] * 20,
    "no sentence": ["word " * 5000] * 3,
    "one character each": ["a"] * 17,
    "of growing length": ["A b. " * i for i in range(1, 60)],
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS.keys())
def test_passages_are_limited_and_cover_all_notes(bundle, payload, texts):
    payload["notes"] = [{**payload["notes"][0], "text": text} for text in texts]
    found, arrays = found_parts(payload, bundle)
    notes = [part for part in found if part.modality == "notes"]
    assert len(notes) <= MAX_PASSAGES
    spans: dict[str, list[tuple[int, int]]] = {}
    for fields in (part.evidence for part in notes):
        for pointer in fields["pointers"]:
            number = int(pointer.split("/")[2])
            whole = (0, len(texts[number]))
            span = (fields["start"], fields["end"]) if "start" in fields else whole
            spans.setdefault(pointer, []).append(span)
    assert len(spans) == len(texts)
    for number, text in enumerate(texts):
        told = spans[f"/notes/{number}/text"]
        assert "".join(text[start:end] for start, end in told) == text
    # An ablation only removes tokens.
    whole = np.bincount(arrays["notes"]["tokens"])
    lost = [
        whole - np.bincount(n.remaining["tokens"], minlength=len(whole))
        for n in notes
        if n.remaining
    ]
    assert all((one >= 0).all() for one in lost)


def test_each_note_is_encoded_once(bundle, payload):
    payload["notes"] = [
        {**payload["notes"][0], "text": f"Note {i}. Stable. " * 20} for i in range(100)
    ]
    read = as_payload(payload)
    spec = bundle.manifest.spec
    texts: list[str] = []

    def encode(text: str) -> EncodedNote:
        texts.append(text)
        return encode_note(text, spec)

    encode = cache(encode)
    arrays = extract_features(read, spec, encode=encode).arrays
    assert ablations(read, arrays, spec, encode)
    assert sorted(texts) == sorted(note.text for note in read.notes)


SAID = [" Fever.", " Gout;", "\nHistory: cardiac: heart failure.", " Cough for days.", "\n\n", "  "]


@given(st.lists(st.sampled_from(SAID), min_size=2, max_size=12), st.data())
def test_removing_a_passage_equals_encoding_the_note_without_it(said, data):
    spec = FeatureSpec.default()
    start = data.draw(st.integers(0, len(said) - 1))
    stop = data.draw(st.integers(start + 1, len(said)))
    text, rest = "".join(said), "".join(said[:start] + said[stop:])
    at = len("".join(said[:start]))
    left = encode_note(text, spec).without(at, at + len("".join(said[start:stop])))
    np.testing.assert_array_equal(np.sort(left), np.sort(encode_note(rest, spec).ids))


def test_negated_terms_stay_negated_when_the_negation_is_removed(bundle):
    spec = FeatureSpec.default()
    text = "The following were not found: gout\nand asthma."
    read = encode_note(text, spec)
    assert set(read.without(0, 35)) < set(read.ids)
    assert not set(read.without(0, 35)) & set(encode_note("and asthma.", spec).ids[:1])


def test_passages_of_a_note_with_markup_point_into_the_sent_text(bundle, payload):
    text = "<p>Fever &amp; cough.</p><p>Septic <b>shock</b>, on pressors.</p>"
    payload["notes"] = [{**payload["notes"][0], "text": text}]
    notes = [p.evidence for p in found_parts(payload, bundle)[0] if p.modality == "notes"]
    assert [text[one["start"] : one["end"]].count("shock") for one in notes].count(1) == 1
    assert len(notes) == 2


def test_the_pointers_of_a_part_are_limited(bundle, payload):
    payload["series"] = [payload["series"][0]] * 1000
    (part,) = [p for p in found_parts(payload, bundle)[0] if p.evidence["name"] == "heart_rate"]
    assert len(part.evidence["pointers"]) == MAX_POINTERS
    assert part.evidence["further_pointers"] == 1000 - MAX_POINTERS


EARLIEST = ["0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00-23:59"]
LATEST = ["9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59+23:59"]
SOMETIME = [*EARLIEST, "0001-01-02T12:00:00.6Z", "0001-01-03T00:00:00-12:00", *LATEST]


@pytest.mark.parametrize("as_of", SOMETIME)
@pytest.mark.parametrize("time", SOMETIME)
def test_every_time_that_is_accepted_gets_an_answer(service, payload, as_of, time):
    late = datetime.fromisoformat(time) > datetime.fromisoformat(as_of)
    payload["as_of"] = as_of
    payload["tabular"]["admitted_at"] = time
    payload["notes"][0]["time"] = payload["images"][0]["time"] = time
    payload["treatments"] = [{"name": "norepinephrine", "start": time, "end": time}]
    payload["treatments"].append({"name": "propofol", "start": time})
    for series in payload["series"]:
        series |= {"times": [time], "values": series["values"][:1]}
    answer = service.client.post("/predict?explain=full", json=payload)
    assert answer.status_code == (422 if late else 200), answer.text
    if not late:
        for one in answer.json()["explanation"]["variables"]:
            for part in one["because"]:
                told = part.get("time") or part.get("since")
                assert told is None or datetime.fromisoformat(told).tzinfo is not None


@pytest.mark.parametrize("hours", [0.0, 5.5, 48.0])
def test_a_time_before_year_1_is_given_in_another_time_zone(hours):
    as_of = datetime.fromisoformat("0001-01-01T05:00:00-12:00")
    told = datetime.fromisoformat(occlusion._hours_before(as_of, hours))
    assert abs((as_of - told).total_seconds() / 3600 - min(hours, 41 - 1 / 60)) < 1 / 60


def test_variables_have_the_values_of_the_model_and_their_contributions(
    service, engine, bundle, payload
):
    answer = service.predict(payload, explain="full")
    Answer.model_validate(answer)
    predictions = {p["task"]: p for p in answer["predictions"]}
    apart = {
        name: abs(p["probability"] - p["prevalence"])
        for name, p in predictions.items()
        if "probability" in p
    }
    told = answer["explanation"]["variables"]
    assert [one["task"] for one in told] == sorted(apart, key=lambda n: -apart[n])[:3]
    found, _ = found_parts(payload, bundle)
    by_pointer = {str(part.evidence["pointers"]): part for part in found}
    for one in told:
        assert 1 <= len(one["because"]) <= attribution.MAX_EVIDENCE
        sizes = [abs(part["contribution"]) for part in one["because"]]
        assert sizes == sorted(sizes, reverse=True)
        for part in one["because"]:
            left = by_pointer[str(part["pointers"])]
            request = cut(payload, left)
            number = service.predict(request, explain="none")["predictions"]
            (less,) = [p["probability"] for p in number if p["task"] == one["task"]]
            lost = predictions[one["task"]]["probability"] - less
            assert part["contribution"] == pytest.approx(lost, abs=1e-5)
    heart_rate = next(p.evidence for p in found if p.evidence["name"] == "heart_rate")
    assert (heart_rate["last"], heart_rate["lowest"], heart_rate["highest"]) == (121.5, 88, 121.5)
    assert heart_rate["time"] == payload["series"][0]["times"][-1]
    creatinine = next(p.evidence for p in found if p.evidence["name"] == "creatinine")
    assert creatinine["unit"] == "mg/dL"
    assert creatinine["last"] == pytest.approx(210 / 88.42, rel=1e-3)


@pytest.mark.parametrize("name", ["obesity", "length_of_stay"])
def test_the_variables_of_any_task_can_be_requested(service, payload, name):
    answer = service.predict(payload, explain="full", task=name)
    (told,) = answer["explanation"]["variables"]
    assert told["task"] == name
    assert told["because"]
    assert all(math.isfinite(part["contribution"]) for part in told["because"])


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"task": "sepsis"}, "needs_full"),
        ({"task": "plague", "explain": "full"}, "unknown_task"),
        ({"task": "discharge_disposition", "explain": "full"}, "unknown_task"),
    ],
)
def test_a_task_without_one_number_is_refused_for_variables(service, payload, parameters, rule):
    answer = service.client.post("/predict", json=payload, params=parameters)
    assert answer.status_code == 422
    assert [(e["parameter"], e["rule"]) for e in answer.json()["errors"]] == [("task", rule)]
    assert "plague" not in answer.text


def test_no_text_of_a_note_is_in_the_answer_or_the_logs(service, payload):
    secret = "Quetzalcoatlus"
    payload["notes"][0]["text"] = f"Fever and cough. {secret} septic shock. Kidney injury."
    answer = service.client.post("/predict?explain=full", json=payload)
    assert answer.status_code == 200
    assert secret not in answer.text
    assert secret not in service.written()
