"""Encoding of notes: tokens, phrases, negation, chunks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features import (
    FeatureSpec,
    encode_note,
    extract_features,
    split_phrases,
    to_plain_text,
)
from schemas.features.notes.assertions import CODES_OF_A_DISEASE, STATUSES
from schemas.payload import as_payload
from tests.support.inputs.feature_requests import AS_OF, SPEC, at, errors, extract


def test_a_long_note_is_not_truncated():
    words = 20_000
    features = extract(notes=[{"time": at(1), "text": "dyspnoea and fever " * words}])
    assert len(features.arrays["notes"]["tokens"]) > 3 * words


def test_notes_over_the_limit_are_refused():
    texts = [{"time": at(1), "text": "fever " * 100_000}] * 2
    assert errors(notes=texts) == {("/notes", "text_limit")}


def test_notes_are_ordered_from_old_to_new():
    first, second = {"time": at(5), "text": "fever"}, {"time": at(1), "text": "cough"}
    sorted_notes, reversed_notes = extract(notes=[first, second]), extract(notes=[second, first])
    np.testing.assert_array_equal(
        sorted_notes.arrays["notes"]["tokens"], reversed_notes.arrays["notes"]["tokens"]
    )


def test_phrases_include_every_run_of_headings():
    text = "History: cardiac: heart  failure; Gout.\nAsthma"
    assert split_phrases(text, np.zeros(len(text) + 1, dtype=bool)) == [
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
def test_every_id_is_within_the_vocabulary(text):
    if to_plain_text(text).text.strip():
        tokens = extract(notes=[{"time": at(1), "text": text}]).arrays["notes"]["tokens"]
        assert (tokens >= 0).all()
        assert (tokens < SPEC.vocabulary).all()


def tokens_of(text, spec=SPEC):
    payload = as_payload({"as_of": AS_OF, "notes": [{"time": at(1), "text": text}]})
    tokens = extract_features(payload, spec).arrays["notes"]["tokens"]
    return set(tokens.tolist()) - {spec.tokenizer.token_to_id("[SEP]")}


def test_the_tokens_of_a_request_are_the_concatenated_notes():
    texts = ["Pneumonia. No fever.", "History: heart failure: systolic"]
    notes = [{"time": at(2 - i), "text": text} for i, text in enumerate(texts)]
    expected = [token for text in texts for token in encode_note(text, SPEC).ids.tolist()]
    assert extract(notes=notes).arrays["notes"]["tokens"].tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Fever, cough for three days.\n\tNo gout; " * 40, id="prose"),
        pytest.param("x" * 300 + " fever " + "y" * 200, id="words longer than a piece"),
        pytest.param(" \n\t" * 100 + "fever", id="spaces"),
        pytest.param("résumé naïve 胸片 " * 30, id="accents and Chinese"),
    ],
)
def test_chunked_encoding_gives_the_same_ids(text, monkeypatch):
    whole = encode_note(text, SPEC)
    monkeypatch.setattr("schemas.features.notes.encoding._CHUNK_LENGTH", 50)
    pieces = encode_note(text, SPEC)
    for name in ("ids", "first", "last"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))


def test_an_exception_of_the_check_ends_the_extraction(monkeypatch):
    monkeypatch.setattr("schemas.features.notes.encoding._CHUNK_LENGTH", 50)
    calls = []

    def check():
        calls.append(True)
        if len(calls) == 3:
            raise TimeoutError

    payload = as_payload({"as_of": AS_OF, "notes": [{"time": at(1), "text": "fever " * 100}]})
    with pytest.raises(TimeoutError):
        extract_features(payload, SPEC, check=check)


def test_a_negated_word_has_another_id():
    assert tokens_of("gout") <= tokens_of("Asthma; gout")
    assert not tokens_of("gout") & tokens_of("No gout; asthma")
    assert tokens_of("asthma") <= tokens_of("No gout; asthma")


def test_a_phrase_under_a_negated_heading_has_another_id():
    assert not tokens_of("heart failure") & tokens_of("Not found: heart failure")
    assert tokens_of("Not found: heart failure") & tokens_of("Not seen: heart failure")


def test_a_spec_without_negation_ignores_negation():
    facts = SPEC.model_dump(exclude={"denied_apart"}) | {"tokenizer_json": SPEC.tokenizer_json}
    assert tokens_of("gout") <= tokens_of("Not seen: gout", FeatureSpec.model_validate(facts))


def test_phrases_have_separate_ids():
    tokens = extract(notes=[{"time": at(1), "text": "gout"}]).arrays["notes"]["tokens"]
    first = SPEC.tokenizer.get_vocab_size()
    assert ((tokens >= first) & (tokens < first + SPEC.phrases)).sum() == 1


def assertions_of(text, spec=SPEC):
    """The disease, the status, and whether it is evidence only, of each assertion id of a note."""
    ids = encode_note(text, spec).ids
    codes = ids[ids >= spec.first_assertion_id] - spec.first_assertion_id
    return {
        (
            spec.assertions[code // CODES_OF_A_DISEASE],
            STATUSES[code % CODES_OF_A_DISEASE // 2],
            bool(code % 2),
        )
        for code in codes.tolist()
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Pneumonia.", {("pneumonia", "affirmed", False)}),
        ("No evidence of pneumonia.", {("pneumonia", "denied", False)}),
        ("Possible pneumonia.", {("pneumonia", "possible", False)}),
        ("Her mother had diabetes.", {("diabetes", "family", False)}),
        (
            "History of copd.",
            {("copd", "historical", False), ("copd", "affirmed", False)},
        ),
        (
            "On pressors.",
            {("septic_shock", "affirmed", True), ("sepsis", "affirmed", True)},
        ),
        ("Family updated at the bedside.", set()),
    ],
)
def test_each_assertion_of_a_disease_has_an_id_of_its_own(text, expected):
    assert assertions_of(text) == expected


def test_a_spec_without_assertions_encodes_as_before():
    """Bundles that were made before assertions were read keep their inputs."""
    facts = SPEC.model_dump(exclude={"assertions"}) | {"tokenizer_json": SPEC.tokenizer_json}
    former = FeatureSpec.model_validate(facts)
    text = "History: copd. No pneumonia; sepsis improving.\nOn pressors."
    ids, former_ids = encode_note(text, SPEC).ids, encode_note(text, former).ids
    assert former.vocabulary == SPEC.first_assertion_id
    assert former_ids.tolist() == ids[ids < SPEC.first_assertion_id].tolist()
    assert len(ids) > len(former_ids)


def test_a_spec_without_phrases_has_no_assertions():
    """A BERT reads its own tokens only."""
    facts = SPEC.model_dump() | {"tokenizer_json": SPEC.tokenizer_json}
    spec = FeatureSpec.model_validate(facts | {"phrases": 0, "assertions": ()})
    assert encode_note("Pneumonia.", spec).ids.max() < spec.vocabulary
    assert spec.vocabulary == spec.tokenizer.get_vocab_size()


def test_a_note_without_a_passage_has_no_assertions_of_it():
    text = "Pneumonia. Sepsis. Diabetes."
    note = encode_note(text, SPEC)
    rest = note.without(text.index("Sepsis"), text.index("Diabetes"))
    codes = rest[rest >= SPEC.first_assertion_id] - SPEC.first_assertion_id
    diseases = {SPEC.assertions[code // CODES_OF_A_DISEASE] for code in codes.tolist()}
    assert diseases == {"pneumonia", "diabetes"}


def test_an_assertion_that_is_repeated_elsewhere_stays():
    text = "Sepsis. Diabetes. Sepsis."
    rest = encode_note(text, SPEC).without(0, len("Sepsis."))
    codes = rest[rest >= SPEC.first_assertion_id] - SPEC.first_assertion_id
    assert "sepsis" in {SPEC.assertions[code // CODES_OF_A_DISEASE] for code in codes.tolist()}
