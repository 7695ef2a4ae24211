"""Measured variables and treatments: names, LOINC, UCUM units, plausible ranges, source ids.

Declared once, as data, in `variables.toml` and `treatments.toml`. What a model was trained with
travels in its bundle (`schemas.features.FeatureSpec`), so these files may grow without changing
what an older bundle understands.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator


class Variable(BaseModel):
    """A vital sign or a laboratory value.

    A value in an accepted unit becomes canonical by `factor * value + offset`. `eicu` and
    `mimic_iv` map a source's column or item id to the unit that it is recorded in there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    display: str
    loinc: tuple[str, ...] = ()
    unit: str
    units: dict[str, tuple[float, float]] = {}
    plausible: tuple[float, float]
    aggregate: Literal["level", "sum"] = "level"
    molar_mass: float | None = None
    valence: int | None = None
    eicu: dict[str, str] = {}
    mimic_iv: dict[int, str] = {}

    @field_validator("units", mode="before")
    @classmethod
    def _with_offset(cls, units: dict[str, Any]) -> dict[str, Any]:
        return {u: c if isinstance(c, list | tuple) else (c, 0.0) for u, c in units.items()}

    @property
    def dimensionless(self) -> bool:
        """Whether a series may come without a unit: a score, a pH, a ratio."""
        return self.unit == "[pH]" or self.unit.startswith("{")

    def conversion(self, unit: str | None) -> tuple[float, float] | None:
        """`(factor, offset)` from a UCUM code to the canonical unit; None if there is none."""
        if unit is None:
            return (1.0, 0.0) if self.dimensionless else None
        return (1.0, 0.0) if unit == self.unit else self.units.get(unit)

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.unit, *self.units)


class Treatment(BaseModel):
    """Something done to a patient over a time, with or without a rate.

    Rates in `units` become canonical by a factor; those in `units_per_weight` are absolute and are
    divided by the patient's weight in kg as well. `pattern` finds the treatment in free-text drug
    names of the open databases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    display: str
    unit: str | None = None
    units: dict[str, float] = {}
    units_per_weight: dict[str, float] = {}
    plausible: tuple[float, float] | None = None
    pattern: str
    mimic_iv: tuple[int, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        return (() if self.unit is None else (self.unit,)) + (*self.units, *self.units_per_weight)


@cache
def load_variables() -> tuple[Variable, ...]:
    """All declared variables, in the order of `variables.toml`."""
    declared = _toml("variables.toml")["variables"]
    return tuple(Variable(name=name, **fields) for name, fields in declared.items())


@cache
def load_treatments() -> tuple[Treatment, ...]:
    """All declared treatments, in the order of `treatments.toml`."""
    declared = _toml("treatments.toml")["treatments"]
    return tuple(Treatment(name=name, **fields) for name, fields in declared.items())


@cache
def load_spellings() -> dict[str, str]:
    """Unit spellings met in the wild, each with the UCUM code that it stands for."""
    spellings: dict[str, str] = _toml("variables.toml")["spellings"]
    for_rates: dict[str, str] = _toml("treatments.toml")["spellings"]
    return spellings | for_rates


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads(files("schemas").joinpath(name).read_text(encoding="utf-8"))
