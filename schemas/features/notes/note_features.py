"""Note features: the tokens and phrases of all notes."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from schemas.features.input_report import Ledger
from schemas.features.notes.encoding import NoteTokens
from schemas.features.notes.plain_text import note_text
from schemas.features.spec import Array, FeatureSpec
from schemas.payload import Payload


def note_features(
    payload: Payload,
    spec: FeatureSpec,
    ledger: Ledger,
    *,
    read: bool,
    encode: Callable[[str], NoteTokens],
) -> dict[str, Array] | None:
    """Tokens of the notes that are read, from old to new, each with a separator and its phrases.

    Nothing is cut. A token that is denied stands among the phrases, as "not" and the token.
    `read` False: an empty dictionary in place of the tokens, and the same receipt. `encode`: as
    `note_tokens` does.
    """
    texts = _texts(payload, spec, ledger)
    if not texts:
        return None
    if not read:
        return {}
    return {"tokens": np.concatenate([encode(text).ids for text in texts])}


def notes_in_window(payload: Payload, spec: FeatureSpec) -> list[int]:
    """Indices of the notes that are read, from old to new: others have no influence."""
    window = math.inf if spec.note_window_hours is None else spec.note_window_hours
    recent = [i for i in range(len(payload.notes)) if _hours_old(payload, i) < window]
    return sorted(recent, key=lambda i: payload.notes[i].time)


def _hours_old(payload: Payload, index: int) -> float:
    return (payload.as_of - payload.notes[index].time).total_seconds() / 3600


def _texts(payload: Payload, spec: FeatureSpec, ledger: Ledger) -> list[str]:
    """The text of each note that is read, from old to new, and the receipt of all."""
    inside = notes_in_window(payload, spec)
    for i in sorted(set(range(len(payload.notes))) - set(inside)):
        detail = f"the model reads notes of the last {spec.note_window_hours:g} hours"
        ledger.ignore(f"/notes/{i}", "before_window", detail)
    texts: dict[int, str] = {}
    room = spec.max_characters - sum(len(payload.notes[i].text) for i in inside)
    for i in inside if room >= 0 else ():
        texts[i] = note_text(payload.notes[i].text).text
        # A character may stand for several.
        room -= max(0, len(texts[i]) - len(payload.notes[i].text))
    if room < 0:
        detail = f"more than {spec.max_characters} characters in all notes together"
        ledger.fail("/notes", "text_limit", detail)
        return []
    for i in [i for i, text in texts.items() if not text.strip()]:
        ledger.ignore(f"/notes/{i}/text", "no_text", "holds no text that can be read")
        del texts[i]
    _warn(payload, texts, spec, ledger)
    return list(texts.values())


def _warn(payload: Payload, texts: Mapping[int, str], spec: FeatureSpec, ledger: Ledger) -> None:
    """Warnings of what the model cannot know: how old a note is, and words of other languages."""
    old = sum(_hours_old(payload, i) >= spec.window_hours for i in texts)
    if old:
        ledger.warnings.append(
            f"{old} of {len(texts)} notes are older than {spec.window_hours:g} hours: "
            "the model does not know how old a note is"
        )
    unlike = sum(map(spec.word_check.unlike, texts.values()))
    if unlike:
        ledger.unlike["notes"] = (
            f"{unlike} of {len(texts)} notes are unlike the notes that the model was trained on: "
            "few of their words are known"
        )
