"""The ids of one note: its tokens, its denied tokens and its phrases, and where each stands."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from schemas.features.notes.negation import denied
from schemas.features.spec import FeatureSpec

_SENTENCE_END = re.compile(r"[;\n]+|\.(?:\s+|$)")
_LONGEST_PHRASE, _MOST_HEADINGS = 200, 8  # characters; parts between colons
_PIECE = 20_000  # characters that the tokenizer gets at once: it takes some 20 ms for them

Integers = npt.NDArray[np.int64]


def unlimited() -> None:
    """The check of callers that set no limit to the time of reading."""


@dataclass(frozen=True)
class NoteTokens:
    """`ids` [L]. `first`, `last` [L]: the characters at which an id's first and last mention begin.

    Both are -1 for the separator, which is not in the text.
    """

    ids: Integers
    first: Integers
    last: Integers

    def without(self, start: int, stop: int) -> Integers:
        """The ids if the characters [start, stop) are left out.

        The rest is not read anew: what was denied stays denied.
        """
        return self.ids[(self.first < start) | (self.last >= stop)]


def note_tokens(text: str, spec: FeatureSpec, check: Callable[[], None] = unlimited) -> NoteTokens:
    """One note: its tokens, a separator, its denied tokens and its phrases.

    `text`: of `note_text`. The tokens of a request are those of its notes, from old to new.
    `check` is called now and then; what it raises ends the reading.
    """
    ids, words, places = _encoded(text, spec, check)
    separator = spec.tokenizer.token_to_id("[SEP]")
    separators = np.array([] if separator is None else [separator], dtype=np.int64)
    nowhere = np.full_like(separators, -1)
    if not spec.phrases:
        places = np.concatenate([places, nowhere])
        return NoteTokens(np.concatenate([ids, separators]), places, places)
    is_denied = np.zeros(len(text) + 1, dtype=np.bool_)
    for start, stop in denied(text) if spec.denied_apart else ():
        is_denied[start:stop] = True
    check()
    apart = is_denied[places]
    phrases = _phrases(text, is_denied)
    first_id = spec.vocabulary - spec.phrases
    hashed = [
        first_id + crc32(said.encode()) % spec.phrases
        for said in itertools.chain(
            (f"not {words[i]}" for i in np.flatnonzero(apart).tolist()), phrases
        )
    ]
    mentions = np.array([*phrases.values()], dtype=np.int64).reshape(-1, 2)
    tokens_at = [places[~apart], nowhere, places[apart]]
    return NoteTokens(
        np.concatenate([ids[~apart], separators, np.array(hashed, dtype=np.int64)]),
        np.concatenate([*tokens_at, mentions[:, 0]]),
        np.concatenate([*tokens_at, mentions[:, 1]]),
    )


def _encoded(
    text: str, spec: FeatureSpec, check: Callable[[], None]
) -> tuple[Integers, list[str], Integers]:
    """Id, word and place of each token."""
    ids: list[int] = []
    words: list[str] = []
    places: list[int] = []
    for start, piece in _pieces(text):
        check()
        # Of a batch, the tokenizer lets other threads go on meanwhile.
        short = len(piece) <= _PIECE
        one = spec.tokenizer.encode(piece) if short else spec.tokenizer.encode_batch([piece])[0]
        ids += one.ids
        words += one.tokens if spec.phrases else ()
        places += [start + begins for begins, _ in one.offsets]
    return np.array(ids, dtype=np.int64), words, np.array(places, dtype=np.int64)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Pieces of about _PIECE characters, and where each begins. No token reaches over a space."""
    start = 0
    while len(text) - start > _PIECE:
        cut = max(text.rfind(space, start + 1, start + _PIECE) for space in " \n\t")
        if cut < 0:
            later = (text.find(space, start + _PIECE) for space in " \n\t")
            cut = min((at for at in later if at >= 0), default=len(text))
        yield start, text[start:cut]
        start = cut
    if text[start:]:
        yield start, text[start:]


def phrases_of(text: str, is_denied: npt.NDArray[np.bool_]) -> list[str]:
    """What stands between full stops, semicolons and line breaks, in lower case, each once.

    Of "history: cardiac: heart failure" each run of its parts, too: what a form calls a thing, and
    the headings that it stands under, mean more than their single words. A run that begins where
    the text is denied begins with "not". `is_denied` [characters + 1].
    """
    return list(_phrases(text, is_denied))


def _phrases(text: str, is_denied: npt.NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    """Each of the phrases, and where its first and its last mention begin."""
    found: dict[str, tuple[int, int]] = {}
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
            run, begins = ": ".join(parts[start:stop]), beginnings[start]
            if run:
                said = f"not {run}" if is_denied[begins] else run
                found[said] = found.get(said, (begins, begins))[0], begins
    return found
