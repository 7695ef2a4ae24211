"""Note features: the window, limits, and the entries of the receipt."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from schemas.features import FeatureSpec, extract_features
from schemas.payload import InvalidPayload, as_payload

SPEC = FeatureSpec.default()
AS_OF = datetime(2026, 11, 23, 10, tzinfo=UTC)
CHINESE = "患者72岁。发热。咳嗽。低血压。诊断肺炎、脓毒症休克。既往慢性阻塞性肺病。"
OLDER = "the model does not know the age of a note"


def note(hours_before, text="Pneumonia."):
    return {"time": AS_OF - timedelta(hours=hours_before), "text": text}


def read(*notes, spec=SPEC, known=()):
    return extract_features(as_payload({"as_of": AS_OF, "notes": list(notes)}), spec, known)


@pytest.mark.parametrize("known", [(), ("notes",)], ids=["read", "known"])
def test_notes_before_the_window_are_ignored_and_reported(known):
    features = read(note(720), note(1, "Gout."), note(24 * 365 * 26, "COPD."), known=known)
    ignored = {(entry.pointer, entry.reason) for entry in features.receipt.ignored}
    assert ignored == {("/notes/0", "before_window"), ("/notes/2", "before_window")}
    assert features.receipt.warnings == ()
    if not known:
        alone = read(note(1, "Gout.")).arrays["notes"]["tokens"]
        np.testing.assert_array_equal(features.arrays["notes"]["tokens"], alone)


def test_notes_count_as_absent_if_all_are_before_the_window():
    features = read(note(9000), known=("notes",))
    assert features.arrays == {}
    assert features.receipt.modalities["notes"].status == "absent"


def test_notes_before_the_window_do_not_count_towards_the_limit():
    spec = SPEC.model_copy(update={"max_characters": 20})
    assert "notes" in read(note(9000, "Gout. " * 9), note(1), spec=spec).arrays


@pytest.mark.parametrize("known", [(), ("notes",)], ids=["read", "known"])
def test_notes_older_than_the_series_window_give_a_warning(known):
    features = read(note(719), note(48), note(47), known=known)
    assert features.receipt.ignored == ()
    assert features.receipt.warnings == (f"2 of 3 notes are older than 48 hours: {OLDER}",)
    assert read(note(47), known=known).receipt.warnings == ()


def test_without_a_window_every_note_is_read():
    spec = SPEC.model_copy(update={"note_window_hours": None})
    features = read(note(24 * 365 * 1000), spec=spec)
    assert "notes" in features.arrays
    assert features.receipt.ignored == ()


@pytest.mark.parametrize("known", [(), ("notes",)], ids=["read", "known"])
def test_notes_without_text_are_ignored_and_reported(known):
    features = read(note(1, "<p>&nbsp;</p>"), note(2, r"{\rtf1\ansi }"), known=known)
    assert "notes" not in features.arrays
    reasons = {(entry.pointer, entry.reason) for entry in features.receipt.ignored}
    assert reasons == {("/notes/0/text", "no_text"), ("/notes/1/text", "no_text")}


def test_expanded_characters_count_towards_the_limit():
    spec = SPEC.model_copy(update={"max_characters": 40})
    with pytest.raises(InvalidPayload) as caught:
        read(note(1, "\u2167" * 20), spec=spec)
    assert [error.rule for error in caught.value.errors] == ["text_limit"]


@pytest.mark.parametrize("known", [(), ("notes",)], ids=["read", "known"])
def test_unreadable_notes_are_marked_and_give_a_warning(known):
    features = read(note(1, CHINESE), note(2), known=known)
    assert features.receipt.modalities["notes"].unusual == 1.0
    unlike = "unlike the notes that the model was trained on: few of their words are known"
    assert features.receipt.warnings == (f"1 of 2 notes are {unlike}",)
    usual = read(note(1), known=known).receipt
    assert usual.modalities["notes"].unusual is None
    assert usual.warnings == ()
