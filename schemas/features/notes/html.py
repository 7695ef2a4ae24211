"""HTML, XHTML and CDA narratives as text.

A scanner of its own, because each character must keep its place in the text as it was sent
(selectolax and beautifulsoup4 do not tell) and the time must be linear in the length (the
`html.parser` of Python 3.11 is not: CVE-2025-6069). Nothing is run, loaded or followed.
"""

import html
import re
from collections.abc import Iterator

# A piece of text, where it stands in the source, and whether it is copied from there.
Piece = tuple[str, int, bool]

# What a tag of each name writes; any other writes a space.
_WRITES = {"inline": "", "cell": "\t", "line": "\n", "block": "\n\n"}
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

# Tags that no one writes for anything else: "BP <90" and "<name>" stay text.
_CERTAIN = re.compile(
    r"<(?=[!?/a-z])(?:!doctype\s|\?xml\s|/?(?:html|body|head|p|br|div|span|table|tbody|tr|td|th|ul|ol|li"
    r"|h[1-6]|b|i|u|em|strong|font|pre|sup|sub|hr|a|img|style|script|meta|blockquote|paragraph)"
    r"(?:\s+[\w:.-]+\s*=[^<>]*+|\s*+)/?>)",
    re.IGNORECASE,
)
_ENTITY = r"&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});"
_MARKUP = re.compile(
    r"""(?P<comment><!--)|(?P<cdata><!\[CDATA\[)|<[!?][^<>]*+>
    |<(?P<close>/?)(?P<name>[a-zA-Z][\w:.-]*+)
        (?:(?:[^<>"']|"[^"]*+"|'[^']*+')*+>|[^<>]*+>)
    |(?P<lines>\n\s*+)"""
    rf"|(?P<entity>{_ENTITY})",
    re.VERBOSE,
)
_ENTITIES = re.compile(_ENTITY)


def is_markup(text: str) -> bool:
    return "<" in text and _CERTAIN.search(text) is not None


def entities(text: str) -> Iterator[Piece]:
    """A text that has entities and no tags."""
    at = 0
    for found in _ENTITIES.finditer(text):
        if found.start() > at:
            yield text[at : found.start()], at, True
        yield html.unescape(found[0]), found.start(), False
        at = found.end()
    yield text[at:], at, True


def markup(text: str) -> Iterator[Piece]:
    """The text between the tags: lines for `br`, paragraphs for blocks, tabs for cells.

    Line breaks of the source are spaces if it is a document, which begins with a tag.
    """
    scanner = _Scanner(text)
    while found := _MARKUP.search(text, scanner.at):
        if found.start() > scanner.at:
            yield text[scanner.at : found.start()], scanner.at, True
        scanner.at = found.end()
        yield scanner.read(found)
    yield text[scanner.at :], scanner.at, True


class _Scanner:
    """Reads what is no plain text. `at`: the place in the text up to which all is read."""

    def __init__(self, text: str) -> None:
        self.at = 0
        self._text = text
        self._keeps_lines = not text.lstrip().startswith("<")
        self._preformatted = 0
        self._endless: set[re.Pattern[str]] = set()

    def read(self, found: re.Match[str]) -> Piece:
        start = found.start()
        if found["comment"]:
            self._until(_COMMENT_END, inclusive=True)
            return "", start, False
        if found["cdata"]:
            content, stop = self.at, self._until(_CDATA_END, inclusive=True)
            return self._text[content:stop], content, True
        if found["lines"]:
            keeps = self._keeps_lines or self._preformatted
            return (found[0], start, True) if keeps else (" ", start, False)
        if found["entity"]:
            return html.unescape(found[0]), start, False
        return self._tag((found["name"] or "").lower(), bool(found["close"])), start, False

    def _tag(self, name: str, closes: bool) -> str:
        """What a tag writes; a declaration has no name, and writes nothing."""
        if name in _NOT_TEXT and not closes:
            self._until(_NOT_TEXT[name], inclusive=False)
        elif name == "pre":
            self._preformatted = max(0, self._preformatted + (-1 if closes else 1))
        known = _NAMES.fullmatch(name)
        if known is not None and known.lastgroup is not None:
            return _WRITES[known.lastgroup]
        return " " if name else ""

    def _until(self, end: re.Pattern[str], *, inclusive: bool) -> int:
        """Goes on at the end of what has begun, if it has one; gives where that begins."""
        found = None if end in self._endless else end.search(self._text, self.at)
        if found is None:
            self._endless.add(end)
            return self.at
        self.at = found.end() if inclusive else found.start()
        return found.start()
