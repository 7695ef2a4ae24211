"""Unit conversion by UCUM (unitsofmeasure.org), with ucumvert and pint.

The libraries are loaded at the first unit that the tables lack, or by `preload`.
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

_MAX_LENGTH = 32  # characters
_READABLE = re.compile(r"[A-Za-z0-9_\[\]*^./()+-]+")
_EXPONENT = re.compile(r"(?<=[A-Za-z\]*^+-])\d+")
_FACTOR = re.compile(r"(?<![A-Za-z\]*^+\d-])\d+")
# For a hormone, U means international units. For an enzyme, international units mean U.
_UNITS = re.compile(r"(?<![A-Za-z\[])([munk]?)U(?![A-Za-z\]])")
_INTERNATIONAL = re.compile(r"\[[iI]U\]")

_load_lock = threading.Lock()


def conversion_factor(variable: Variable, code: str) -> float | None:
    """Returns the factor from a UCUM unit to the canonical unit of a variable.

    Mass and amount of substance are converted by the variable's molar mass, equivalents by its
    valence. Returns None if the dimensions differ or the code is not UCUM.
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
    except ArithmeticError:  # the exponent overflows
        return None
    scale = _scales(variable).get(frozenset(ratio.dimensionality.items()))
    return float(ratio.magnitude) * scale if scale else None


def preload() -> None:
    """Loads the libraries, so that no request waits for them."""
    _parser()


def _scales(variable: Variable) -> dict[frozenset[tuple[str, int]], float | None]:
    """By dimension of the ratio of a unit to the canonical unit: the factor that cancels it."""
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
    """Returns one unit as a quantity; None if the code is not a UCUM code for a measurement.

    Numbers must be powers of ten: "109/L" has lost a superscript. Exponents must have at most two
    digits, because longer ones take long to compute.
    """
    if len(code) > _MAX_LENGTH or not _READABLE.fullmatch(code) or code.count("(") > 2:
        return None
    if any(len(digits) > 2 for digits in _EXPONENT.findall(code)):
        return None
    if any(len(d) > 9 or d.strip("0") != "1" or d[0] == "0" for d in _FACTOR.findall(code)):
        return None
    # Without the 1, the parser reads /L/U as /(L/U). UCUM divides from left to right.
    return _parser()(f"1{code}" if code.startswith("/") else code)


def _parser() -> "Callable[[str], Quantity[float] | None]":
    with _load_lock:  # load once, even if several threads call
        return _load_parser()


@cache
def _load_parser() -> "Callable[[str], Quantity[float] | None]":
    # Loading takes a quarter of a second and 18 MB.
    from lark.exceptions import LarkError  # noqa: PLC0415 - slow to import
    from pint import PintError, UnitRegistry  # noqa: PLC0415 - slow
    from ucumvert import InvalidUcumError, UcumToPintTransformer, get_ucum_parser  # noqa: PLC0415

    registry: Any = UnitRegistry(None)
    for line in files("schemas").joinpath("ucum_units.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            registry.define(line)
    parser, transformer = get_ucum_parser(), UcumToPintTransformer(ureg=registry)

    def parse(code: str) -> "Quantity[float] | None":
        try:
            quantity: Quantity[float] = registry.Quantity(transformer.transform(parser.parse(code)))
        except (LarkError, PintError, InvalidUcumError, ArithmeticError, TypeError):
            return None
        return quantity

    return parse
