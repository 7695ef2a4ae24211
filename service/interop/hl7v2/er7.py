"""ER7, the delimited encoding of HL7 v2 messages (HL7 v2.5.1, chapter 2.5 to 2.7).

A *location* is segment^sequence^field, as in ERR-2 (ERL): OBX^3^5 is field 5 of the third OBX.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from schemas.request_errors import FieldError, InvalidPayload

MAX_SEGMENTS = 100_000
MAX_SEGMENT_LENGTH = 32 << 20  # characters; a segment with an image is long
MAX_TEXT_SEGMENT_LENGTH = 1 << 16  # characters of a segment that holds no document
MAX_FIELDS = 200  # of a segment; HL7 defines fewer than 60
MAX_COMPONENTS = 100  # of a field; further ones are not read
_LONG_SEGMENTS = {"OBX", "NTE"}
_SEGMENT_ID = re.compile(r"[A-Z][A-Z0-9]{2}", re.ASCII)
_HEADERS = ("MSH", "FHS", "BHS")
_LINE_END = re.compile(r"\r\n|\r|\n")


def location(segment: str, sequence: int, field: int | None = None) -> str:
    return f"{segment}^{sequence}" if field is None else f"{segment}^{sequence}^{field}"


def invalid(place: str, rule: str, detail: str) -> InvalidPayload:
    """An error at a location."""
    return InvalidPayload([FieldError(pointer=place, rule=rule, detail=detail)])


@dataclass(frozen=True)
class Delimiters:
    """The delimiters of MSH-1 and MSH-2 (chapter 2.5.4)."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches a delimiter within a field, or a quote, which may be part of a null."""
        inner = self.component + self.repetition + self.escape + self.subcomponent
        return re.compile(f'[{re.escape(inner)}"]')


def read_delimiters(header: str) -> Delimiters:
    """The delimiters of an MSH, BHS or FHS segment. Raises InvalidPayload: they are unusable."""
    name = header[:3] if header[:3] in _HEADERS else "MSH"
    field = header[3:4]
    encoding = header[4:].split(field, 1)[0] if field else ""
    # A fifth character, for truncation, is permitted since version 2.7.
    characters = field + encoding
    if (
        len(encoding) not in (4, 5)
        or len(set(characters)) != len(characters)
        or any(c.isalnum() or c.isspace() for c in characters)
    ):
        detail = (
            "must hold a field separator and four different encoding characters, as in MSH|^~\\&"
        )
        raise invalid(location(name, 1, 2), "delimiters", detail)
    return Delimiters(field, *encoding[:4])


class Segment:
    """A segment. `sequence`: its number among the segments of its name, from 1."""

    __slots__ = ("_delimiters", "_unescape", "fields", "name", "sequence")

    def __init__(
        self,
        fields: list[str],
        sequence: int,
        delimiters: Delimiters,
        unescape: Callable[[str], str],
    ) -> None:
        self.fields, self.name, self.sequence = fields, fields[0], sequence
        self._delimiters, self._unescape = delimiters, unescape

    def place(self, field: int | None = None) -> str:
        return location(self.name, self.sequence, field)

    def raw(self, field: int) -> str:
        """A field with its delimiters; empty if it is absent."""
        return self.fields[field] if field < len(self.fields) else ""

    def repetitions(self, field: int) -> list[str]:
        """The repetitions of a field with their delimiters."""
        raw = self.raw(field)
        return raw.split(self._delimiters.repetition) if raw else []

    def components(self, field: int) -> list[str]:
        """The components of the first repetition of a field, without their further subcomponents.

        The explicit null `""` (chapter 2.5.3) is an empty component.
        """
        raw = self.raw(field)
        if not raw:
            return []
        return self.split_components(raw.split(self._delimiters.repetition, 1)[0])

    def split_components(self, repetition: str) -> list[str]:
        """The components of a repetition."""
        separator = self._delimiters.subcomponent
        return [
            "" if part == '""' else self._unescape(part.split(separator, 1)[0])
            for part in repetition.split(self._delimiters.component, MAX_COMPONENTS)
        ]

    def text(self, field: int, component: int = 1) -> str:
        """A component of the first repetition; empty if it is absent or null."""
        raw = self.fields[field] if field < len(self.fields) else ""
        if not raw or self._delimiters.pattern.search(raw) is None:  # most fields hold none
            return raw.strip() if component == 1 else ""
        parts = self.components(field)
        return parts[component - 1].strip() if len(parts) >= component else ""

    def plain(self, field: int) -> str:
        """A field of the data types TX and FT: only repetitions are delimited."""
        return "\n".join(map(self._unescape, self.repetitions(field)))


@dataclass(frozen=True)
class Message:
    """The segments of a message, in order. The first is MSH."""

    segments: tuple[Segment, ...]

    @property
    def header(self) -> Segment:
        return self.segments[0]

    def named(self, name: str) -> Iterator[Segment]:
        return (segment for segment in self.segments if segment.name == name)


def parse_message(text: str) -> Message:
    """Splits a message into segments and fields.

    Raises InvalidPayload: the message has no MSH, unusable delimiters, a name that no segment can
    have, or exceeds a limit.
    """
    lines = [line for line in split_lines(text) if line.strip()]
    if not lines or not lines[0].startswith("MSH"):
        raise invalid(location("MSH", 1), "msh_required", "the message must start with MSH")
    if len(lines) > MAX_SEGMENTS:
        raise invalid(location("MSH", 1), "too_many_segments", f"more than {MAX_SEGMENTS} segments")
    delimiters = read_delimiters(lines[0])
    unescape = make_unescape(delimiters)
    counts: dict[str, int] = {}
    segments = []
    for number, line in enumerate(lines, 1):
        fields = line.split(delimiters.field, MAX_FIELDS + 1)
        name = fields[0]
        if not _SEGMENT_ID.fullmatch(name) or (number > 1 and name in _HEADERS):
            detail = f"line {number} of the message starts with no name of a segment"
            raise invalid(location("MSH", 1), "segment_name", detail)
        sequence = counts[name] = counts.get(name, 0) + 1
        limit = MAX_SEGMENT_LENGTH if name in _LONG_SEGMENTS else MAX_TEXT_SEGMENT_LENGTH
        if len(line) > limit or len(fields) > MAX_FIELDS:
            detail = f"has more than {limit} characters or {MAX_FIELDS} fields"
            raise invalid(location(name, sequence), "segment_length", detail)
        if number == 1:  # MSH-1 is the separator itself
            fields.insert(1, delimiters.field)
        segments.append(Segment(fields, sequence, delimiters, unescape))
    return Message(tuple(segments))


def split_lines(text: str) -> list[str]:
    """The lines of a text, whatever their ends: CR as the standard demands, LF, or both."""
    return text.replace("\r\n", "\r").replace("\n", "\r").split("\r")


def make_unescape(delimiters: Delimiters) -> Callable[[str], str]:
    """A function that replaces the escape sequences of a text (chapter 2.7).

    Line breaks of formatted text become new lines. Hexadecimal data (X) become characters of
    Latin-1. Highlighting, changes of the character set and local sequences are removed.
    """
    escape = delimiters.escape
    if not escape:
        return lambda text: text
    pattern = re.compile(f"{re.escape(escape)}([^{re.escape(escape)}]+){re.escape(escape)}")
    single = {
        "F": delimiters.field,
        "S": delimiters.component,
        "R": delimiters.repetition,
        "E": escape,
        "T": delimiters.subcomponent,
    }

    def replace(match: re.Match[str]) -> str:
        code = match[1]
        if code in single:
            return single[code]
        if code[:1] == "." and code[1:3] in ("br", "sp", "ce"):
            return "\n"
        if code[:1] == "X":
            try:
                return bytes.fromhex(code[1:]).decode("latin-1")
            except ValueError:
                return ""
        return ""

    return lambda text: pattern.sub(replace, text) if escape in text else text


def escaped(text: str) -> str:
    """A text as a component of an answer, with the usual delimiters."""
    for character, code in (("\\", "E"), ("|", "F"), ("^", "S"), ("~", "R"), ("&", "T")):
        text = text.replace(character, f"\\{code}\\") if character in text else text
    return _LINE_END.sub(" ", text)
