"""Finds the faults of a document one after the other, so that a search can end after a hundred.

Pydantic makes an object for each error of a document before it returns: a body of 2 MB with a
million wrong numbers took 2 GB. Lists are therefore validated with `FailFast`, and what they refuse
is searched here.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import islice
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from schemas.request_errors import FieldError, fault_of, rule_fault, shown_name

Model = type[BaseModel]
_CONFIG = ConfigDict(allow_inf_nan=False)
_CHUNK = 1_000  # elements of a list that are validated at once


def count_names(model: Model, value: object) -> int | None:
    """How many names the objects of a document hold; None if one of them is unknown there."""
    if isinstance(value, model):
        return 0
    names, parts = _names(model), _parts(model)
    if not isinstance(value, Mapping) or not value.keys() <= names:
        return None
    count = len(value)
    for name, (part, is_list) in parts.items():
        inside = value.get(name)
        if inside is None:
            continue
        elements = inside if is_list and isinstance(inside, list | tuple) else (inside,)
        known, has_parts = _names(part), bool(_parts(part))
        for element in elements:
            if type(element) is dict and not has_parts:
                if not element.keys() <= known:
                    return None
                count += len(element)
            else:
                of_element = count_names(part, element)
                if of_element is None:
                    return None
                count += of_element
    return count


@cache
def _names(model: Model) -> frozenset[str]:
    return frozenset(model.model_fields)


def faults(model: Model, value: object, pointer: str = "") -> Iterator[FieldError]:
    """Every fault of a document, in the order of the model's fields, at their RFC 6901 pointers."""
    if isinstance(value, model):
        return
    if not isinstance(value, Mapping):
        yield rule_fault(pointer, "model_type")
        return
    valid = True
    for fault in _fields_faults(model, value, pointer):
        valid = False
        yield fault
    if valid:  # rules that join fields
        yield from _refused(partial(model.model_validate, value), pointer)


def _fields_faults(model: Model, value: Mapping[str, Any], pointer: str) -> Iterator[FieldError]:
    for name, field in model.model_fields.items():
        if name in value:
            yield from _field_faults(model, name, value[name], f"{pointer}/{name}")
        elif field.is_required():
            yield rule_fault(f"{pointer}/{name}", "missing")
    for name in value:
        if name not in model.model_fields:
            yield rule_fault(f"{pointer}/{shown_name(str(name))}", "extra_forbidden")


def _field_faults(model: Model, name: str, value: Any, pointer: str) -> Iterator[FieldError]:
    part, is_list = _parts(model).get(name, (None, False))
    if part is not None and is_list and isinstance(value, list | tuple):
        most = _most_items(model, name)
        if len(value) > most:
            yield rule_fault(pointer, "too_long")
        for i, one in enumerate(islice(value, most)):
            if not _is_valid(part, one):
                yield from faults(part, one, f"{pointer}/{i}")
    elif part is not None and not is_list and value is not None:
        yield from faults(part, value, pointer)
    elif part is None and isinstance(value, list | tuple) and _is_list(model, name):
        whole, element = _adapters(model, name)
        for start in range(0, len(value), _CHUNK):
            chunk = value[start : start + _CHUNK]
            if _refused(partial(whole.validate_python, chunk), pointer):
                for i, one in enumerate(chunk, start):
                    yield from _refused(partial(element.validate_python, one), f"{pointer}/{i}")
    else:
        whole, _ = _adapters(model, name)
        yield from _refused(partial(whole.validate_python, value), pointer)


def _is_valid(model: Model, value: object) -> bool:
    if count_names(model, value) is None:
        return False
    return not _refused(partial(model.model_validate, value), "")


def _refused(validate: Callable[[], object], pointer: str) -> list[FieldError]:
    try:
        validate()
    except ValidationError as error:
        return [fault_of(e, pointer) for e in error.errors(include_url=False)]
    return []


@cache
def _parts(model: Model) -> dict[str, tuple[Model, bool]]:
    """The fields that hold a document of another model, or (True) a list of such."""
    found: dict[str, tuple[Model, bool]] = {}
    for name, field in model.model_fields.items():
        is_list = _is_list(model, name)
        for inside in (field.annotation, *get_args(field.annotation)):
            if isinstance(inside, type) and issubclass(inside, BaseModel):
                found[name] = inside, is_list
    return found


@cache
def _most_items(model: Model, name: str) -> int:
    metadata = model.model_fields[name].metadata
    return min((getattr(m, "max_length", sys.maxsize) for m in metadata), default=sys.maxsize)


def _is_list(model: Model, name: str) -> bool:
    return get_origin(model.model_fields[name].annotation) is list


@cache
def _adapters(model: Model, name: str) -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    """Of a field's whole value, and of one element if that is a list."""
    field = model.model_fields[name]
    whole: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation(), config=_CONFIG)
    if not _is_list(model, name) or name in _parts(model):
        return whole, whole
    (element,) = get_args(field.annotation)
    return whole, TypeAdapter(element, config=_CONFIG)
