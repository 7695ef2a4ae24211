"""JSON parsing of a request body with bounded memory and without repeated member names."""

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic_core import from_json

from schemas.parsing import chunked_json
from schemas.request_errors import MAX_LISTED, FieldError, InvalidPayload, safe_name

# Limits of one body. However short its text, a value takes up to 100 bytes of memory, and an
# array, an object or a name takes 300. 32 MiB of measurements hold 3,000,000 values.
MAX_VALUES, MAX_CONTAINERS, MAX_NAMES = 3_000_000, 1_000_000, 1_000_000

_SHORT = 64 * 2**10  # bytes; a body up to this length cannot exceed the limits
_NAME = re.compile(rb'"[ \t\r\n]*:')
_COMMA, _COLON, _OPEN = b",:{"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16 = re.compile(rb"\xff\xfe|\xfe\xff|\x00|.\x00", re.DOTALL)


def read_json(body: bytes | str) -> tuple[Any, int]:
    """Parses a body. Returns the document and the number of member names in its objects.

    Repeated names count each time. The number may be too high, but never too low. A UTF-8 byte
    order mark is ignored (RFC 8259, section 8.1).

    Raises InvalidPayload: with rule `json` if the body is not JSON in UTF-8, with rule
    `too_many_values` if it exceeds a limit.
    """
    text = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    text = text.removeprefix(_UTF8_MARK)
    names = len(_NAME.findall(text)) if len(text) <= _SHORT else _count_names(text)
    try:
        parse = chunked_json.parse if len(text) > chunked_json.CHUNK_BYTES else from_json
        return parse(text), names
    except ValueError:
        detail = "the body is not a JSON document in UTF-8"
        if _UTF16.match(text):
            detail = "the body looks like UTF-16 or UTF-32; send JSON in UTF-8"
        raise InvalidPayload([FieldError(pointer="", rule="json", detail=detail)]) from None


def _count_names(body: bytes) -> int:
    """Counts the member names of a large body.

    Raises InvalidPayload: the body exceeds a limit.
    """
    names = commas = containers = 0
    for _, chunk, outside in chunked_json.chunks(body):
        names += int(np.count_nonzero((chunk == _COLON) & outside))
        commas += int(np.count_nonzero((chunk == _COMMA) & outside))
        # "[" and "{" differ only in this bit.
        containers += int(np.count_nonzero(((chunk | 0x20) == _OPEN) & outside))
        if commas > MAX_VALUES or containers > MAX_CONTAINERS or names > MAX_NAMES:
            detail = (
                f"holds more than {MAX_VALUES} values, {MAX_CONTAINERS} arrays and objects or "
                f"{MAX_NAMES} names; send fewer patients or fewer measurements in one request"
            )
            raise InvalidPayload([FieldError(pointer="", rule="too_many_values", detail=detail)])
    return names


class _ObjectWithRepeatedName(dict[str, Any]):
    """A parsed object that has a member name more than once."""


def refuse_repeated_names(body: bytes | str) -> None:
    """Checks that no object of a valid JSON document has a member name more than once.

    Parsers differ in which value they keep (RFC 8259, section 4), so that part of a record could
    be lost silently.

    Raises InvalidPayload: a name is repeated, or the document is nested too deeply.
    """
    is_repeated = False

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal is_repeated
        fields = dict(pairs)
        if len(fields) == len(pairs):
            return fields
        is_repeated = True
        return _ObjectWithRepeatedName(fields)

    text = body.removeprefix(_UTF8_MARK) if isinstance(body, bytes) else body
    try:
        document = json.loads(
            text,
            object_pairs_hook=build_object,
            # Skip the conversion of numbers, which are not needed here.
            parse_int=_discard_number,
            parse_float=_discard_number,
        )
    except RecursionError:
        detail = "arrays and objects are nested too deeply"
        raise InvalidPayload([FieldError(pointer="", rule="json", detail=detail)]) from None
    if is_repeated:
        detail = "this object has a name more than once"
        raise InvalidPayload(
            [
                FieldError(pointer=pointer, rule="repeated_name", detail=detail)
                for _, pointer in zip(
                    range(MAX_LISTED + 1), _repeated_name_pointers("", document), strict=False
                )
            ]
        )


def _discard_number(_: str) -> None:
    return None


def _repeated_name_pointers(pointer: str, value: Any) -> Iterable[str]:
    """Yields pointers to objects with a repeated name.

    Names that could be a patient's name are withheld.
    """
    if isinstance(value, _ObjectWithRepeatedName):
        yield pointer
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _repeated_name_pointers(f"{pointer}/{safe_name(name)}", part)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            if isinstance(part, dict | list):
                yield from _repeated_name_pointers(f"{pointer}/{i}", part)


def count_names(document: Any) -> int:
    """The number of member names of a parsed document. Other threads can run meanwhile."""
    names, open_parts = 0, [document]
    while open_parts:
        part = open_parts.pop()
        if type(part) is dict:
            names += len(part)
            open_parts += [v for v in part.values() if type(v) in (dict, list)]
        elif type(part) is list:
            open_parts += [v for v in part if type(v) in (dict, list)]
    return names
