"""Detection of notes that a model cannot read: other languages or scripts, and encoded files.

A model that counts known words treats a note without known words as an ordinary one. Such notes are
therefore detected by their words beforehand.
"""

import re
import string
import unicodedata
from functools import cached_property

from tokenizers import Tokenizer

_WORD = re.compile(r"[^\W_]+")
_LETTERS = re.compile(r"[^\W\d_]")
_MARKS = re.compile(r'[{}\[\]"<>=\\|@#~^$%]')
# Function words of other languages that do not occur in English notes.
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
_SAMPLE_LENGTH = 400  # characters; a long note is sampled at its start, middle and end
_MIN_VOCABULARY = 1000  # words; a smaller vocabulary does not define which words are known
_CACHE_ENTRIES = 10_000


class LanguageCheck:
    """Detects notes that are unlike those that the tokenizer was trained on."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # By hash and length of the text, because clients send the same notes repeatedly.
        self._cache: dict[tuple[int, int], bool] = {}

    @cached_property
    def _known_words(self) -> frozenset[str]:
        """Words that are a single token."""
        tokens = self._tokenizer.get_vocab()
        for mark in ("\u2581", "\u0120"):
            if sum(token.startswith(mark) for token in tokens) > len(tokens) / 10:
                return frozenset(t[1:].lower() for t in tokens if t[0] == mark and len(t) > 2)
        return frozenset(token.lower() for token in tokens if token.isalpha() and len(token) > 1)

    @cached_property
    def _alphabet(self) -> frozenset[str]:
        tokens = self._tokenizer.get_vocab()
        return frozenset(string.ascii_lowercase).union(*map(str.lower, tokens))

    def is_unreadable(self, text: str) -> bool:
        """Whether few words are known in any sample of a note."""
        key = (hash(text), len(text))
        if key not in self._cache:
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()
            self._cache[key] = any(map(self._is_sample_unreadable, _samples(text)))
        return self._cache[key]

    def _is_sample_unreadable(self, text: str) -> bool:
        text = text.lower()
        if not text.isascii() and self._is_in_another_script(text):
            return True
        if len(self._known_words) < _MIN_VOCABULARY:
            return False
        known = letters = words = foreign = mixed = 0
        for word in _WORD.findall(text):
            if word.isalpha():
                words += 1
                letters += len(word)
                if word in self._known_words:
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
        unknown = sum(letter not in self._alphabet for letter in letters)
        return unknown >= 2 and unknown > 0.3 * len(letters)


def _samples(text: str) -> list[str]:
    if len(text) <= 3 * _SAMPLE_LENGTH:
        return [text]
    middle = (len(text) - _SAMPLE_LENGTH) // 2
    return [
        text[start : start + _SAMPLE_LENGTH] for start in (0, middle, len(text) - _SAMPLE_LENGTH)
    ]
