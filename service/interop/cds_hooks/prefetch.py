"""Joins the prefetched resources of a call into one Bundle (CDS Hooks, "Prefetch Template")."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from schemas.request_errors import FieldError, InvalidPayload
from service.errors import PreconditionFailed
from service.interop.cds_hooks.documents import refuse
from service.interop.cds_hooks.models import Context
from service.interop.cds_hooks.services import CdsService

_ENTRY = re.compile(r"Bundle\.entry\[(\d+)\](?:\.resource)?(.*)", re.DOTALL)
_INDEX = re.compile(r"\[(\d+)\]")
_FAILED = ("fatal", "error")
# Types of the elements that have several, such as value[x] (FHIR R4, section 2.1.7.1).
_CHOICES = ("Quantity", "String", "Integer", "DateTime", "Period", "Instant", "CodeableConcept")


class Origin(NamedTuple):
    """Where an entry of the joined Bundle was sent. `entry`: None for a resource by itself."""

    key: str
    entry: int | None

    def pointer(self) -> str:
        """A JSON Pointer to the resource."""
        head = f"/prefetch/{self.key}"
        return head if self.entry is None else f"{head}/entry/{self.entry}/resource"


@dataclass(frozen=True)
class JoinedPrefetch:
    """The Bundle of a call, the origin of each entry, and the keys that have further pages."""

    bundle: dict[str, Any]
    origins: Sequence[Origin]
    incomplete: tuple[str, ...]

    def locate(self, error: FieldError) -> FieldError:
        """The error of the Bundle at its place in the request."""
        match = _ENTRY.fullmatch(error.pointer)
        if match is None:
            return error.model_copy(update={"pointer": "/prefetch"})
        number = int(match[1])
        below = _below(self.bundle["entry"][number]["resource"], match[2])
        return error.model_copy(update={"pointer": self.origins[number].pointer() + below})


def _below(resource: Any, path: str) -> str:
    """The JSON Pointer of a FHIRPath below a resource: `.value` may be `/valueQuantity`."""
    pointer, part = "", resource
    for name in filter(None, _INDEX.sub(r".\1", path).split(".")):
        step = name
        if isinstance(part, dict):
            choices = (f"{name}{kind}" for kind in ("", *_CHOICES))
            step = next((key for key in choices if key in part), name)
            part = part.get(step)
        elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        pointer += f"/{step}"
    return pointer


def join_prefetch(
    sent: Mapping[str, Any], service: CdsService, context: Context, as_of: datetime
) -> JoinedPrefetch:
    """Joins the values of the service's prefetch keys. Other keys are not read.

    Raises PreconditionFailed: a key is missing, is null and may not be, or holds an error of the
    FHIR server. Raises InvalidPayload: a value is no resource, or belongs to another patient.
    """
    missing = [*_missing(sent, service)]
    if missing:
        raise PreconditionFailed(missing)
    entries: list[dict[str, Any]] = []
    origins: list[Origin] = []
    incomplete = []
    for key in service.prefetch:
        value = sent[key]
        for origin, entry in _entries(key, value):
            _check_identity(origin, entry["resource"], context)
            entries.append(entry)
            origins.append(origin)
        if isinstance(value, dict) and _has_next_page(value):
            incomplete.append(key)
    _check_required(origins, entries, service)
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": as_of.isoformat(),
        "entry": entries,
    }
    return JoinedPrefetch(bundle, origins, tuple(incomplete))


def _missing(sent: Mapping[str, Any], service: CdsService) -> Iterator[FieldError]:
    for key in service.prefetch:
        pointer = f"/prefetch/{key}"
        if key not in sent:
            detail = "is missing; send the resources, or null if the record has none"
            yield FieldError(pointer=pointer, rule="required", detail=detail)
        elif sent[key] is None and key in service.required:
            detail = "is null, and without it nothing can be predicted"
            yield FieldError(pointer=pointer, rule="required", detail=detail)
        elif _is_failure(sent[key]):
            detail = "is an OperationOutcome: the client could not get the resources"
            yield FieldError(pointer=pointer, rule="prefetch_failed", detail=detail)


def _is_failure(value: Any) -> bool:
    return isinstance(value, dict) and value.get("resourceType") == "OperationOutcome"


def _entries(key: str, value: Any) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """The entries of one key, each with a resource. Raises InvalidPayload, PreconditionFailed."""
    pointer = f"/prefetch/{key}"
    if value is None:
        return
    kind = value.get("resourceType") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        refuse(pointer, "resource_type", "must be a FHIR resource, a searchset Bundle, or null")
    if kind != "Bundle":
        yield Origin(key, None), {"resource": value}
        return
    listed = value.get("entry", [])
    if not isinstance(listed, list):
        refuse(f"{pointer}/entry", "array", "must be an array")
    for i, entry in enumerate(listed):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            detail = "must be an entry with a resource, which has a resourceType"
            refuse(f"{pointer}/entry/{i}", "resource_type", detail)
        if _is_failure(resource):
            _check_outcome(Origin(key, i), resource)
            continue
        named = {"fullUrl": entry["fullUrl"]} if isinstance(entry.get("fullUrl"), str) else {}
        yield Origin(key, i), named | {"resource": resource}


def _check_outcome(origin: Origin, outcome: Mapping[str, Any]) -> None:
    """A search may add warnings to its results, or state that it failed (FHIR R4, 3.1.1.5)."""
    issues = outcome.get("issue")
    for part in issues if isinstance(issues, list) else ():
        if not isinstance(part, dict) or part.get("severity") in _FAILED:
            detail = "the search of the client failed: an OperationOutcome with an error"
            pointer = origin.pointer()
            raise PreconditionFailed(
                [FieldError(pointer=pointer, rule="prefetch_failed", detail=detail)]
            )


def _has_next_page(value: Mapping[str, Any]) -> bool:
    links = value.get("link")
    return isinstance(links, list) and any(
        isinstance(link, dict) and link.get("relation") == "next" for link in links
    )


def _check_identity(origin: Origin, resource: Mapping[str, Any], context: Context) -> None:
    """The Patient, and an Encounter that was read by its id, are those of the context."""
    kind, sent = resource.get("resourceType"), resource.get("id")
    if kind == "Patient" and sent != context.patientId:
        detail = "must be the patient of context.patientId"
        refuse(f"{origin.pointer()}/id", "one_patient", detail)
    is_read = origin == Origin("encounter", None) and kind == "Encounter"
    if is_read and context.encounterId and sent != context.encounterId:
        detail = "must be the encounter of context.encounterId"
        refuse(f"{origin.pointer()}/id", "one_encounter", detail)


def _check_required(
    origins: Sequence[Origin], entries: Sequence[Mapping[str, Any]], service: CdsService
) -> None:
    """Raises PreconditionFailed if a required key holds no resource of its type."""
    sent = {
        (origin.key, entry["resource"].get("resourceType"))
        for origin, entry in zip(origins, entries, strict=True)
    }
    for key in service.required:
        kind = key.capitalize()
        if (key, kind) not in sent:
            detail = f"must hold the {kind}, without which nothing can be predicted"
            pointer = f"/prefetch/{key}"
            raise PreconditionFailed([FieldError(pointer=pointer, rule="required", detail=detail)])


def located(error: InvalidPayload, joined: JoinedPrefetch) -> Exception:
    """The error of reading the joined Bundle, at its places in the request.

    A Bundle that holds nothing which the model reads is no error of the client.
    """
    errors = [joined.locate(part) for part in error.errors]
    if any(part.rule == "not_empty" and part.pointer == "/prefetch" for part in errors):
        detail = "the record holds nothing that the model reads"
        return PreconditionFailed(
            [FieldError(pointer="/prefetch", rule="not_empty", detail=detail)]
        )
    return InvalidPayload(errors)
