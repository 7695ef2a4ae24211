"""Measured variables and treatments: names, LOINC codes, UCUM units, plausible ranges, source ids.

`variables.toml` and `treatments.toml` declare them. The declarations that a model was trained with
travel in its bundle (`schemas.features.FeatureSpec`), so these files can grow without changing the
behaviour of an older bundle.
"""

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator


def _check_range(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] >= limits[1]:
        raise ValueError("the first number must be below the second")
    return limits


Name = Annotated[str, Field(min_length=1, max_length=200)]
Factor = Annotated[float, Field(gt=0, le=1e15)]
Range = Annotated[tuple[float, float], AfterValidator(_check_range)]

_MAX_NAME_LENGTH = 100  # characters; no variable has a longer name
_LOINC = re.compile(
    r"((https?://(www\.)?loinc\.org/?|(urn:oid:)?2\.16\.840\.1\.113883\.6\.1|loinc|ln)"
    r"\s*[:|/^ ]?\s*)?"
    r"(?P<code>\d{1,7}-\d)(\^[^^]*(\^(ln|loinc))?)?",
    re.IGNORECASE | re.ASCII,
)
_NOT_A_WORD = re.compile(r"[\W_]+")


class Variable(BaseModel):
    """A vital sign or a laboratory value.

    `unit`: the canonical unit. `units`: (factor, offset) by accepted unit; the canonical value is
    factor * value + offset.
    `spellings`: unit spellings of this variable only, folded as in `schemas.terminology.units`.
    `moles_only`: those of the `loinc` codes that mean another substance if the unit is a mass.
    `aliases`: other names. `plausible`: range of possible values. `typical`: range of nearly all
    patients. Both are in the canonical unit.
    `sensor_off`: the value that a detached sensor reports.
    `eicu`, `mimic_iv`: by column or item id of the source, the unit of its values.
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
    def _add_offsets(cls, units: Any) -> Any:
        if not isinstance(units, dict):
            return units
        return {u: c if isinstance(c, list | tuple) else (c, 0.0) for u, c in units.items()}

    @property
    def dimensionless(self) -> bool:
        """Whether the unit of a series is optional: scores, pH and ratios."""
        return self.unit == "[pH]" or self.unit.startswith("{")

    def conversion(self, unit: str | None) -> tuple[float, float] | None:
        """Returns (factor, offset) from a UCUM code to the canonical unit, or None."""
        if unit is None:
            return (1.0, 0.0) if self.dimensionless else None
        return (1.0, 0.0) if unit == self.unit else self.units.get(unit)

    @property
    def accepted_units(self) -> tuple[str, ...]:
        """UCUM codes of all accepted units, the canonical one first."""
        return (self.unit, *self.units)


class Treatment(BaseModel):
    """A treatment that is given over a period, with or without a rate.

    `units`: factor to the canonical `unit`, by accepted unit of the rate. `units_per_weight`: the
    same for absolute rates, which are also divided by the patient's weight in kg. `pattern`: a
    regular expression for free-text drug names of the open databases.
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
    def accepted_units(self) -> tuple[str, ...]:
        """UCUM codes of all accepted units, the canonical one first."""
        return (() if self.unit is None else (self.unit,)) + (*self.units, *self.units_per_weight)


@cache
def load_variables() -> tuple[Variable, ...]:
    """Loads all declared variables, in the order of `variables.toml`."""
    declared = _load_toml("variables.toml")["variables"]
    return tuple(Variable(name=name, **fields) for name, fields in declared.items())


def extend_with_declared(variables: Sequence[Variable]) -> tuple[Variable, ...]:
    """Extends a bundle's variables with the codes, units and ranges that this release declares.

    Nothing of this was learned, so an older bundle benefits from new declarations. A declaration
    applies if name and canonical unit match. The bundle's own codes, conversions and ranges take
    precedence.
    """
    declared = {(v.name, v.unit): v for v in load_variables()}
    taken = {code for v in variables for code in v.loinc}
    return tuple(_extend(v, declared.get((v.name, v.unit)), taken) for v in variables)


def _extend(own: Variable, declared: Variable | None, taken: set[str]) -> Variable:
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


def normalize_name(name: str) -> str:
    """Normalizes a variable's name: `Heart Rate` and `heart-rate` become `heart_rate`.

    Every notation of a LOINC becomes `loinc:CODE`: `LOINC:2160-0`, `http://loinc.org|2160-0`,
    `2160-0`, `2160-0^Creatinine^LN`.
    """
    code = _LOINC.fullmatch(name.strip()) if len(name) <= _MAX_NAME_LENGTH else None
    if code is not None:
        return f"loinc:{code['code']}"
    return _NOT_A_WORD.sub("_", name[:_MAX_NAME_LENGTH].casefold()).strip("_")


@cache
def load_treatments() -> tuple[Treatment, ...]:
    """Loads all declared treatments, in the order of `treatments.toml`."""
    declared = _load_toml("treatments.toml")["treatments"]
    return tuple(Treatment(name=name, **fields) for name, fields in declared.items())


@cache
def load_treatment_names() -> tuple[dict[str, str], dict[str, str]]:
    """Loads two patterns by treatment: additional names in a request, and names to exclude."""
    names = _load_toml("treatments.toml")["names"]
    return names["also"], names["never"]


@cache
def load_rejected_names() -> dict[str, str]:
    """Loads names and codes that hospitals send but that are refused, with the reason.

    The keys are normalized by `normalize_name`.
    """
    declared: dict[str, str] = _load_toml("variables.toml")["not_read"]
    return {normalize_name(name): reason for name, reason in declared.items()}


@cache
def load_spellings() -> dict[str, str]:
    """Loads unit spellings from real feeds, each with its UCUM code."""
    spellings: dict[str, str] = _load_toml("variables.toml")["spellings"]
    rate_spellings: dict[str, str] = _load_toml("treatments.toml")["spellings"]
    return spellings | rate_spellings


def _load_toml(name: str) -> dict[str, Any]:
    return tomllib.loads(files("schemas").joinpath(name).read_text(encoding="utf-8"))
