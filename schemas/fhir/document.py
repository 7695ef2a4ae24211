"""The JSON text of a request: a Bundle, or Parameters that hold one (FHIR R4, section 2.6).

`orjson` parses short bodies, which is the fastest. Bodies above a megabyte are parsed in chunks, so
that other threads can run meanwhile.
"""

import re
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from schemas.parsing.chunked_json import CHUNK_BYTES
from schemas.parsing.json_body import count_names, read_json, refuse_repeated_names
from schemas.request_errors import FieldError, InvalidPayload

Resource = dict[str, Any]

BUNDLE_TYPES = ("collection", "searchset", "batch", "transaction")
MAX_ENTRIES = 100_000
_BUNDLE_PARAMETER, _AS_OF_PARAMETER = "bundle", "asOf"
_NAME = re.compile(rb'"[ \t\r\n]*:')
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class BundleDocument:
    """A parsed request.

    `path`: FHIRPath of the Bundle. `as_of`, `as_of_path`: the time of the prediction as sent, from
    the Parameters or from `Bundle.timestamp`, and its FHIRPath; None without one. `has_more`:
    whether the Bundle is a page of a search that has a next page.
    """

    path: str
    entries: list[Any]
    as_of: object = None
    as_of_path: str = "Bundle.timestamp"
    has_more: bool = False


def parse_document(body: bytes) -> BundleDocument:
    """Parses a request.

    Raises InvalidPayload: rule `json` if the body is not JSON in UTF-8. Otherwise the pointer of
    each error is the FHIRPath of the element.
    """
    document = _parse_json(body)
    if not isinstance(document, dict) or "resourceType" not in document:
        refuse("", "resource_type", "must be a FHIR resource with a resourceType")
    match document["resourceType"]:
        case "Bundle":
            bundle, path = document, "Bundle"
            sent: tuple[object, str] = (None, "")
        case "Parameters":
            bundle, path, sent = _read_parameters(document)
        case _:
            refuse("resourceType", "resource_type", "must be Bundle, or Parameters with a Bundle")
    if sent[0] is None:
        sent = (bundle.get("timestamp"), f"{path}.timestamp")
    links = bundle.get("link")
    has_more = isinstance(links, list) and any(
        isinstance(link, dict) and link.get("relation") == "next" for link in links
    )
    return BundleDocument(path, _read_entries(bundle, path), *sent, has_more)


def _parse_json(body: bytes) -> Any:
    if len(body) > CHUNK_BYTES:
        document, names = read_json(body)
        if names != count_names(document):
            _refuse_repeated_names(body, document)
        return document
    try:
        document = orjson.loads(body.removeprefix(_MARK))
    except ValueError:
        refuse("", "json", _json_fault(body))
    _check_repeated_names(body, document)
    return document


def _json_fault(body: bytes) -> str:
    if body.lstrip(_MARK + b" \t\r\n").startswith(b"<"):
        return "the body looks like XML; send the resource as JSON"
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in body[:4]:
        return "the body looks like UTF-16 or UTF-32; send JSON in UTF-8"
    return "the body is not a JSON document in UTF-8"


def _check_repeated_names(body: bytes, document: Any) -> None:
    """Refuses an object with a repeated name, of which parsers keep different values.

    The text that is written from the document has each name once. Both counts include `":` inside
    texts, so that they are equal for a document without repeated names.
    """
    try:
        written = orjson.dumps(document)
    except orjson.JSONEncodeError:  # deeper than orjson writes
        refuse("", "json", "arrays and objects are nested too deeply")
    if written == body:
        return  # the body has no white space and no escaped characters
    count = written.count(b'":')
    if body.count(b'":') == count or len(_NAME.findall(body)) == count:
        return
    _refuse_repeated_names(body, document)


def _refuse_repeated_names(body: bytes, document: Any) -> None:
    """Raises InvalidPayload if an object has a repeated name; the pointers are FHIRPath."""
    kind = document.get("resourceType") if isinstance(document, dict) else None
    head = kind if kind in ("Bundle", "Parameters") else ""
    try:
        refuse_repeated_names(body)
    except InvalidPayload as error:
        raise InvalidPayload(
            [f.model_copy(update={"pointer": _to_fhir_path(f.pointer, head)}) for f in error.errors]
        ) from None


def _to_fhir_path(pointer: str, head: str) -> str:
    """Converts a JSON Pointer to FHIRPath: `/entry/3/resource` is `Bundle.entry[3].resource`.

    The path ends before a name that could be a value.
    """
    path = re.sub(r"/(\d+)(?=/|$)", r"[\1]", pointer.partition("/(")[0])
    return (head + path.replace("/", ".")).removeprefix(".")


def _read_parameters(document: Resource) -> tuple[Resource, str, tuple[object, str]]:
    """Returns the Bundle, its FHIRPath, and the time of the prediction with its FHIRPath."""
    parameters = document.get("parameter")
    bundle, path = None, ""
    as_of: tuple[object, str] = (None, "")
    for i, part in enumerate(parameters if isinstance(parameters, list) else ()):
        name = part.get("name") if isinstance(part, dict) else None
        place = f"Parameters.parameter[{i}]"
        if name == _BUNDLE_PARAMETER and bundle is None:
            bundle, path = part.get("resource"), f"{place}.resource"
        elif name == _AS_OF_PARAMETER and as_of[0] is None:
            as_of = (part.get("valueInstant", part.get("valueDateTime")), f"{place}.value")
            if as_of[0] is None:
                refuse(f"{place}.value", "required", "must be an instant or a dateTime")
        else:
            detail = "must be bundle or asOf, each once; see the OperationDefinition"
            refuse(f"{place}.name", "unknown_parameter", detail)
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        detail = "needs a parameter named bundle whose resource is a Bundle"
        refuse(path or "Parameters.parameter", "required", detail)
    return bundle, path, as_of


def _read_entries(bundle: Resource, path: str) -> list[Any]:
    if bundle.get("type") not in BUNDLE_TYPES:
        refuse(f"{path}.type", "bundle_type", f"must be one of {', '.join(BUNDLE_TYPES)}")
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        refuse(f"{path}.entry", "array", "must be an array")
    if len(entries) > MAX_ENTRIES:
        detail = f"holds more than {MAX_ENTRIES} entries; send the last days of the stay"
        refuse(f"{path}.entry", "max_items", detail)
    return entries


def refuse(expression: str, rule: str, detail: str) -> NoReturn:
    """Raises InvalidPayload with one error at a FHIRPath expression."""
    raise InvalidPayload([FieldError(pointer=expression, rule=rule, detail=detail)])
