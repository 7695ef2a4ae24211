"""Encoding of a note as ids of its tokens, negated tokens and phrases, with their positions."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from schemas.features.notes.assertions import assertion_codes, find_mentions
from schemas.features.notes.negation import negated_spans
from schemas.features.spec import FeatureSpec
from schemas.features.time_limit import no_time_limit

_SENTENCE_END = re.compile(r"[;\n]+|\.(?:\s+|$)")
_MAX_PHRASE_LENGTH, _MAX_PARTS = 200, 8  # characters; parts between colons
_CHUNK_LENGTH = 20_000  # characters of one tokenizer call, which takes about 20 ms

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedNote:
    """The ids of a note.

    `ids` [L]. `first`, `last` [L]: start offsets of the first and the last mention of an id, in
    characters; -1 for the separator, which is not in the text.
    """

    ids: Integers
    first: Integers
    last: Integers

    def without(self, start: int, stop: int) -> Integers:
        """Returns the ids without mentions in the characters [start, stop).

        The rest is not encoded again, so negated words stay negated.
        """
        return self.ids[(self.first < start) | (self.last >= stop)]


def encode_note(
    text: str, spec: FeatureSpec, check: Callable[[], None] = no_time_limit
) -> EncodedNote:
    """Encodes a note: its tokens, a separator, its negated tokens, phrases and assertions.

    `text`: the result of `to_plain_text`. `check` is called between chunks; an exception that it
    raises ends the encoding.
    """
    ids, words, offsets = _tokenize(text, spec, check)
    separator = spec.tokenizer.token_to_id("[SEP]")
    separators = np.array([] if separator is None else [separator], dtype=np.int64)
    no_offset = np.full_like(separators, -1)
    if not spec.phrases:
        offsets = np.concatenate([offsets, no_offset])
        return EncodedNote(np.concatenate([ids, separators]), offsets, offsets)
    is_negated = np.zeros(len(text) + 1, dtype=np.bool_)
    for start, stop in negated_spans(text) if spec.denied_apart else ():
        is_negated[start:stop] = True
    check()
    token_is_negated = is_negated[offsets]
    phrases = _phrase_mentions(text, is_negated)
    first_id = spec.tokenizer.get_vocab_size()
    hashed = [
        first_id + crc32(phrase.encode()) % spec.phrases
        for phrase in itertools.chain(
            (f"not {words[i]}" for i in np.flatnonzero(token_is_negated).tolist()), phrases
        )
    ]
    starts = np.array([*phrases.values()], dtype=np.int64).reshape(-1, 2)
    asserted, asserted_at = _assertions(text, spec, check)
    token_offsets = [offsets[~token_is_negated], no_offset, offsets[token_is_negated]]
    hashed_ids = np.array(hashed, dtype=np.int64)
    return EncodedNote(
        np.concatenate([ids[~token_is_negated], separators, hashed_ids, asserted]),
        np.concatenate([*token_offsets, starts[:, 0], asserted_at]),
        np.concatenate([*token_offsets, starts[:, 1], asserted_at]),
    )


def _assertions(
    text: str, spec: FeatureSpec, check: Callable[[], None]
) -> tuple[Integers, Integers]:
    """Returns id and start offset of each assertion."""
    if not spec.assertions:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    codes = [*assertion_codes(find_mentions(text, check), spec.assertions)]
    ids = [spec.first_assertion_id + code for code, _ in codes]
    starts = [mention.start for _, mention in codes]
    return np.array(ids, np.int64), np.array(starts, np.int64)


def _tokenize(
    text: str, spec: FeatureSpec, check: Callable[[], None]
) -> tuple[Integers, list[str], Integers]:
    """Returns id, word and start offset of each token."""
    ids: list[int] = []
    words: list[str] = []
    offsets: list[int] = []
    for start, chunk in _split_chunks(text):
        check()
        # encode_batch releases the interpreter lock, which matters for a long chunk.
        is_short = len(chunk) <= _CHUNK_LENGTH
        encode = spec.tokenizer.encode
        encoding = encode(chunk) if is_short else spec.tokenizer.encode_batch([chunk])[0]
        ids += encoding.ids
        words += encoding.tokens if spec.phrases else ()
        offsets += [start + offset for offset, _ in encoding.offsets]
    return np.array(ids, dtype=np.int64), words, np.array(offsets, dtype=np.int64)


def _split_chunks(text: str) -> Iterator[tuple[int, str]]:
    """Yields offset and text of chunks of about _CHUNK_LENGTH characters, cut at white space."""
    start = 0
    while len(text) - start > _CHUNK_LENGTH:
        cut = max(text.rfind(space, start + 1, start + _CHUNK_LENGTH) for space in " \n\t")
        if cut < 0:
            later = (text.find(space, start + _CHUNK_LENGTH) for space in " \n\t")
            cut = min((position for position in later if position >= 0), default=len(text))
        yield start, text[start:cut]
        start = cut
    if text[start:]:
        yield start, text[start:]


def split_phrases(text: str, is_negated: npt.NDArray[np.bool_]) -> list[str]:
    """Returns the distinct phrases of a text in lower case.

    A phrase is the text between full stops, semicolons and line breaks. At colons, as in "history:
    cardiac: heart failure", every run of parts is a phrase, because a form's entry and its headings
    mean more than their single words. Negated phrases begin with "not". `is_negated`: [characters +
    1] whether each character is negated.
    """
    return list(_phrase_mentions(text, is_negated))


def _phrase_mentions(text: str, is_negated: npt.NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    """Returns the start offsets of the first and the last mention of each phrase."""
    mentions: dict[str, tuple[int, int]] = {}
    position = 0
    for end in (*_SENTENCE_END.finditer(text), None):
        sentence = text[position : end.start() if end else None]
        parts: list[str] = []
        starts: list[int] = []
        for part in sentence.split(":"):
            parts.append(" ".join(part.lower().split()))
            starts.append(position + len(part) - len(part.lstrip()))
            position += len(part) + 1
        position = end.end() if end else position
        if len(sentence) > _MAX_PHRASE_LENGTH or len(parts) > _MAX_PARTS:
            continue  # prose, which rarely recurs word for word
        for first, stop in itertools.combinations(range(len(parts) + 1), 2):
            run, start = ": ".join(parts[first:stop]), starts[first]
            if run:
                phrase = f"not {run}" if is_negated[start] else run
                mentions[phrase] = mentions.get(phrase, (start, start))[0], start
    return mentions
