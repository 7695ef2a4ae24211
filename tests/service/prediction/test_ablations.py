"""Parts of a request without which occlusion repeats a prediction."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features import EncodedNote, FeatureSpec, encode_note, extract_features
from schemas.payload import as_payload
from service.prediction.explanation.note_passages import MAX_PASSAGES
from service.prediction.explanation.occlusion import MAX_POINTERS, ablations
from tests.service.prediction.request_parts import find_parts, remove_part


def test_an_ablation_has_the_features_of_a_request_without_the_part(bundle, payload):
    payload["notes"].append(
        {"kind": "admission", "time": payload["as_of"], "text": "Fever; cough.\nPH 7.2 today. Ill."}
    )
    payload["series"].append({**payload["series"][0], "variable": "loinc:8867-4"})
    parts, arrays = find_parts(payload, bundle)
    assert {part.part["kind"] for part in parts} == {
        "tabular", "series", "treatment", "note", "image",
    }  # fmt: skip
    for part in parts:
        expected = extract_features(
            as_payload(remove_part(payload, part)), bundle.manifest.spec
        ).arrays
        assert (part.remaining is None) == (part.modality not in expected)
        if part.remaining is not None:
            for name, array in part.remaining.items():
                np.testing.assert_array_equal(array, expected[part.modality][name])
                assert array.dtype == arrays[part.modality][name].dtype


def test_an_ablation_of_the_only_part_removes_the_modality(bundle, payload):
    payload["series"], payload["tabular"] = payload["series"][:1], {"age": 61.0}
    payload["treatments"] = []
    parts, _ = find_parts(payload, bundle)
    assert all(part.remaining is None for part in parts)
    assert [part.part["name"] for part in parts][:2] == ["age", "heart_rate"]


def test_input_that_was_not_used_has_no_ablation(bundle, payload):
    payload["tabular"] |= {"age": 300.0, "unit_type": "submarine"}
    payload["series"] = [{**payload["series"][0], "variable": "shoe_size"}]
    payload["treatments"] = [{"name": "leeches", "start": payload["as_of"]}]
    names = {part.part["name"] for part in find_parts(payload, bundle)[0]}
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
    parts, arrays = find_parts(payload, bundle)
    notes = [part for part in parts if part.modality == "notes"]
    assert len(notes) <= MAX_PASSAGES
    spans: dict[str, list[tuple[int, int]]] = {}
    for fields in (part.part for part in notes):
        for pointer in fields["pointers"]:
            number = int(pointer.split("/")[2])
            whole = (0, len(texts[number]))
            span = (fields["start"], fields["end"]) if "start" in fields else whole
            spans.setdefault(pointer, []).append(span)
    assert len(spans) == len(texts)
    for number, text in enumerate(texts):
        passages = spans[f"/notes/{number}/text"]
        assert "".join(text[start:end] for start, end in passages) == text
    # An ablation only removes tokens.
    whole = np.bincount(arrays["notes"]["tokens"])
    removed_tokens = [
        whole - np.bincount(n.remaining["tokens"], minlength=len(whole))
        for n in notes
        if n.remaining
    ]
    assert all((counts >= 0).all() for counts in removed_tokens)


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


PHRASES = [
    " Fever.",
    " Gout;",
    "\nHistory: cardiac: heart failure.",
    " Cough for days.",
    "\n\n",
    "  ",
]


@given(st.lists(st.sampled_from(PHRASES), min_size=2, max_size=12), st.data())
def test_removing_a_passage_equals_encoding_the_note_without_it(phrases, data):
    spec = FeatureSpec.default()
    start = data.draw(st.integers(0, len(phrases) - 1))
    stop = data.draw(st.integers(start + 1, len(phrases)))
    text, rest = "".join(phrases), "".join(phrases[:start] + phrases[stop:])
    at = len("".join(phrases[:start]))
    left = encode_note(text, spec).without(at, at + len("".join(phrases[start:stop])))
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
    passages = [p.part for p in find_parts(payload, bundle)[0] if p.modality == "notes"]
    assert len(passages) == 2
    counts = [text[passage["start"] : passage["end"]].count("shock") for passage in passages]
    assert counts.count(1) == 1


def test_the_pointers_of_a_part_are_limited(bundle, payload):
    payload["series"] = [payload["series"][0]] * 1000
    (part,) = [p for p in find_parts(payload, bundle)[0] if p.part["name"] == "heart_rate"]
    assert len(part.part["pointers"]) == MAX_POINTERS
    assert part.part["further_pointers"] == 1000 - MAX_POINTERS
