"""Whether a note is one that a model could read: in its language and script, and in words at all.

A model that counts known words takes a note of which it knows none for an ordinary one. So notes
in another language, encoded files and such are told by their words, before the model sees them.
"""

import re
import string
import unicodedata
from functools import cached_property

from tokenizers import Tokenizer

_WORD = re.compile(r"[^\W_]+")
_LETTERS = re.compile(r"[^\W\d_]")
_MARKS = re.compile(r'[{}\[\]"<>=\\|@#~^$%]')
# Small words of other languages that English notes do not have.
_FOREIGN = frozenset(
    re.findall(
        r"\w+",
        """
        und nicht mit bei der das dem wurde keine kein ist auf zur durch unter nach
        avec dans pour sans sous une les pas aux sur mais depuis chez
        del los las una por para sin se con el que muy
        di della che nel il gli nella alla
        com uma dos foi em sem ao
        het een voor met niet geen bij zijn naar
        och med ikke og ej inte som av
        nie oraz dla przez ile bir ve dan dengan yang
        """,
    )
)
_SAMPLE = 400  # characters, at the beginning, in the middle and at the end of a long note
_FEWEST_WORDS = 1000  # of a vocabulary that says which words are known
_MOST_REMEMBERED = 10_000


class WordCheck:
    """Tells notes that are unlike those that a tokenizer was made for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # By the hashes of notes: they come again and again.
        self._remembered: dict[tuple[int, int], bool] = {}

    @cached_property
    def _known(self) -> frozenset[str]:
        """Words that are one token each."""
        tokens = self._tokenizer.get_vocab()
        for mark in ("\u2581", "\u0120"):
            if sum(token.startswith(mark) for token in tokens) > len(tokens) / 10:
                return frozenset(t[1:].lower() for t in tokens if t[0] == mark and len(t) > 2)
        return frozenset(token.lower() for token in tokens if token.isalpha() and len(token) > 1)

    @cached_property
    def _alphabet(self) -> frozenset[str]:
        tokens = self._tokenizer.get_vocab()
        return frozenset(string.ascii_lowercase).union(*map(str.lower, tokens))

    def unlike(self, text: str) -> bool:
        """Whether few of a note's words are known, in any of the parts that are looked at."""
        key = (hash(text), len(text))
        if key not in self._remembered:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = any(map(self._is_unlike, _parts(text)))
        return self._remembered[key]

    def _is_unlike(self, text: str) -> bool:
        text = text.lower()
        if not text.isascii() and self._is_in_another_script(text):
            return True
        if len(self._known) < _FEWEST_WORDS:
            return False
        known = letters = words = foreign = mixed = 0
        for word in _WORD.findall(text):
            if word.isalpha():
                words += 1
                letters += len(word)
                if word in self._known:
                    known += len(word)
                foreign += word in _FOREIGN or not word.isascii()
            elif not word.isdigit():
                mixed += 1
                letters += len(word) if len(word) > 8 else 0
        if letters < 25 and mixed < 15:
            return False
        share = known / max(letters, 1)
        marks = len(_MARKS.findall(text)) / len(text)
        return (
            share < (0.28 if words >= 8 else 0.15)
            or (share < 0.7 and foreign >= 3 and foreign > words / 10)
            or mixed > 2 * words
            or marks > (0.1 if share < 0.6 else 0.18)
        )

    def _is_in_another_script(self, text: str) -> bool:
        if sum(not c.isascii() for c in text) > max(8, 0.3 * len(text)):
            return True
        letters = _LETTERS.findall(unicodedata.normalize("NFD", text))
        strange = sum(letter not in self._alphabet for letter in letters)
        return strange >= 2 and strange > 0.3 * len(letters)


def _parts(text: str) -> list[str]:
    if len(text) <= 3 * _SAMPLE:
        return [text]
    middle = (len(text) - _SAMPLE) // 2
    return [text[start : start + _SAMPLE] for start in (0, middle, len(text) - _SAMPLE)]
