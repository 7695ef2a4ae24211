"""Lazy search for the errors of a document, so that callers can stop after the first hundred.

Pydantic creates an object for every error before it returns: a body of 2 MB with a million invalid
numbers took 2 GB. The models therefore validate lists with `FailFast`, and this module searches the
lists that fail.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import islice
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from schemas.request_errors import FieldError, rule_error, safe_name, to_field_error

Model = type[BaseModel]
_CONFIG = ConfigDict(allow_inf_nan=False)
_CHUNK = 1_000  # elements of a list that are validated at once


def count_names(model: Model, value: object) -> int | None:
    """Counts the member names of a document; returns None if an object has an unknown name."""
    if isinstance(value, model):
        return 0
    names, nested = _field_names(model), _nested_models(model)
    if not isinstance(value, Mapping) or not value.keys() <= names:
        return None
    count = len(value)
    for name, (part, is_list) in nested.items():
        field = value.get(name)
        if field is None:
            continue
        elements = field if is_list and isinstance(field, list | tuple) else (field,)
        known, is_flat = _field_names(part), not _nested_models(part)
        for element in elements:
            if type(element) is dict and is_flat:
                if not element.keys() <= known:
                    return None
                count += len(element)
            else:
                inner = count_names(part, element)
                if inner is None:
                    return None
                count += inner
    return count


@cache
def _field_names(model: Model) -> frozenset[str]:
    return frozenset(model.model_fields)


def iter_errors(model: Model, value: object, pointer: str = "") -> Iterator[FieldError]:
    """Yields every error of a document at its RFC 6901 pointer, in the order of the fields."""
    if isinstance(value, model):
        return
    if not isinstance(value, Mapping):
        yield rule_error(pointer, "model_type")
        return
    valid = True
    for error in _iter_field_errors(model, value, pointer):
        valid = False
        yield error
    if valid:  # only rules that compare fields can fail now
        yield from _run_validator(partial(model.model_validate, value), pointer)


def _iter_field_errors(
    model: Model, value: Mapping[str, Any], pointer: str
) -> Iterator[FieldError]:
    for name, field in model.model_fields.items():
        if name in value:
            yield from _iter_value_errors(model, name, value[name], f"{pointer}/{name}")
        elif field.is_required():
            yield rule_error(f"{pointer}/{name}", "missing")
    for name in value:
        if name not in model.model_fields:
            yield rule_error(f"{pointer}/{safe_name(str(name))}", "extra_forbidden")


def _iter_value_errors(model: Model, name: str, value: Any, pointer: str) -> Iterator[FieldError]:
    part, is_list = _nested_models(model).get(name, (None, False))
    if part is not None and is_list and isinstance(value, list | tuple):
        limit = _max_items(model, name)
        if len(value) > limit:
            yield rule_error(pointer, "too_long")
        for i, element in enumerate(islice(value, limit)):
            if not _is_valid(part, element):
                yield from iter_errors(part, element, f"{pointer}/{i}")
    elif part is not None and not is_list and (value is not None or _is_required(model, name)):
        yield from iter_errors(part, value, pointer)
    elif part is None and isinstance(value, list | tuple) and _is_list(model, name):
        list_adapter, element_adapter = _adapters(model, name)
        for start in range(0, len(value), _CHUNK):
            chunk = value[start : start + _CHUNK]
            if _run_validator(partial(list_adapter.validate_python, chunk), pointer):
                for i, element in enumerate(chunk, start):
                    validate = partial(element_adapter.validate_python, element)
                    yield from _run_validator(validate, f"{pointer}/{i}")
    else:
        adapter, _ = _adapters(model, name)
        yield from _run_validator(partial(adapter.validate_python, value), pointer)


def _is_valid(model: Model, value: object) -> bool:
    if count_names(model, value) is None:
        return False
    return not _run_validator(partial(model.model_validate, value), "")


def _run_validator(validate: Callable[[], object], pointer: str) -> list[FieldError]:
    """Calls `validate` and returns the errors that it raises."""
    try:
        validate()
    except ValidationError as error:
        return [to_field_error(detail, pointer) for detail in error.errors(include_url=False)]
    return []


@cache
def _nested_models(model: Model) -> dict[str, tuple[Model, bool]]:
    """By field: the model of its value, or of its elements if the flag is True."""
    nested: dict[str, tuple[Model, bool]] = {}
    for name, field in model.model_fields.items():
        is_list = _is_list(model, name)
        for annotation in (field.annotation, *get_args(field.annotation)):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                nested[name] = annotation, is_list
    return nested


@cache
def _max_items(model: Model, name: str) -> int:
    metadata = model.model_fields[name].metadata
    return min((getattr(m, "max_length", sys.maxsize) for m in metadata), default=sys.maxsize)


def _is_list(model: Model, name: str) -> bool:
    return get_origin(model.model_fields[name].annotation) is list


def _is_required(model: Model, name: str) -> bool:
    """Whether the value of a field is a model, and not null."""
    annotation = model.model_fields[name].annotation
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


@cache
def _adapters(model: Model, name: str) -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    """Returns validators of a field's value and, if it is a list of plain values, of an element."""
    field = model.model_fields[name]
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation(), config=_CONFIG)
    if not _is_list(model, name) or name in _nested_models(model):
        return adapter, adapter
    (element,) = get_args(field.annotation)
    return adapter, TypeAdapter(element, config=_CONFIG)
