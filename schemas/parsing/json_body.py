"""The JSON text of a request: read within bounds of memory, every name of an object once."""

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic_core import from_json

from schemas.parsing import json_pieces
from schemas.request_errors import LISTED, FieldError, InvalidPayload, shown_name

# Of one body. A value takes up to 100 bytes of memory however short its text is; an array, an
# object or a name takes 300. 32 MiB of measurements hold 3,000,000 values.
MAX_VALUES, MAX_CONTAINERS, MAX_NAMES = 3_000_000, 1_000_000, 1_000_000

_SHORT = 64 * 2**10  # bytes; a body that is no longer cannot hold too much
_NAME = re.compile(rb'"[ \t\r\n]*:')
_COMMA, _COLON, _OPEN = b",:{"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16 = re.compile(rb"\xff\xfe|\xfe\xff|\x00|.\x00", re.DOTALL)


def read_json(body: bytes | str) -> tuple[Any, int]:
    """The document, and how many names its objects hold, a repeated one as often as it stands.

    The number may be too high, never too low. A byte order mark of UTF-8 is passed over (RFC 8259,
    section 8.1).

    Raises InvalidPayload: rule `json` if the body is no JSON in UTF-8, `too_many_values` if it
    holds more than the limits allow.
    """
    text = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    text = text.removeprefix(_UTF8_MARK)
    names = len(_NAME.findall(text)) if len(text) <= _SHORT else _bounded_names(text)
    try:
        return (json_pieces.parse if len(text) > json_pieces.PIECE else from_json)(text), names
    except ValueError:
        detail = "the body is not a JSON document in UTF-8"
        if _UTF16.match(text):
            detail = "the body looks like UTF-16 or UTF-32; JSON is sent in UTF-8"
        raise InvalidPayload([FieldError(pointer="", rule="json", detail=detail)]) from None


def _bounded_names(body: bytes) -> int:
    """How many names the objects of a large body hold, once all its limits are seen to be kept."""
    names = commas = containers = 0
    for _, chunk, outside in json_pieces.chunks(body):
        names += int(np.count_nonzero((chunk == _COLON) & outside))
        commas += int(np.count_nonzero((chunk == _COMMA) & outside))
        # "[" and "{" differ in this bit alone.
        containers += int(np.count_nonzero(((chunk | 0x20) == _OPEN) & outside))
        if commas > MAX_VALUES or containers > MAX_CONTAINERS or names > MAX_NAMES:
            detail = (
                f"holds more than {MAX_VALUES} values, {MAX_CONTAINERS} arrays and objects or "
                f"{MAX_NAMES} names; send fewer patients, or fewer measurements, at once"
            )
            raise InvalidPayload([FieldError(pointer="", rule="too_many_values", detail=detail)])
    return names


class _Repeated(dict[str, Any]):
    """An object that holds a name twice."""


def refuse_repeated_names(body: bytes | str) -> None:
    """Refuses a valid JSON document in which an object holds a name twice.

    Readers differ in which one counts (RFC 8259, section 4): half of a record would be lost in
    silence. Raises InvalidPayload.
    """
    found = False

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        fields = dict(pairs)
        if len(fields) == len(pairs):
            return fields
        found = True
        return _Repeated(fields)

    text = body.removeprefix(_UTF8_MARK) if isinstance(body, bytes) else body
    # Numbers are not looked at here.
    try:
        document = json.loads(
            text, object_pairs_hook=keep, parse_int=_nothing, parse_float=_nothing
        )
    except RecursionError:
        detail = "arrays and objects are nested too deeply"
        raise InvalidPayload([FieldError(pointer="", rule="json", detail=detail)]) from None
    if found:
        detail = "this object holds a name twice"
        raise InvalidPayload(
            [
                FieldError(pointer=pointer, rule="repeated_name", detail=detail)
                for _, pointer in zip(range(LISTED + 1), _repeated("", document), strict=False)
            ]
        )


def _nothing(_: str) -> None:
    return None


def _repeated(pointer: str, value: Any) -> Iterable[str]:
    """Pointers to objects that hold a name twice. Names that a patient's might be are withheld."""
    if isinstance(value, _Repeated):
        yield pointer
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _repeated(f"{pointer}/{shown_name(name)}", part)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            if isinstance(part, dict | list):
                yield from _repeated(f"{pointer}/{i}", part)
