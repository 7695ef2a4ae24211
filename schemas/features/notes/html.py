"""Text extraction from HTML, XHTML and CDA narratives.

This module has its own scanner for two reasons. Each character must keep its offset in the source,
which selectolax and beautifulsoup4 do not report. The time must be linear in the length, which it
is not in `html.parser` of Python 3.11 (CVE-2025-6069). Scripts and links are ignored.
"""

import html
import re
from collections.abc import Iterator
from typing import NamedTuple


class TextPiece(NamedTuple):
    """A piece of extracted text.

    `start`: offset in the source. `is_copy`: whether the text is a copy of the source from `start`,
    or stands for the single position `start`.
    """

    text: str
    start: int
    is_copy: bool


# Text that replaces a tag, by kind of tag. Any other tag becomes a space.
_REPLACEMENTS = {"inline": "", "cell": "\t", "line": "\n", "block": "\n\n"}
_NAMES = re.compile(
    r"(?P<inline>a|abbr|acronym|b|bdi|bdo|big|cite|code|content|del|dfn|em|font|i|ins|kbd|label"
    r"|linkhtml|mark|q|s|samp|small|span|strike|strong|sub|sup|tt|u|var|wbr)|(?P<cell>td|th)"
    r"|(?P<line>br)|(?P<block>address|article|aside|blockquote|body|caption|center|dd|details|div"
    r"|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6r]|head|header|html|item|li|list|main"
    r"|nav|ol|option|p|paragraph|pre|section|select|summary|table|tbody|text|textarea|tfoot|thead"
    r"|title|tr|ul)"
)
_NOT_TEXT = {
    name: re.compile(rf"</{name}\b", re.IGNORECASE)
    for name in ("script", "style", "head", "template")
}
_COMMENT_END, _CDATA_END = re.compile("-->"), re.compile(r"\]\]>")

# Tags that are certainly markup. "BP <90" and "<name>" stay text.
_CERTAIN_TAG = re.compile(
    r"<(?=[!?/a-z])(?:!doctype\s|\?xml\s|/?(?:html|body|head|p|br|div|span|table|tbody|tr|td|th|ul|ol|li"
    r"|h[1-6]|b|i|u|em|strong|font|pre|sup|sub|hr|a|img|style|script|meta|blockquote|paragraph)"
    r"(?:\s+[\w:.-]+\s*=[^<>]*+|\s*+)/?>)",
    re.IGNORECASE,
)
_ENTITY = r"&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});"
_MARKUP = re.compile(
    r"""(?P<comment><!--)|(?P<cdata><!\[CDATA\[)|<[!?][^<>]*+>
    |<(?P<close>/?)(?P<name>[a-zA-Z][\w:.-]*+)
        (?:(?:[^<>"']|"[^"]*+"|'[^']*+')*>|[^<>]*+>)
    |(?P<lines>\n\s*+)"""
    rf"|(?P<entity>{_ENTITY})",
    re.VERBOSE,
)
_ENTITIES = re.compile(_ENTITY)


def is_markup(text: str) -> bool:
    """Whether the text holds a tag that is certainly markup."""
    return "<" in text and _CERTAIN_TAG.search(text) is not None


def decode_entities(text: str) -> Iterator[TextPiece]:
    """Yields the pieces of a text with entities and without tags."""
    position = 0
    for match in _ENTITIES.finditer(text):
        if match.start() > position:
            yield TextPiece(text[position : match.start()], position, is_copy=True)
        yield TextPiece(html.unescape(match[0]), match.start(), is_copy=False)
        position = match.end()
    yield TextPiece(text[position:], position, is_copy=True)


def parse_markup(text: str) -> Iterator[TextPiece]:
    """Yields the text between tags. `br` becomes a line break, a cell a tab, a block a paragraph.

    In a document, which begins with a tag, line breaks of the source become spaces.
    """
    scanner = _Scanner(text)
    while match := _MARKUP.search(text, scanner.position):
        if match.start() > scanner.position:
            yield TextPiece(text[scanner.position : match.start()], scanner.position, is_copy=True)
        scanner.position = match.end()
        yield scanner.read(match)
    yield TextPiece(text[scanner.position :], scanner.position, is_copy=True)


class _Scanner:
    """Converts matches of _MARKUP. `position`: end of the text that was read."""

    def __init__(self, text: str) -> None:
        self.position = 0
        self._text = text
        self._keeps_lines = not text.lstrip().startswith("<")
        self._preformatted = 0
        self._missing_ends: set[re.Pattern[str]] = set()

    def read(self, match: re.Match[str]) -> TextPiece:
        """Returns the text that replaces a match."""
        start = match.start()
        if match["comment"]:
            self._skip_to(_COMMENT_END, inclusive=True)
            return TextPiece("", start, is_copy=False)
        if match["cdata"]:
            content, stop = self.position, self._skip_to(_CDATA_END, inclusive=True)
            return TextPiece(self._text[content:stop], content, is_copy=True)
        if match["lines"]:
            if self._keeps_lines or self._preformatted:
                return TextPiece(match[0], start, is_copy=True)
            return TextPiece(" ", start, is_copy=False)
        if match["entity"]:
            return TextPiece(html.unescape(match[0]), start, is_copy=False)
        text = self._read_tag((match["name"] or "").lower(), bool(match["close"]))
        return TextPiece(text, start, is_copy=False)

    def _read_tag(self, name: str, closes: bool) -> str:
        """Returns the replacement of a tag. A declaration has an empty name and no replacement."""
        if name in _NOT_TEXT and not closes:
            self._skip_to(_NOT_TEXT[name], inclusive=False)
        elif name == "pre":
            self._preformatted = max(0, self._preformatted + (-1 if closes else 1))
        known = _NAMES.fullmatch(name)
        if known is not None and known.lastgroup is not None:
            return _REPLACEMENTS[known.lastgroup]
        return " " if name else ""

    def _skip_to(self, end: re.Pattern[str], *, inclusive: bool) -> int:
        """Moves to the next match of `end`, if there is one. Returns the start of the match."""
        match = None if end in self._missing_ends else end.search(self._text, self.position)
        if match is None:
            self._missing_ends.add(end)  # search for it only once, to stay linear
            return self.position
        self.position = match.end() if inclusive else match.start()
        return match.start()
