"""JSON parsing of a long document in chunks.

A parser holds the interpreter lock while it works: one call with 33 MB blocks all other threads for
several hundred milliseconds. A chunk is a run of members of one array or object. The same strict
parser reads every chunk, so the result equals that of a single call.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

CHUNK_BYTES = 2**20  # bytes
_TAIL = 2**16  # bytes that are searched for trailing white space at a time
MAX_DEPTH = 32  # nested containers; a request has six
_QUOTE, _COMMA = b'",'
_SPACE = b" \t\r\n"
_BLANK = re.compile(rb"[ \t\r\n]*")
# By byte: whether it is a structural character, and by how much it changes the depth.
_STRUCTURAL = np.zeros(256, np.bool_)
_STRUCTURAL[np.frombuffer(b"[]{},:", np.uint8)] = True
_STEP = np.zeros(256, np.int8)
_STEP[np.frombuffer(b"[{", np.uint8)] = 1
_STEP[np.frombuffer(b"]}", np.uint8)] = -1

Flags = npt.NDArray[np.bool_]


def chunks(body: bytes) -> Iterator[tuple[int, npt.NDArray[np.uint8], Flags]]:
    """Yields chunks of the text: start offset, bytes, and which bytes are outside strings.

    The flag of a quote that opens or closes a string is undefined.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    inside = np.uint8(0)  # 1: the chunk starts inside a string
    for start in range(0, len(body), CHUNK_BYTES):
        chunk = np.frombuffer(body, np.uint8, min(CHUNK_BYTES, len(body) - start), start)
        in_string = np.bitwise_xor.accumulate((chunk == _QUOTE).view(np.uint8)) ^ inside
        inside = in_string[-1]
        yield start, chunk, in_string == 0


def parse(body: bytes) -> Any:
    """Parses a document.

    Raises ValueError: it is not JSON in UTF-8, or its depth exceeds MAX_DEPTH.
    """
    return _Parser(body).parse_value(0, len(body), 1)


class _Parser:
    """Parses values by the positions of their separators.

    [separators] `_at`: position of each comma and colon outside strings. `_depth`: number of
    containers around it. `_is_comma`: whether it is a comma.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        at, depths, commas, depth = [], [], [], 0
        for start, chunk, outside in chunks(body):
            positions = np.flatnonzero(_STRUCTURAL[chunk] & outside)
            characters = chunk[positions]
            inside = depth + np.cumsum(_STEP[characters], dtype=np.int32)
            if len(inside):
                depth = int(inside[-1])
            if inside.max(initial=0) > MAX_DEPTH:
                raise ValueError("nested too deeply")
            separators = _STEP[characters] == 0
            at.append(positions[separators] + start)
            depths.append(inside[separators])
            commas.append(characters[separators] == _COMMA)
        self._at: npt.NDArray[np.int64] = np.concatenate(at)
        self._depth: npt.NDArray[np.int32] = np.concatenate(depths)
        self._is_comma: Flags = np.concatenate(commas)

    def parse_value(self, start: int, end: int, depth: int) -> Any:
        """Parses the value in `body[start:end]`, whose members are inside `depth` containers."""
        start, end = self._trim(start, end)
        body = self._body
        brackets = body[start : start + 1] + body[end - 1 : end]
        short = end - start <= CHUNK_BYTES or _BLANK.fullmatch(body, start + 1, end - 1)
        if short or brackets not in {b"[]", b"{}"}:
            return from_json(body[start:end])
        parse_members = self._parse_array if brackets == b"[]" else self._parse_object
        return parse_members(start + 1, end - 1, depth)

    def _trim(self, start: int, end: int) -> tuple[int, int]:
        """Moves the bounds past white space, without a copy of the text between them."""
        blank = _BLANK.match(self._body, start, end)
        start = blank.end() if blank else start
        while start < end:
            tail = self._body[max(start, end - _TAIL) : end]
            length = len(tail.rstrip(_SPACE))
            end -= len(tail) - length
            if length:
                break
        return start, end

    def _parse_array(self, start: int, end: int, depth: int) -> list[Any]:
        values: list[Any] = []
        for first, last in self._members(start, end, depth):
            if last - first > CHUNK_BYTES:
                values.append(self.parse_value(first, last, depth + 1))
            else:
                values += _parse_run(b"[", self._body[first:last], b"]")
        return values

    def _parse_object(self, start: int, end: int, depth: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for first, last in self._members(start, end, depth):
            colon = self._colon(first, last, depth) if last - first > CHUNK_BYTES else None
            if colon is None:
                fields |= _parse_run(b"{", self._body[first:last], b"}")
            else:
                (name,) = _parse_run(b"{", self._body[first:colon] + b":0", b"}")
                fields[name] = self.parse_value(colon + 1, last, depth + 1)
        return fields

    def _members(self, start: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
        """Yields the bounds of runs of members up to a chunk long, and of each longer member."""
        low, high = np.searchsorted(self._at, (start, end))
        at = self._at[low:high]
        commas = at[(self._depth[low:high] == depth) & self._is_comma[low:high]]
        ends = np.append(commas, end)
        first, count = start, 0
        while count < len(ends):
            # Include all members that end within a chunk, and at least one.
            count = max(count + 1, int(np.searchsorted(ends, first + CHUNK_BYTES, "right")))
            yield first, int(ends[count - 1])
            first = int(ends[count - 1]) + 1

    def _colon(self, start: int, end: int, depth: int) -> int | None:
        """Returns the position of the colon after the name of the member in `body[start:end]`."""
        low, high = np.searchsorted(self._at, (start, end))
        at = self._at[low:high]
        colons = at[(self._depth[low:high] == depth) & ~self._is_comma[low:high]]
        return int(colons[0]) if len(colons) else None


def _parse_run(opened: bytes, members: bytes, closed: bytes) -> Any:
    """Parses a run of members inside the given brackets."""
    if not members or members.isspace():
        raise ValueError("a member is missing")
    return from_json(opened + members + closed)
