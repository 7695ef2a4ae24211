"""Measured variables and treatments: names, LOINC, UCUM units, plausible ranges, source ids.

Declared once, as data, in `variables.toml` and `treatments.toml`. What a model was trained with
travels in its bundle (`schemas.features.FeatureSpec`), so these files may grow without changing
what an older bundle understands.
"""

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] >= limits[1]:
        raise ValueError("the first must be below the second")
    return limits


Name = Annotated[str, Field(min_length=1, max_length=200)]
Factor = Annotated[float, Field(gt=0, le=1e15)]
Range = Annotated[tuple[float, float], AfterValidator(_rising)]

_LONGEST_NAME = 100  # characters; a longer name is that of no variable
_LOINC = re.compile(
    r"((https?://(www\.)?loinc\.org/?|(urn:oid:)?2\.16\.840\.1\.113883\.6\.1|loinc|ln)"
    r"\s*[:|/^ ]?\s*)?"
    r"(?P<code>\d{1,7}-\d)(\^[^^]*(\^(ln|loinc))?)?",
    re.IGNORECASE | re.ASCII,
)
_NOT_A_WORD = re.compile(r"[\W_]+")


class Variable(BaseModel):
    """A vital sign or a laboratory value.

    A value in an accepted unit becomes canonical by `factor * value + offset`.
    `spellings`: units of this variable alone, as `schemas.terminology.units` folds them.
    `moles_only`: codes of `loinc` that mean another substance if the unit is a mass.
    `aliases`: other names. `typical`: where nearly all patients are, in the canonical unit.
    `sensor_off`: what a sensor gives that is not attached.
    `eicu` and `mimic_iv` map a source's column or item id to the unit that it is recorded in there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Name
    display: str
    loinc: tuple[str, ...] = ()
    moles_only: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    unit: str
    units: dict[str, tuple[Factor, float]] = {}
    spellings: dict[str, str] = {}
    plausible: Range
    typical: Range | None = None
    sensor_off: float | None = None
    aggregate: Literal["level", "sum"] = "level"
    molar_mass: float | None = Field(None, gt=0)
    valence: int | None = None
    eicu: dict[str, str] = {}
    mimic_iv: dict[int, str] = {}

    @field_validator("units", mode="before")
    @classmethod
    def _with_offset(cls, units: Any) -> Any:
        if not isinstance(units, dict):
            return units
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

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Name
    display: str
    unit: str | None = None
    units: dict[str, Factor] = {}
    units_per_weight: dict[str, Factor] = {}
    plausible: Range | None = None
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


def with_declared(variables: Sequence[Variable]) -> tuple[Variable, ...]:
    """A bundle's variables with the codes, units and ranges that this software declares for them.

    These are a dictionary and were not learned, so a bundle profits from what was added since it
    was made. A declared variable counts if name and canonical unit are the same. The bundle's own
    codes, conversions and ranges go first.
    """
    declared = {(v.name, v.unit): v for v in load_variables()}
    taken = {code for v in variables for code in v.loinc}
    return tuple(_joined(v, declared.get((v.name, v.unit)), taken) for v in variables)


def _joined(own: Variable, declared: Variable | None, taken: set[str]) -> Variable:
    if declared is None:
        return own
    more = tuple(code for code in declared.loinc if code not in taken)
    return own.model_copy(
        update={
            "loinc": own.loinc + more,
            "aliases": declared.aliases,
            "units": declared.units | own.units,
            "spellings": declared.spellings | own.spellings,
            "moles_only": declared.moles_only,
            "typical": own.typical or declared.typical,
            "sensor_off": declared.sensor_off if own.sensor_off is None else own.sensor_off,
            "molar_mass": own.molar_mass or declared.molar_mass,
            "valence": own.valence or declared.valence,
        }
    )


def name_key(name: str) -> str:
    """A variable's name as it is compared: `Heart Rate`, `heart-rate` and `heart_rate` are one.

    A LOINC is `loinc:CODE`, however it is written: `LOINC:2160-0`, `http://loinc.org|2160-0`,
    `2160-0`, `2160-0^Creatinine^LN`.
    """
    code = _LOINC.fullmatch(name.strip()) if len(name) <= _LONGEST_NAME else None
    if code is not None:
        return f"loinc:{code['code']}"
    return _NOT_A_WORD.sub("_", name[:_LONGEST_NAME].casefold()).strip("_")


@cache
def load_treatments() -> tuple[Treatment, ...]:
    """All declared treatments, in the order of `treatments.toml`."""
    declared = _toml("treatments.toml")["treatments"]
    return tuple(Treatment(name=name, **fields) for name, fields in declared.items())


@cache
def load_treatment_names() -> tuple[dict[str, str], dict[str, str]]:
    """By treatment: a pattern of further names in a request, and one of names that are not its."""
    names = _toml("treatments.toml")["names"]
    return names["also"], names["never"]


@cache
def load_not_read() -> dict[str, str]:
    """Names and codes that are no declared variable's though hospitals send them, with the reason.

    By `name_key`.
    """
    declared: dict[str, str] = _toml("variables.toml")["not_read"]
    return {name_key(name): reason for name, reason in declared.items()}


@cache
def load_spellings() -> dict[str, str]:
    """Unit spellings met in the wild, each with the UCUM code that it stands for."""
    spellings: dict[str, str] = _toml("variables.toml")["spellings"]
    for_rates: dict[str, str] = _toml("treatments.toml")["spellings"]
    return spellings | for_rates


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads(files("schemas").joinpath(name).read_text(encoding="utf-8"))
