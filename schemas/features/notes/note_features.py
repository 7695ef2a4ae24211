"""Note features: the ids of all notes in the window."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from schemas.features.input_report import InputReport
from schemas.features.notes.encoding import EncodedNote
from schemas.features.notes.plain_text import to_plain_text
from schemas.features.spec import Array, FeatureSpec
from schemas.payload import Payload


def note_features(
    payload: Payload,
    spec: FeatureSpec,
    report: InputReport,
    *,
    read: bool,
    encode: Callable[[str], EncodedNote],
) -> dict[str, Array] | None:
    """Returns the ids of the notes in the window, from old to new, as `encode_note` orders them.

    Notes are never truncated. `read`: if False, the notes are not encoded and the dictionary is
    empty; the receipt is the same. `encode`: encodes one text.
    """
    texts = _window_texts(payload, spec, report)
    if not texts:
        return None
    if not read:
        return {}
    return {"tokens": np.concatenate([encode(text).ids for text in texts])}


def notes_in_window(payload: Payload, spec: FeatureSpec) -> list[int]:
    """Returns the indices of the notes in the window, from old to new. Others have no influence."""
    window = math.inf if spec.note_window_hours is None else spec.note_window_hours
    recent = [i for i in range(len(payload.notes)) if _hours_old(payload, i) < window]
    return sorted(recent, key=lambda i: payload.notes[i].time)


def _hours_old(payload: Payload, index: int) -> float:
    return (payload.as_of - payload.notes[index].time).total_seconds() / 3600


def _window_texts(payload: Payload, spec: FeatureSpec, report: InputReport) -> list[str]:
    """Returns the texts in the window, from old to new, and reports the notes that are not read."""
    inside = notes_in_window(payload, spec)
    for i in sorted(set(range(len(payload.notes))) - set(inside)):
        detail = f"the model reads notes of the last {spec.note_window_hours:g} hours"
        report.add_ignored(f"/notes/{i}", "before_window", detail)
    texts: dict[int, str] = {}
    budget = spec.max_characters - sum(len(payload.notes[i].text) for i in inside)
    for i in inside if budget >= 0 else ():
        texts[i] = to_plain_text(payload.notes[i].text).text
        # A character can expand to several.
        budget -= max(0, len(texts[i]) - len(payload.notes[i].text))
    if budget < 0:
        detail = f"more than {spec.max_characters} characters in all notes together"
        report.add_error("/notes", "text_limit", detail)
        return []
    for i in [i for i, text in texts.items() if not text.strip()]:
        report.add_ignored(f"/notes/{i}/text", "no_text", "holds no text")
        del texts[i]
    _warn(payload, texts, spec, report)
    return list(texts.values())


def _warn(
    payload: Payload, texts: Mapping[int, str], spec: FeatureSpec, report: InputReport
) -> None:
    """Warns of old notes and of notes that are unlike the training notes."""
    old = sum(_hours_old(payload, i) >= spec.window_hours for i in texts)
    if old:
        report.warnings.append(
            f"{old} of {len(texts)} notes are older than {spec.window_hours:g} hours: "
            "the model does not know the age of a note"
        )
    unreadable = sum(map(spec.language_check.is_unreadable, texts.values()))
    if unreadable:
        report.out_of_distribution["notes"] = (
            f"{unreadable} of {len(texts)} notes are unlike the notes that the model was trained "
            "on: few of their words are known"
        )
