"""Conversions that UCUM gives (unitsofmeasure.org), parsed and computed by ucumvert and pint.

Loaded at the first unit that no table knows, or by `preload`.
"""

import re
import threading
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from schemas.variables import Variable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pint import Quantity

_LONGEST = 32
_READABLE = re.compile(r"[A-Za-z0-9_\[\]*^./()+-]+")
_EXPONENT = re.compile(r"(?<=[A-Za-z\]*^+-])\d+")
_FACTOR = re.compile(r"(?<![A-Za-z\]*^+\d-])\d+")
# Of a hormone, U are international units; of an enzyme, international units are U.
_UNITS = re.compile(r"(?<![A-Za-z\[])([munk]?)U(?![A-Za-z\]])")
_INTERNATIONAL = re.compile(r"\[[iI]U\]")

_loading = threading.Lock()


def factor(variable: Variable, code: str) -> float | None:
    """What a value in this UCUM unit is multiplied by to be in the variable's canonical unit.

    None if the dimensions differ. Mass and amount of substance are converted by the variable's
    molar mass, equivalents by its valence.
    """
    if "[IU]" in variable.unit:
        code = _UNITS.sub(r"\1[IU]", code)
    elif _UNITS.search(variable.unit):
        code = _INTERNATIONAL.sub("U", code)
    given, canonical = _quantity(code), _quantity(variable.unit)
    if given is None or canonical is None:
        return None
    try:
        ratio = (given / canonical).to_base_units()
    except ArithmeticError:  # an exponent that leaves no number
        return None
    by = _scales(variable).get(frozenset(ratio.dimensionality.items()))
    return float(ratio.magnitude) * by if by else None


def preload() -> None:
    """Loads the libraries now: a server does so before a request needs them."""
    _reader()


def _scales(variable: Variable) -> dict[frozenset[tuple[str, int]], float | None]:
    """By the dimensions of a unit in canonical units: what brings it to the canonical dimension."""
    mass, valence = variable.molar_mass, variable.valence
    per_charge = valence and 1 / valence
    return {
        frozenset(): 1.0,
        frozenset({("[substance]", 1), ("[mass]", -1)}): mass,
        frozenset({("[mass]", 1), ("[substance]", -1)}): mass and 1 / mass,
        frozenset({("[equivalent]", 1), ("[substance]", -1)}): per_charge,
        frozenset({("[equivalent]", 1), ("[mass]", -1)}): mass and per_charge and mass * per_charge,
    }


@lru_cache(maxsize=1024)
def _quantity(code: str) -> "Quantity[float] | None":
    """One of a unit; None if it is no UCUM, or of nothing that is measured in a patient.

    Numbers are powers of ten ("109/L" has lost a superscript, and is not 109 of something), and
    exponents have two digits: more would take long to compute.
    """
    if len(code) > _LONGEST or not _READABLE.fullmatch(code) or code.count("(") > 2:
        return None
    if any(len(digits) > 2 for digits in _EXPONENT.findall(code)):
        return None
    if any(len(d) > 9 or d.strip("0") != "1" or d[0] == "0" for d in _FACTOR.findall(code)):
        return None
    return _reader()(code)


def _reader() -> "Callable[[str], Quantity[float] | None]":
    with _loading:  # once, whoever asks first
        return _loaded()


@cache
def _loaded() -> "Callable[[str], Quantity[float] | None]":
    # A quarter second and 18 MB, for those who need them.
    from lark.exceptions import LarkError  # noqa: PLC0415 - slow to import
    from pint import PintError, UnitRegistry  # noqa: PLC0415 - slow
    from ucumvert import InvalidUcumError, UcumToPintTransformer, get_ucum_parser  # noqa: PLC0415

    registry: Any = UnitRegistry(None)
    for line in files("schemas").joinpath("ucum_units.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            registry.define(line)
    parser, transformer = get_ucum_parser(), UcumToPintTransformer(ureg=registry)

    def read(code: str) -> "Quantity[float] | None":
        try:
            quantity: Quantity[float] = registry.Quantity(transformer.transform(parser.parse(code)))
        except (LarkError, PintError, InvalidUcumError, ArithmeticError, TypeError):
            return None
        return quantity

    return read
