"""The files that say how to train: the TOML file of `--config`, the choices of `tune`."""

import json
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from model.errors import UserError, reason_of
from model.training.prepare import TrainConfig

# By model, by inputs, by fold: the number of the candidate (`model.evaluation.study.CANDIDATES`).
Choices = dict[str, dict[str, dict[str, int]]]


class ConfigError(UserError):
    """A configuration that cannot be read; its text is one line that names the file."""


def read_config(path: Path | None) -> TrainConfig:
    """How to train; the defaults without a file. Raises ConfigError."""
    if path is None:
        return TrainConfig()
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        fields = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        last = f"at line {text.count(chr(10)) + 1}, the last one"
        reason = reason_of(error).replace("at end of document", last)
        raise ConfigError(f"{path}: {reason}") from None
    try:
        # As JSON, because strictness then allows a list for a tuple and no text for a number.
        return TrainConfig.model_validate_json(json.dumps(fields, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_faults(error))}") from None


def read_choices(path: Path) -> Choices:
    """What `m3h-model tune` chose. Raises ConfigError."""
    try:
        return TypeAdapter(Choices).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{path}: no outcome of 'm3h-model tune': {reason_of(error)}") from None


def _faults(error: ValidationError) -> Iterator[str]:
    known = list(_names(TrainConfig))
    for fault in error.errors(include_input=False, include_url=False):
        name = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            nearest = _nearest(name, known)
            yield f"{name} is not known" + (f"; the nearest is {nearest}" if nearest else "")
        else:
            yield f"{name}: {fault['msg'].removeprefix('Value error, ')}"


def _names(model: type[BaseModel], table: str = "") -> Iterator[str]:
    """The names that a file may have, those of a table with the table's name before a dot."""
    for name, field in model.model_fields.items():
        yield table + name
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _names(kind, f"{name}.")


def _nearest(name: str, known: list[str]) -> str | None:
    """A name that may have been meant, in this table or in another one."""
    own = {k.rpartition(".")[2]: k for k in reversed(known)}
    last = name.rpartition(".")[2]
    found = get_close_matches(name, known, 1) or get_close_matches(last, list(own), 1)
    return own.get(found[0], found[0]) if found else None
