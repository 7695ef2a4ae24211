r"""Rich Text Format as text (RTF 1.9.1).

A reader of its own, because each character must keep its place in the text as it was sent
(striprtf does not tell) and the time must be linear in the length whatever it holds (striprtf
searches `\field` and font tables anew from each place, and raises on malformed numbers).
"""

import codecs
import re
from collections.abc import Iterator

from schemas.features.notes.html import Piece

_BEGINS = re.compile(r"\{\s*+\\rtf\d?(?=[\\\s{])")
_TOKEN = re.compile(
    r"\\(?:(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})?+ ?|'(?P<byte>[0-9a-fA-F]{2})"
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
# Groups that are no text of the note.
_NOT_TEXT = re.compile(
    r"author|bkmkend|bkmkstart|buptim|colortbl|comment|company|creatim|datastore|doccomm|falt"
    r"|filetbl|fldinst|fonttbl|footer[flr]?|generator|header[flr]?|info|keywords|latentstyles"
    r"|listoverridetable|listtable|manager|nonesttables|objdata|operator|pict|printim|revtbl"
    r"|revtim|rsidtbl|rxe|stylesheet|subject|tc|template|themedata|title|txe|xe|xmlnstbl"
)
# Text that is hidden, struck in a revision, or a copy for readers that know no HTML.
_HIDES = frozenset(("v", "deleted", "htmlrtf"))
_CODE_PAGES = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}


def is_rtf(text: str) -> bool:
    return "\\rtf" in text and _BEGINS.search(text) is not None


def rtf(text: str) -> Iterator[Piece]:
    """What is written in the groups that are text; what stands outside of all groups is kept."""
    begins = _BEGINS.search(text)
    at = begins.start() if begins else len(text)
    yield text[:at], 0, True
    reader = _Reader()
    tokens = _TOKEN.finditer(text, at)
    while found := next(tokens, None):
        if found["word"] == "bin" and reader.skipped:
            # So many bytes of a picture, whatever they spell.
            tokens = _TOKEN.finditer(text, found.end() + max(0, int(found["number"] or 0)))
        written, start = reader.read(found)
        if written:
            yield written, start, found.lastgroup == "text"


class _Reader:
    """What is known while tokens are read. `skipped`: whether the group is no text."""

    def __init__(self) -> None:
        self._outer: list[tuple[bool, frozenset[str], int]] = []
        # Of the group: why its text is hidden, and how many characters stand for one of Unicode
        # where that is not known.
        self.skipped, self._hidden, self._fallback = False, frozenset[str](), 1
        self._code_page, self._over, self._high = "cp1252", 0, 0

    def read(self, found: re.Match[str]) -> tuple[str, int]:
        """What one token writes, and where that begins in the source."""
        start = found.start()
        over, self._over = self._over, 0
        match found.lastgroup:
            case "begin":
                group = (self.skipped, self._hidden, self._fallback)
                self._outer += [group] * (found.end() - start)
                return "", start
            case "end":
                self._end(found.end() - start)
                return "", start
            case "text":
                self._over = max(0, over - (found.end() - start))
                written, start = found[0][over:], start + min(over, found.end() - start)
            case "byte":
                self._over = max(0, over - 1)
                byte = bytes.fromhex(found["byte"])
                written = "" if over else byte.decode(self._code_page, "replace")
            case "sign":
                self.skipped |= found["sign"] == "*"
                written = _SIGNS.get(found["sign"], "")
            case _:
                self._control(found["word"], found["number"])
                written = self._special(found["word"], found["number"])
        return ("" if self.skipped or self._hidden else written), start

    def _end(self, groups: int) -> None:
        groups = min(groups, len(self._outer))
        if groups:
            self.skipped, self._hidden, self._fallback = self._outer[-groups]
            del self._outer[-groups:]

    def _control(self, word: str, number: str | None) -> None:
        if _NOT_TEXT.fullmatch(word):
            self.skipped = True
        elif word in _HIDES:
            self._hidden = self._hidden - {word} if number == "0" else self._hidden | {word}
        elif word == "plain":
            self._hidden -= {"v", "deleted"}
        elif word == "uc":
            self._fallback = max(0, int(number or 1))
        elif word in _CODE_PAGES:
            self._code_page = _CODE_PAGES[word]
        elif word == "ansicpg":
            try:
                self._code_page = codecs.lookup(f"cp{int(number or 1252)}").name
            except LookupError:
                self._code_page = "cp1252"

    def _special(self, word: str, number: str | None) -> str:
        if word != "u" or number is None:
            return _WORDS.get(word, "")
        self._over = self._fallback
        code = int(number) % 0x10000
        high, self._high = self._high, 0
        if 0xD800 <= code < 0xDC00:
            self._high = code
            return ""
        if 0xDC00 <= code < 0xE000:
            return chr(0x10000 + (high - 0xD800) * 0x400 + code - 0xDC00) if high else "\ufffd"
        return chr(code)
