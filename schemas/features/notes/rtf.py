r"""Text extraction from Rich Text Format (RTF 1.9.1).

This module has its own reader for two reasons. Each character must keep its offset in the source,
which striprtf does not report. The time must be linear in the length: striprtf searches `\field`
and font tables again from each position, and raises on malformed numbers.
"""

import codecs
import re
from collections.abc import Iterator

from schemas.features.notes.html import TextPiece

_START = re.compile(r"\{\s*+\\rtf\d?(?=[\\\s{])")
_TOKEN = re.compile(
    r"\\(?:(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})? ?|'(?P<byte>[0-9a-fA-F]{2})"
    r"|(?P<sign>.))|(?P<begin>\{++)|(?P<end>\}++)|(?P<text>[^\\{}\r\n]++)",
    re.DOTALL,
)
_WORDS = {
    "par": "\n",
    "line": "\n",
    "sect": "\n\n",
    "page": "\n\n",
    "row": "\n",
    "nestrow": "\n",
    "cell": "\t",
    "nestcell": "\t",
    "tab": "\t",
    "emdash": "\u2014",
    "endash": "\u2013",
    "emspace": " ",
    "enspace": " ",
    "qmspace": " ",
    "bullet": "\u2022",
    "lquote": "'",
    "rquote": "'",
    "ldblquote": '"',
    "rdblquote": '"',
}
_SIGNS = {"~": " ", "_": "-", "\n": "\n", "\r": "\n", "\\": "\\", "{": "{", "}": "}"}
# Destinations whose groups are not text of the note.
_NOT_TEXT = re.compile(
    r"author|bkmkend|bkmkstart|buptim|colortbl|comment|company|creatim|datastore|doccomm|falt"
    r"|filetbl|fldinst|fonttbl|footer[flr]?|generator|header[flr]?|info|keywords|latentstyles"
    r"|listoverridetable|listtable|manager|nonesttables|objdata|operator|pict|printim|revtbl"
    r"|revtim|rsidtbl|rxe|stylesheet|subject|tc|template|themedata|title|txe|xe|xmlnstbl"
)
# Text that is hidden, deleted in a revision, or a copy for readers without HTML support.
_HIDING_WORDS = frozenset(("v", "deleted", "htmlrtf"))
_CODE_PAGES = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}


def is_rtf(text: str) -> bool:
    """Whether the text holds an RTF document."""
    return "\\rtf" in text and _START.search(text) is not None


def parse_rtf(text: str) -> Iterator[TextPiece]:
    """Yields the text of all text groups, and the text outside of groups."""
    match = _START.search(text)
    begin = match.start() if match else len(text)
    yield TextPiece(text[:begin], 0, is_copy=True)
    reader = _Reader()
    tokens = _TOKEN.finditer(text, begin)
    while token := next(tokens, None):
        if token["word"] == "bin" and reader.is_skipping:
            # Skip the bytes of a picture, which may look like tokens.
            tokens = _TOKEN.finditer(text, token.end() + max(0, int(token["number"] or 0)))
        written, start = reader.read(token)
        if written:
            yield TextPiece(written, start, is_copy=token.lastgroup == "text")


class _Reader:
    """The state of the parser. `is_skipping`: whether the current group is not text."""

    def __init__(self) -> None:
        self._outer_groups: list[tuple[bool, frozenset[str], int]] = []
        self.is_skipping = False
        # The control words that hide the text of the group.
        self._hidden_by = frozenset[str]()
        # The number of fallback characters after a Unicode character in this group, and how many
        # of them are still to be skipped.
        self._fallback_length, self._fallback_left = 1, 0
        self._code_page, self._high_surrogate = "cp1252", 0

    def read(self, token: re.Match[str]) -> tuple[str, int]:
        """Returns the text that a token writes, and its offset in the source."""
        start, length = token.start(), token.end() - token.start()
        fallback, self._fallback_left = self._fallback_left, 0
        match token.lastgroup:
            case "begin":
                group = (self.is_skipping, self._hidden_by, self._fallback_length)
                self._outer_groups += [group] * length
                return "", start
            case "end":
                self._end_groups(length)
                return "", start
            case "text":
                self._fallback_left = max(0, fallback - length)
                written, start = token[0][fallback:], start + min(fallback, length)
            case "byte":
                self._fallback_left = max(0, fallback - 1)
                byte = bytes.fromhex(token["byte"])
                written = "" if fallback else byte.decode(self._code_page, "replace")
            case "sign":
                self.is_skipping |= token["sign"] == "*"
                written = _SIGNS.get(token["sign"], "")
            case _:
                self._apply_control_word(token["word"], token["number"])
                written = self._control_word_text(token["word"], token["number"])
        return ("" if self.is_skipping or self._hidden_by else written), start

    def _end_groups(self, count: int) -> None:
        count = min(count, len(self._outer_groups))
        if count:
            group = self._outer_groups[-count]
            self.is_skipping, self._hidden_by, self._fallback_length = group
            del self._outer_groups[-count:]

    def _apply_control_word(self, word: str, number: str | None) -> None:
        if _NOT_TEXT.fullmatch(word):
            self.is_skipping = True
        elif word in _HIDING_WORDS:
            shown = number == "0"
            self._hidden_by = self._hidden_by - {word} if shown else self._hidden_by | {word}
        elif word == "plain":
            self._hidden_by -= {"v", "deleted"}
        elif word == "uc":
            self._fallback_length = max(0, int(number or 1))
        elif word in _CODE_PAGES:
            self._code_page = _CODE_PAGES[word]
        elif word == "ansicpg":
            try:
                self._code_page = codecs.lookup(f"cp{int(number or 1252)}").name
            except LookupError:
                self._code_page = "cp1252"

    def _control_word_text(self, word: str, number: str | None) -> str:
        if word != "u" or number is None:
            return _WORDS.get(word, "")
        self._fallback_left = self._fallback_length
        code = int(number) % 0x10000
        high, self._high_surrogate = self._high_surrogate, 0
        if 0xD800 <= code < 0xDC00:
            self._high_surrogate = code
            return ""
        if 0xDC00 <= code < 0xE000:
            return chr(0x10000 + (high - 0xD800) * 0x400 + code - 0xDC00) if high else "\ufffd"
        return chr(code)
