"""The configuration of a training: `TrainConfig`, its TOML file, and the choices of `tune`."""

import json
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from model.errors import UserError, error_reason
from model.network.config import NetConfig

# By model, by inputs, by fold: the number of the candidate (`model.evaluation.study.CANDIDATES`).
Choices = dict[str, dict[str, dict[str, int]]]

_LOSS_WEIGHTS = {
    "binary": 1.0,
    "multiclass": 0.1,
    "regression": 0.1,
    "clustering": 0.1,
}


class ConfigError(UserError):
    """A configuration that cannot be read. Its text is one line that names the file."""


class TrainConfig(BaseModel):
    """The settings of a training. A TOML file with these names overrides them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    net: NetConfig = NetConfig()
    seed: int = Field(0, ge=0)
    # Networks of the ensemble. Each member holds out other hospitals for early stopping, as the
    # folds of a cross-validation do.
    members: int = Field(8, ge=1)
    epochs: int = Field(60, ge=1)
    patience: int = Field(6, ge=1)
    batch: int = Field(256, ge=1)
    learning_rate: float = Field(5e-4, gt=0, le=1)
    weight_decay: float = Field(0.1, ge=0, le=1)
    # Decay of the exponential moving average of the weights, which is validated and served.
    averaging: float = Field(0.97, ge=0, lt=1)
    # Modality dropout: with this probability a patient keeps all modalities. Otherwise each is
    # hidden with probability 1/2, so that any subset works, and no modality gives the prevalence.
    keep_all_modalities: float = Field(0.3, ge=0, le=1)
    # Weight of the penalty on changes in a wrong direction (`model.training.directions`).
    direction_weight: float = Field(3.0, ge=0, allow_inf_nan=False)
    # A kind that is not named keeps its default.
    loss_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = _LOSS_WEIGHTS

    @field_validator("loss_weights")
    @classmethod
    def _add_defaults(cls, weights: dict[str, float]) -> dict[str, float]:
        if not weights.keys() <= _LOSS_WEIGHTS.keys():
            raise ValueError(f"the kinds of tasks are {', '.join(_LOSS_WEIGHTS)}")
        return {**_LOSS_WEIGHTS, **weights}


def read_config(path: Path | None) -> TrainConfig:
    """The configuration in a TOML file; the defaults without a file.

    Raises ConfigError if the file cannot be read or holds an unknown name or a wrong value.
    """
    if path is None:
        return TrainConfig()
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        fields = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        last = f"at line {text.count(chr(10)) + 1}, the last one"
        reason = error_reason(error).replace("at end of document", last)
        raise ConfigError(f"{path}: {reason}") from None
    try:
        # Strict validation of JSON accepts a list for a tuple, but no text for a number.
        return TrainConfig.model_validate_json(json.dumps(fields, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_faults(error))}") from None


def read_choices(path: Path) -> Choices:
    """The choices that `m3h-model tune` wrote. Raises ConfigError if the file holds none."""
    try:
        return TypeAdapter(Choices).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{path} is not an output of 'm3h-model tune': {error_reason(error)}"
        ) from None


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
    """The names that a file may have; a dot separates a table from a name in it."""
    for name, field in model.model_fields.items():
        yield table + name
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _names(kind, f"{name}.")


def _nearest(name: str, known: list[str]) -> str | None:
    """The known name most like `name`, in any table."""
    by_last_part = {k.rpartition(".")[2]: k for k in reversed(known)}
    last = name.rpartition(".")[2]
    matches = get_close_matches(name, known, 1) or get_close_matches(last, list(by_last_part), 1)
    return by_last_part.get(matches[0], matches[0]) if matches else None
