"""The text of a note: markup taken away, and each character in its plain form.

"ﬁbrillation" is "fibrillation" (Unicode NFKC), a soft hyphen is nothing, and a paragraph of HTML or
RTF reads as the same paragraph without. Most notes have none of this and stay as they are.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.features.notes.html import Piece, entities, is_markup, markup
from schemas.features.notes.rtf import is_rtf, rtf

_PLAIN_TEXT = re.compile(r"[^\n\t\x20-\x7e]|[<&\\]")
# What NFKC leaves, and a keyboard writes in another way.
_TYPED = {
    **dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
    **dict.fromkeys("\u2010\u2011\u2212\ufe63\uff0d", "-"),
    **dict.fromkeys("\x0b\x0c\x85\u2028\u2029", "\n"),
}
_LONGEST_FORM = 4


@dataclass(frozen=True)
class NoteText:
    """A note's text, and where its characters stand in the text as it was sent.

    `places`: [characters + 1], the last of them the length as sent; None: where they stand here.
    """

    text: str
    places: npt.NDArray[np.intp] | None = None

    def as_sent(self, start: int, stop: int) -> tuple[int, int]:
        """[start, stop) in the text as it was sent."""
        if self.places is None:
            return start, stop
        return int(self.places[start]), int(self.places[stop])


def note_text(text: str) -> NoteText:
    """The plain text of a note as it was sent. Takes time in proportion to its length."""
    if _PLAIN_TEXT.search(text) is None:
        return NoteText(text)
    plain = NoteText(text)
    if is_rtf(text):
        plain = _joined(plain, rtf(text))
    # What was escaped twice has tags once it is read.
    for _ in range(2):
        if is_markup(plain.text):
            plain = _joined(plain, markup(plain.text))
        elif "&" in plain.text:
            plain = _joined(plain, entities(plain.text))
        else:
            break
    return _plain_characters(plain)


def _joined(before: NoteText, pieces: Iterable[Piece]) -> NoteText:
    """The pieces as one text, whose places are those of the text that they were taken from."""
    written = [piece for piece in pieces if piece[0]]
    texts = [text for text, _, _ in written]
    joined = "".join(texts)
    if joined == before.text:
        return before
    lengths = np.fromiter(map(len, texts), np.intp, len(texts))
    starts = np.fromiter((start for _, start, _ in written), np.intp, len(texts))
    copied = np.fromiter((copied for _, _, copied in written), np.intp, len(texts))
    begins = np.cumsum(lengths) - lengths
    within = np.arange(len(joined)) - np.repeat(begins, lengths)
    places = np.repeat(starts, lengths) + within * np.repeat(copied, lengths)
    return _placed(before, joined, places)


def _placed(before: NoteText, text: str, places: npt.NDArray[np.intp]) -> NoteText:
    places = np.append(places, len(before.text))
    return NoteText(text, places if before.places is None else before.places[places])


def _plain_characters(before: NoteText) -> NoteText:
    """Each character in its plain form; those that are not seen left out."""
    text = before.text
    # Of "\r\n" the second is the line break.
    typed = _TYPED | {"\r": "" if "\r\n" in text else "\n"}
    plain = {c: typed[c] if c in typed else _plain_character(c) for c in set(text)}
    changed = {ord(c): form for c, form in plain.items() if form != c}
    if not changed:
        return before
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    distinct, which = np.unique(codes, return_inverse=True)
    lengths = np.array([len(plain[chr(code)]) for code in distinct.tolist()], np.intp)[which]
    return _placed(before, text.translate(changed), np.repeat(np.arange(len(text)), lengths))


def _plain_character(character: str) -> str:
    if character in "\n\t":
        return character
    match unicodedata.category(character):
        case "Cc" | "Cf":
            return ""
        case "Cs":
            return "\ufffd"
    form = unicodedata.normalize("NFKC", character)
    # One character stands for 18 others: a text must not grow without bound.
    return form if len(form) <= _LONGEST_FORM else character
