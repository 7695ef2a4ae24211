"""Which notes are read, and what the receipt says of them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from schemas.features import FeatureSpec, features
from schemas.payload import InvalidPayload, as_payload

SPEC = FeatureSpec.default()
AS_OF = datetime(2026, 11, 23, 10, tzinfo=UTC)
CHINESE = "患者72岁。发热。咳嗽。低血压。诊断肺炎、脓毒症休克。既往慢性阻塞性肺病。"
OLDER = "the model does not know how old a note is"


def note(hours_before, text="Pneumonia."):
    return {"time": AS_OF - timedelta(hours=hours_before), "text": text}


def read(*notes, spec=SPEC, known=()):
    return features(as_payload({"as_of": AS_OF, "notes": list(notes)}), spec, known)


@pytest.mark.parametrize("known", [(), ("notes",)], ids=["read", "known"])
def test_a_note_before_the_window_is_not_read_and_the_receipt_says_so(known):
    found = read(note(720), note(1, "Gout."), note(24 * 365 * 26, "COPD."), known=known)
    ignored = {(entry.pointer, entry.reason) for entry in found.receipt.ignored}
    assert ignored == {("/notes/0", "before_window"), ("/notes/2", "before_window")}
    assert found.receipt.warnings == ()
    if not known:
        alone = read(note(1, "Gout.")).arrays["notes"]["tokens"]
        np.testing.assert_array_equal(found.arrays["notes"]["tokens"], alone)


def test_notes_that_are_all_before_the_window_are_absent():
    found = read(note(9000), known=("notes",))
    assert found.arrays == {}
    assert found.receipt.modalities["notes"].status == "absent"


def test_old_notes_do_not_count_for_the_limit_of_characters():
    spec = SPEC.model_copy(update={"max_characters": 20})
    assert "notes" in read(note(9000, "Gout. " * 9), note(1), spec=spec).arrays


@pytest.mark.parametrize("known", [(), ("notes",)], ids=["read", "known"])
def test_the_receipt_warns_that_the_age_of_an_older_note_is_not_known_to_the_model(known):
    found = read(note(719), note(48), note(47), known=known)
    assert found.receipt.ignored == ()
    assert found.receipt.warnings == (f"2 of 3 notes are older than 48 hours: {OLDER}",)
    assert read(note(47), known=known).receipt.warnings == ()


def test_without_a_window_every_note_is_read():
    spec = SPEC.model_copy(update={"note_window_hours": None})
    found = read(note(24 * 365 * 1000), spec=spec)
    assert "notes" in found.arrays
    assert found.receipt.ignored == ()


@pytest.mark.parametrize("known", [(), ("notes",)], ids=["read", "known"])
def test_a_note_without_text_in_its_markup_is_not_read_and_the_receipt_says_so(known):
    found = read(note(1, "<p>&nbsp;</p>"), note(2, r"{\rtf1\ansi }"), known=known)
    assert "notes" not in found.arrays
    reasons = {(entry.pointer, entry.reason) for entry in found.receipt.ignored}
    assert reasons == {("/notes/0/text", "no_text"), ("/notes/1/text", "no_text")}


def test_characters_that_stand_for_several_count_for_as_many():
    spec = SPEC.model_copy(update={"max_characters": 40})
    with pytest.raises(InvalidPayload) as caught:
        read(note(1, "\u2167" * 20), spec=spec)
    assert [error.rule for error in caught.value.errors] == ["text_limit"]


@pytest.mark.parametrize("known", [(), ("notes",)], ids=["read", "known"])
def test_notes_of_which_few_words_are_known_are_marked_and_warned_of(known):
    found = read(note(1, CHINESE), note(2), known=known)
    assert found.receipt.modalities["notes"].unusual == 1.0
    unlike = "unlike the notes that the model was trained on: few of their words are known"
    assert found.receipt.warnings == (f"1 of 2 notes are {unlike}",)
    usual = read(note(1), known=known).receipt
    assert usual.modalities["notes"].unusual is None
    assert usual.warnings == ()
