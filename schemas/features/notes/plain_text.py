"""Conversion of notes to plain text.

Markup (HTML, RTF) is removed and characters are normalised: the ligature in "ﬁbrillation" becomes
"fi" (Unicode NFKC) and soft hyphens are dropped. Most notes need no change.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.features.notes.html import TextPiece, decode_entities, is_markup, parse_markup
from schemas.features.notes.rtf import is_rtf, parse_rtf

_PLAIN_TEXT = re.compile(r"[^\n\t\x20-\x7e]|[<&\\]")
# Characters that NFKC keeps, with their keyboard equivalents.
_KEYBOARD = {
    **dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
    **dict.fromkeys("\u2010\u2011\u2212\ufe63\uff0d", "-"),
    **dict.fromkeys("\x0b\x0c\x85\u2028\u2029", "\n"),
}
_MAX_EXPANSION = 4  # characters


@dataclass(frozen=True)
class PlainText:
    """The plain text of a note, and the offsets of its characters in the source text.

    `offsets`: [characters + 1], ending with the length of the source text. None if the text equals
    the source text.
    """

    text: str
    offsets: npt.NDArray[np.intp] | None = None

    def source_span(self, start: int, stop: int) -> tuple[int, int]:
        """Converts the span [start, stop) to a span of the source text."""
        if self.offsets is None:
            return start, stop
        return int(self.offsets[start]), int(self.offsets[stop])


def to_plain_text(text: str) -> PlainText:
    """Converts a note to plain text, in linear time."""
    if _PLAIN_TEXT.search(text) is None:
        return PlainText(text)
    plain = PlainText(text)
    if is_rtf(text):
        plain = _join(plain, parse_rtf(text))
    # Text that was escaped twice holds tags after the first pass.
    for _ in range(2):
        if is_markup(plain.text):
            plain = _join(plain, parse_markup(plain.text))
        elif "&" in plain.text:
            plain = _join(plain, decode_entities(plain.text))
        else:
            break
    return _normalize_characters(plain)


def _join(before: PlainText, pieces: Iterable[TextPiece]) -> PlainText:
    """Joins the pieces, whose offsets refer to `before`."""
    written = [piece for piece in pieces if piece.text]
    joined = "".join(piece.text for piece in written)
    if joined == before.text:
        return before
    lengths = np.array([len(piece.text) for piece in written], np.intp)
    starts = np.array([piece.start for piece in written], np.intp)
    is_copy = np.array([piece.is_copy for piece in written], np.intp)
    joined_starts = np.cumsum(lengths) - lengths
    within = np.arange(len(joined)) - np.repeat(joined_starts, lengths)
    offsets = np.repeat(starts, lengths) + within * np.repeat(is_copy, lengths)
    return _with_offsets(before, joined, offsets)


def _with_offsets(before: PlainText, text: str, offsets: npt.NDArray[np.intp]) -> PlainText:
    """Combines offsets into `before` with the offsets of `before` into the source text."""
    offsets = np.append(offsets, len(before.text))
    return PlainText(text, offsets if before.offsets is None else before.offsets[offsets])


def _normalize_characters(before: PlainText) -> PlainText:
    """Normalizes each character and removes invisible ones."""
    text = before.text
    # The line break of "\r\n" is the "\n".
    keyboard = _KEYBOARD | {"\r": "" if "\r\n" in text else "\n"}
    plain = {c: keyboard[c] if c in keyboard else _normalize_character(c) for c in set(text)}
    changed = {ord(c): form for c, form in plain.items() if form != c}
    if not changed:
        return before
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    distinct, which = np.unique(codes, return_inverse=True)
    lengths = np.array([len(plain[chr(code)]) for code in distinct.tolist()], np.intp)[which]
    return _with_offsets(before, text.translate(changed), np.repeat(np.arange(len(text)), lengths))


def _normalize_character(character: str) -> str:
    if character in "\n\t":
        return character
    match unicodedata.category(character):
        case "Cc" | "Cf":
            return ""
        case "Cs":
            return "\ufffd"
    form = unicodedata.normalize("NFKC", character)
    # Some characters expand to up to 18. The limit bounds the growth of a text.
    return form if len(form) <= _MAX_EXPANSION else character
