"""A long JSON document, parsed in pieces.

A parser holds the interpreter lock while it works: 33 MB in one call would stop all other threads
for some hundred milliseconds. A piece is a run of members of one array or object. The same strict
parser reads every piece, so the result is that of one call.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

PIECE = 2**20  # bytes
_TAIL = 2**16  # bytes in which trailing white space is sought at once
MAX_DEPTH = 32  # containers inside each other; a request has six
_QUOTE, _COMMA = b'",'
_SPACE = b" \t\r\n"
_BLANK = re.compile(rb"[ \t\r\n]*")
# By byte: whether it structures a document, and by how much it changes the depth.
_STRUCTURAL = np.zeros(256, np.bool_)
_STRUCTURAL[np.frombuffer(b"[]{},:", np.uint8)] = True
_STEP = np.zeros(256, np.int8)
_STEP[np.frombuffer(b"[{", np.uint8)] = 1
_STEP[np.frombuffer(b"]}", np.uint8)] = -1

Flags = npt.NDArray[np.bool_]


def chunks(body: bytes) -> Iterator[tuple[int, npt.NDArray[np.uint8], Flags]]:
    """Pieces of the text: where each starts, its bytes, and which of them are outside strings.

    A quote that opens or closes a string counts as either.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    inside = np.uint8(0)  # 1: a string goes on where the chunk starts
    for start in range(0, len(body), PIECE):
        chunk = np.frombuffer(body, np.uint8, min(PIECE, len(body) - start), start)
        in_string = np.bitwise_xor.accumulate((chunk == _QUOTE).view(np.uint8)) ^ inside
        inside = in_string[-1]
        yield start, chunk, in_string == 0


def parse(body: bytes) -> Any:
    """The document. Raises ValueError if it is not JSON in UTF-8, or deeper than MAX_DEPTH."""
    return _Parser(body).value(0, len(body), 1)


class _Parser:
    """`_at`: positions of the commas and colons outside strings. `_depth`: how many containers each
    is in. `_comma`: which of them are commas.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        at, depths, commas, depth = [], [], [], 0
        for start, chunk, outside in chunks(body):
            places = np.flatnonzero(_STRUCTURAL[chunk] & outside)
            kinds = chunk[places]
            inside = depth + np.cumsum(_STEP[kinds], dtype=np.int32)
            if len(inside):
                depth = int(inside[-1])
            if inside.max(initial=0) > MAX_DEPTH:
                raise ValueError("nested too deeply")
            separators = _STEP[kinds] == 0
            at.append(places[separators] + start)
            depths.append(inside[separators])
            commas.append(kinds[separators] == _COMMA)
        self._at: npt.NDArray[np.int64] = np.concatenate(at)
        self._depth: npt.NDArray[np.int32] = np.concatenate(depths)
        self._comma: Flags = np.concatenate(commas)

    def value(self, start: int, end: int, depth: int) -> Any:
        """The value in `body[start:end]`, whose members are inside `depth` containers."""
        start, end = self._trimmed(start, end)
        body = self._body
        brackets = body[start : start + 1] + body[end - 1 : end]
        short = end - start <= PIECE or _BLANK.fullmatch(body, start + 1, end - 1)
        if short or brackets not in {b"[]", b"{}"}:
            return from_json(body[start:end])
        read = self._array if brackets == b"[]" else self._object
        return read(start + 1, end - 1, depth)

    def _trimmed(self, start: int, end: int) -> tuple[int, int]:
        """The bounds without white space, found without a copy of what lies between them."""
        blank = _BLANK.match(self._body, start, end)
        start = blank.end() if blank else start
        while start < end:
            tail = self._body[max(start, end - _TAIL) : end]
            length = len(tail.rstrip(_SPACE))
            end -= len(tail) - length
            if length:
                break
        return start, end

    def _array(self, start: int, end: int, depth: int) -> list[Any]:
        values: list[Any] = []
        for first, last in self._members(start, end, depth):
            if last - first > PIECE:
                values.append(self.value(first, last, depth + 1))
            else:
                values += _of_members(b"[", self._body[first:last], b"]")
        return values

    def _object(self, start: int, end: int, depth: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for first, last in self._members(start, end, depth):
            colon = self._colon(first, last, depth) if last - first > PIECE else None
            if colon is None:
                fields |= _of_members(b"{", self._body[first:last], b"}")
            else:
                (name,) = _of_members(b"{", self._body[first:colon] + b":0", b"}")
                fields[name] = self.value(colon + 1, last, depth + 1)
        return fields

    def _members(self, start: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
        """Runs of members that are no longer than a piece together, and each longer member."""
        low, high = np.searchsorted(self._at, (start, end))
        at = self._at[low:high]
        commas = at[(self._depth[low:high] == depth) & self._comma[low:high]]
        ends = np.append(commas, end)
        first, done = start, 0
        while done < len(ends):
            # The last member that ends within a piece; at least one.
            done = max(done + 1, int(np.searchsorted(ends, first + PIECE, "right")))
            yield first, int(ends[done - 1])
            first = int(ends[done - 1]) + 1

    def _colon(self, start: int, end: int, depth: int) -> int | None:
        """Where the name of the member in `body[start:end]` ends."""
        low, high = np.searchsorted(self._at, (start, end))
        at = self._at[low:high]
        colons = at[(self._depth[low:high] == depth) & ~self._comma[low:high]]
        return int(colons[0]) if len(colons) else None


def _of_members(opened: bytes, members: bytes, closed: bytes) -> Any:
    if not members or members.isspace():
        raise ValueError("a member is missing")
    return from_json(opened + members + closed)
