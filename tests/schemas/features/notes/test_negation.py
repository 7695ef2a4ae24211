"""Negation detection: which parts of a note are negated."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features.notes.negation import negated_spans


def negated(text):
    return [text[start:stop].strip() for start, stop in negated_spans(text)]


def cases():
    r"""Yields a text and its negated parts, which follow the last tab and are separated by bars."""
    for line in (Path(__file__).parent / "negations.tsv").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            text, _, parts = line.replace(r"\n", "\n").rpartition("\t")
            yield pytest.param(
                text.replace(r"\t", "\t"), parts.split(" | ") if parts else [], id=text
            )


@pytest.mark.parametrize(("text", "parts"), list(cases()))
def test_the_listed_negations_are_detected(text, parts):
    assert negated(text) == parts


@pytest.mark.parametrize(
    "part",
    [
        *(
            "no ",
            "not not ",
            "no\n",
            "\n",
            " ",
            "(",
            ")",
            "(no ",
            "no (",
            "not seen)",
            ":",
            "no a: ",
        ),
        *("no a, ", ", a", "denies:\n- ", "no evidence to ", "cannot be ", "? no ", "\tno", "-- "),
        *("(-)", "not" + " " * 9, "not" + " " * 99, "a not seen", "(a not seen)", "and ", "is "),
    ],
)
@pytest.mark.parametrize("before", ["", "no ", "(" * 1000])
def test_the_time_is_linear_in_the_length(before, part):
    text = before + part * (200_000 // len(part))
    started = time.process_time()
    negated_spans(text)
    assert time.process_time() - started < 4  # quadratic time would take minutes


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("No pneumonia on chest film", ["pneumonia on chest film"]),
        ("Denies fever, chills or cough.", ["fever, chills or cough"]),
        ("negative for deep vein thrombosis", ["deep vein thrombosis"]),
        ("Not found: gout, leg pain. Asthma.", ["gout, leg pain"]),
        ("There is no effusion. The heart is not enlarged.", ["effusion", "enlarged"]),
        ("WITHOUT  evidence OF sepsis", ["evidence OF sepsis"]),
    ],
)
def test_a_cue_negates_the_text_after_it(text, parts):
    assert negated(text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Pneumonia was ruled out by CT.", ["Pneumonia"]),
        ("Fever, effusion absent; gout", ["effusion"]),
        ("Edema: absent", ["Edema"]),
        ("Blood cultures negative\nUrine: red", ["Blood cultures"]),
        ("A fracture is not seen", ["A fracture"]),
    ],
)
def test_some_cues_negate_the_text_before_them(text, parts):
    assert negated(text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("no fever but dyspnea", ["fever"]),
        ("Denies cough, reports chest pain", ["cough"]),
        ("acute MI (no ST elevation) with shock", ["ST elevation"]),
        ("no fever; gout", ["fever"]),
        ("No fever. Gout", ["fever"]),
        ("No fever\nGout", ["fever"]),
        ("No evidence of\npneumonia. Gout", ["evidence of\npneumonia"]),
        ("no pH below 7.2 today", ["pH below 7.2 today"]),
    ],
)
def test_a_negation_ends_with_its_sentence_or_clause(text, parts):
    assert negated(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "no change in pneumonia",
        "Pneumonia cannot be excluded",
        "gram negative rods",
        "not only asthma",
        "arrest with or without intubation",
        "absent pulses",
        "nothing of note, knotty, piano",
        "",
    ],
)
def test_pseudo_cues_negate_nothing(text):
    assert negated_spans(text) == []


@given(
    st.lists(st.sampled_from(["no", "not", "found", ":", ".", ",", "\n", " ", "but", "Gout"])).map(
        "".join
    )
)
def test_spans_are_ordered_and_do_not_overlap(text):
    spans = negated_spans(text)
    flat = [at for span in spans for at in span]
    assert flat == sorted(flat)
    assert all(0 <= start < stop <= len(text) for start, stop in spans)
