"""Note features: the tokens and phrases of all notes."""

import itertools
import math
import re
from zlib import crc32

import numpy as np
import numpy.typing as npt

from schemas.features.ledger import Ledger
from schemas.features.note_text import note_text
from schemas.features.spec import Array, FeatureSpec
from schemas.negation import denied
from schemas.payload import Payload

_SENTENCE_END = re.compile(r"[;\n]+|\.(?:\s+|$)")
_LONGEST_PHRASE, _MOST_HEADINGS = 200, 8  # characters; parts between colons


def note_features(
    payload: Payload, spec: FeatureSpec, ledger: Ledger, *, read: bool
) -> dict[str, Array] | None:
    """Tokens of the notes that are read, from old to new, each with a separator and its phrases.

    Nothing is cut. A token that is denied stands among the phrases, as "not" and the token.
    `read` False: an empty dictionary in place of the tokens, and the same receipt.
    """
    texts = _texts(payload, spec, ledger)
    if not texts:
        return None
    if not read:
        return {}
    tokens = [token for text in texts for token in note_tokens(text, spec)]
    return {"tokens": np.array(tokens, dtype=np.int64)}


def notes_in_window(payload: Payload, spec: FeatureSpec) -> list[int]:
    """Indices of the notes that are read, from old to new: others have no influence."""
    window = math.inf if spec.note_window_hours is None else spec.note_window_hours
    recent = [i for i in range(len(payload.notes)) if _hours_old(payload, i) < window]
    return sorted(recent, key=lambda i: payload.notes[i].time)


def _hours_old(payload: Payload, index: int) -> float:
    return (payload.as_of - payload.notes[index].time).total_seconds() / 3600


def _texts(payload: Payload, spec: FeatureSpec, ledger: Ledger) -> list[str]:
    """The text of each note that is read, from old to new, and the receipt of the others."""
    inside = notes_in_window(payload, spec)
    if sum(len(payload.notes[i].text) for i in inside) > spec.max_characters:
        detail = f"more than {spec.max_characters} characters in all notes together"
        ledger.fail("/notes", "text_limit", detail)
        return []
    for i in sorted(set(range(len(payload.notes))) - set(inside)):
        detail = f"the model reads notes of the last {spec.note_window_hours:g} hours"
        ledger.ignore(f"/notes/{i}", "before_window", detail)
    texts: list[str] = []
    old = 0
    for i in inside:
        text = note_text(payload.notes[i].text).text
        if text.strip():
            texts.append(text)
            old += _hours_old(payload, i) >= spec.window_hours
        else:
            ledger.ignore(f"/notes/{i}/text", "no_text", "holds no text that can be read")
    if old:
        ledger.warnings.append(
            f"{old} of {len(texts)} notes are older than {spec.window_hours:g} hours: "
            "the model does not know how old a note is"
        )
    return texts


def note_tokens(text: str, spec: FeatureSpec) -> list[int]:
    """Ids of one note: its tokens, a separator, its denied tokens and its phrases.

    `text`: of `note_text`. The tokens of a request are those of its notes, from old to new.
    """
    encoded = spec.tokenizer.encode(text)
    separator = spec.tokenizer.token_to_id("[SEP]")
    ids: list[int] = encoded.ids
    apart: list[str] = []
    if spec.phrases:
        is_denied = np.zeros(len(text) + 1, dtype=np.bool_)
        for start, stop in denied(text) if spec.denied_apart else ():
            is_denied[start:stop] = True
        affirmed = [not is_denied[start] for start, _ in encoded.offsets]
        ids = list(itertools.compress(ids, affirmed))
        apart = [f"not {t}" for t, said in zip(encoded.tokens, affirmed, strict=True) if not said]
        apart += phrases_of(text, is_denied)
    first = spec.vocabulary - spec.phrases
    hashed = [first + crc32(words.encode()) % spec.phrases for words in apart]
    return [*ids, *([] if separator is None else [separator]), *hashed]


def phrases_of(text: str, is_denied: npt.NDArray[np.bool_]) -> list[str]:
    """What stands between full stops, semicolons and line breaks, in lower case, each once.

    Of "history: cardiac: heart failure" each run of its parts, too: what a form calls a thing, and
    the headings that it stands under, mean more than their single words. A run that begins where
    the text is denied begins with "not". `is_denied` [characters + 1].
    """
    found: dict[str, None] = {}
    at = 0
    for end in (*_SENTENCE_END.finditer(text), None):
        sentence = text[at : end.start() if end else None]
        parts: list[str] = []
        beginnings: list[int] = []
        for part in sentence.split(":"):
            parts.append(" ".join(part.lower().split()))
            beginnings.append(at + len(part) - len(part.lstrip()))
            at += len(part) + 1
        at = end.end() if end else at
        if len(sentence) > _LONGEST_PHRASE or len(parts) > _MOST_HEADINGS:
            continue  # prose, which nobody says twice
        for start, stop in itertools.combinations(range(len(parts) + 1), 2):
            run = ": ".join(parts[start:stop])
            if run:
                found[f"not {run}" if is_denied[beginnings[start]] else run] = None
    return list(found)
