"""Assertions in notes: which diseases a note affirms, denies, suspects, or places in the past."""

import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features.notes.assertions import (
    CODES_OF_A_DISEASE,
    STATUSES,
    Mention,
    assertion_codes,
    find_mentions,
)
from schemas.features.notes.concepts import expand, load_concepts
from schemas.tasks import load_tasks


def read_cases():
    r"""Yields a text and its mentions, which follow the last tab. `\n` is a line break."""
    for line in (Path(__file__).parent / "assertions.tsv").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            text, _, mentions = line.replace(r"\n", "\n").rpartition("\t")
            yield text, set(mentions.split(" | ")) if mentions else set()


CASES = list(read_cases())
# Sentences that do not change the context of the next sentence.
CLOSED = [text for text, _ in CASES if text.endswith(".") and ":" not in text]


def described(text):
    return {
        f"{mention.disease} {mention.status}{'~' if mention.suggestive else ''}"
        for mention in find_mentions(text)
    }


@pytest.mark.parametrize(("text", "mentions"), CASES, ids=[text for text, _ in CASES])
def test_the_listed_texts_have_the_listed_mentions(text, mentions):
    assert described(text) == mentions


def test_the_listed_texts_cover_every_disease_and_every_status():
    mentions = Counter(mention for _, listed in CASES for mention in listed)
    for disease in load_concepts():
        assert mentions[f"{disease} affirmed"] >= 2, disease
        assert sum(mentions[f"{disease} {status}"] for status in STATUSES[1:]) >= 1, disease
    for status in STATUSES:
        assert sum(count for name, count in mentions.items() if f" {status}" in name) >= 15


def test_the_vocabulary_has_the_diseases_of_the_tasks_and_mortality():
    diseases = [task.name for task in load_tasks() if task.is_disease]
    assert [*load_concepts()] == [*diseases, "in_hospital_mortality"]
    assert all(concept.past_of in {None, *load_concepts()} for concept in load_concepts().values())


def test_the_display_name_of_every_disease_mentions_it():
    # "X or Y", "X or Y disease" and "X or Y disorder" are headings of two names.
    for task in load_tasks():
        if task.is_disease and " or " not in task.display:
            assert f"{task.name} affirmed" in described(task.display), task.display


@pytest.mark.parametrize(
    ("pattern", "terms"),
    [
        ("sepsis", {"sepsis"}),
        ("{a|b} c", {"a c", "b c"}),
        ("{deep |}vein", {"deep vein", "vein"}),
        ("{a {b|c}|d} e", {"a b e", "a c e", "d e"}),
    ],
)
def test_a_choice_stands_for_all_its_terms(pattern, terms):
    assert set(expand(pattern)) == terms


@pytest.mark.parametrize("space", [" ", "  ", "-", "\n", "\t", " \n "])
def test_the_words_of_a_name_may_have_any_space_between_them(space):
    text = f"Now with septic{space}shock."
    mentions = [m for m in find_mentions(text) if m.disease == "septic_shock"]
    assert [text[m.start : m.stop] for m in mentions] == [f"septic{space}shock"]


@pytest.mark.parametrize("text", ["septic.\n\nShock", "septic\n- shock", "septic\n2. shock"])
def test_a_name_does_not_extend_over_paragraphs_and_list_items(text):
    assert "septic_shock affirmed" not in described(text)


@pytest.mark.parametrize(
    "text", ["pe", "mi", "the cap", "as soon", "all of them", "a hit", "mr smith", "is in pain"]
)
def test_words_in_lower_case_are_no_abbreviations(text):
    assert find_mentions(text) == []


def test_the_longest_name_counts_and_overlapping_names_count_once():
    text = "acute on chronic systolic heart failure"
    assert [text[m.start : m.stop] for m in find_mentions(text)] == ["systolic heart failure"]
    text = "type 2 diabetes mellitus"
    assert [text[m.start : m.stop] for m in find_mentions(text)] == [text]


def test_a_denied_subset_does_not_deny_its_superset():
    assert described("Not in septic shock.") == {"septic_shock denied"}
    assert described("Septic shock.") == {"septic_shock affirmed", "sepsis affirmed"}


def codes(mentions, diseases):
    """The assertions by disease and status, with ~ for mere evidence."""
    names = [f"{disease} {status}" for disease in diseases for status in STATUSES]
    found = {code for code, _ in assertion_codes(mentions, diseases)}
    return {names[code // 2] + "~" * (code % 2) for code in found}


def test_codes_are_in_the_order_of_diseases_and_statuses_and_others_have_none():
    mentions = [
        Mention("sepsis", 0, 1, "affirmed", suggestive=True),
        Mention("sepsis", 2, 3, "denied", suggestive=False),
        Mention("copd", 4, 5, "family", suggestive=False),
        Mention("asthma", 6, 7, "possible", suggestive=False),
    ]
    assert codes(mentions, ["copd", "sepsis"]) == {
        "copd family",
        "sepsis affirmed~",
        "sepsis denied",
    }
    first, last = mentions[2], Mention("sepsis", 0, 1, STATUSES[-1], suggestive=True)
    assert [code for code, _ in assertion_codes([first], ["copd"])] == [8]
    assert [code for code, _ in assertion_codes([last], ["copd", "sepsis"])] == [
        2 * CODES_OF_A_DISEASE - 1
    ]


def test_a_history_counts_as_present_for_chronic_diseases_only():
    mentions = find_mentions("Past medical history: COPD, stroke.")
    assert codes(mentions, ["copd", "stroke_or_tia"]) == {
        "copd historical",
        "copd affirmed",
        "stroke_or_tia historical",
    }


def shifted(mentions, by):
    return [(m.disease, m.start + by, m.stop + by, m.status, m.suggestive) for m in mentions]


@given(st.lists(st.sampled_from(CLOSED), min_size=1, max_size=6))
def test_paragraphs_do_not_influence_each_other(paragraphs):
    expected, position = [], 0
    for paragraph in paragraphs:
        expected += shifted(find_mentions(paragraph), position)
        position += len(paragraph) + 2
    assert shifted(find_mentions("\n\n".join(paragraphs)), 0) == expected


@given(
    st.sampled_from(CASES),
    st.sampled_from(["Plan discussed with the team.", "Family updated.", "Comfortable, afebrile."]),
)
def test_a_neutral_sentence_changes_no_mention(case, neutral):
    text, mentions = case
    assert described(f"{neutral}\n\n{text}") == mentions
    assert described(f"{text}\n\n{neutral}") == mentions


_PARTS = [
    *("no ", "h/o ", "possible ", "r/o ", "mother has ", "PMH: ", "COPD", "septic shock", "MI"),
    *("resolved", ", ", ". ", "; ", "\n", "\n\n", "(", ")", "?", ":", " and ", " vs ", "- ", "of "),
]


@given(st.lists(st.sampled_from(_PARTS)).map("".join))
def test_mentions_are_ordered_and_do_not_overlap_within_a_disease(text):
    mentions = find_mentions(text)
    assert mentions == sorted(mentions, key=lambda m: (m.start, m.stop, m.disease))
    stops = Counter()
    for mention in mentions:
        assert 0 <= mention.start < mention.stop <= len(text)
        assert mention.start >= stops[mention.disease]
        assert mention.status in STATUSES
        stops[mention.disease] = mention.stop


def count_lines(text):
    """Returns the number of executed lines of Python."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        find_mentions(text)
    finally:
        sys.settrace(before)
    return lines


ADVERSARIAL = [
    *("pneumonia ", "possible copd, ", "h/o ", "h/o copd ", "(h/o copd ", ") copd ", "copd vs "),
    *("mother and ", "past ", "history of ", "copd? ", "?", "(", "\n", "\n copd", "PMH: copd\n"),
    *("copd, resolved ", "no copd ", "acute on chronic ", "type 2 ", "; AS", "- copd\n", "(2004 "),
    *("DVT prophylaxis, ", "copd" + " " * 99, "copd (mother, ", "a: copd\n", "cannot be entirely "),
]


@pytest.mark.parametrize("part", ADVERSARIAL)
def test_the_number_of_steps_is_linear_in_the_length(part):
    find_mentions("copd")  # builds the vocabulary
    once, twice = (count_lines(part * (length // len(part))) for length in (3_000, 6_000))
    assert twice < 2.5 * once + 500


@pytest.mark.parametrize("part", ADVERSARIAL)
def test_the_time_is_linear_in_the_length(part):
    text = part * (100_000 // len(part))
    started = time.process_time()
    find_mentions(text)
    assert time.process_time() - started < 4  # quadratic time would take minutes


@pytest.mark.parametrize("text", ["copd " * 40_000, "possible copd, " * 10_000, "word " * 40_000])
def test_the_search_can_be_ended_at_any_time(text):
    calls = 0

    def check():
        nonlocal calls
        calls += 1
        if calls == 4:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        find_mentions(text, check)
