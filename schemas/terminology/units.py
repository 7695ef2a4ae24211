"""Units of measurement: from a feed's spelling of a unit to a conversion.

A spelling is normalised and interpreted as candidate UCUM codes (`candidate_codes`). A candidate
counts if it converts to the variable's canonical unit. If two candidates convert differently, the
unit is unknown. Conversions come from `variables.toml` or from UCUM (`schemas.terminology.ucum`).
Nothing is guessed.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product

from schemas.terminology import ucum
from schemas.variables import Variable

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_ANNOTATION = re.compile(r"\{([^{}]*)\}")
_NO_DENOMINATOR = re.compile(r"/\s*(?:[/.]|$)")
_HYPHEN = re.compile(r"(?<=[^\W\d])-(?=[^\W\d])")
_GROUP = re.compile(r"/\(([^()]*)\)")
_PRODUCT = re.compile(r"[.*]")
_POWER = re.compile(r"[x*]?(?:10(?:\*\*?|\^|e|exp|x|')\+?|1?e\+?)0?(\d{1,2})(?!\d)")
_POWERS = {"3": "10*3", "6": "10*6", "9": "10*9", "12": "10*12"}
_EXPONENT = re.compile(r"(.*?[^\d^*+-])(?:\^|\*\*)?([+-]?[1-9])")
_MAX_PARTS = 4


@dataclass(frozen=True)
class Conversion:
    """Canonical value = `factor` * value + `offset`. `unit`: the UCUM code of the value."""

    unit: str
    factor: float
    offset: float = 0.0


def find_conversion(variable: Variable, spelled: str) -> Conversion | None:
    """Returns the conversion from a unit spelling to the canonical unit; None if it is unknown."""
    declared = variable.conversion(spelled)
    if declared is not None:
        return Conversion(spelled, *declared)
    text = _clean(spelled)
    if text is None:
        return None
    folded = _fold(text)
    if variable.dimensionless:
        words = _tables().no_unit
        known = folded in words["any"] or folded in words[variable.unit]
        return Conversion(variable.unit, 1.0) if known else None
    own = variable.spellings.get(folded)
    codes = (own,) if own is not None else _candidates(folded)
    conversions = [
        Conversion(code, *converted)
        for code in codes
        if (converted := variable.conversion(code)) is not None
    ]
    if not conversions and variable.unit != "%":  # UCUM cannot distinguish dimensionless units
        conversions = [
            Conversion(code, factor)
            for code in codes or (text,)
            if (factor := ucum.conversion_factor(variable, code)) is not None
        ]
    distinct = {(round(each.factor, 12), each.offset) for each in conversions}
    return conversions[0] if len(distinct) == 1 else None


def candidate_codes(spelled: str) -> tuple[str, ...]:
    """Returns every UCUM code that a spelling may stand for, whatever it measures."""
    text = _clean(spelled)
    return () if text is None else _candidates(_fold(text))


def _clean(spelled: str) -> str | None:
    """Returns the spelling in plain characters without annotations; None if it is unusable.

    UCUM gives annotations no meaning. But a denominator that is only an annotation is not 1:
    "/{HPF}" is not "per one". If the whole unit is an annotation, its text is returned.
    """
    max_length = _tables().longest
    if len(spelled) > max_length:
        return None
    text = "".join(c for c in spelled if unicodedata.category(c) != "Cf").translate(_tables().signs)
    text = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", text).translate(_tables().signs).strip()
    alone = _ANNOTATION.fullmatch(text)
    if alone is not None:
        return alone[1].strip()
    without = _ANNOTATION.sub("", text)
    if len(text) > max_length or (without != text and _NO_DENOMINATOR.search(without)):
        return None
    return without


def _fold(text: str) -> str:
    """Converts to lower case, rewrites phrases ("per minute": "/minute") and removes spaces."""
    folded = " ".join(text.lower().split())
    for pattern, replacement in _tables().phrases:
        folded = pattern.sub(replacement, folded)
    return _HYPHEN.sub("", folded).replace(" ", "").rstrip(".")


def _candidates(folded: str) -> tuple[str, ...]:
    whole = _tables().whole.get(folded, ())
    return tuple(dict.fromkeys((*whole, *_product_codes(folded))))


def _product_codes(folded: str) -> Iterator[str]:
    """Yields codes of a product of units: `x10^3 cells/ul`, `umol/l`, `l/(min*m2)`, `mg.dl-1`."""
    if folded.count("(") != folded.count(")"):
        return
    flat = _GROUP.sub(lambda m: "/" + _PRODUCT.sub("/", m[1]), folded)
    numerator, *denominators = re.sub(r"[()]", "", flat).split("/")
    below = [(part, -1) for group in denominators for part in _PRODUCT.split(group)]
    for power, rest in _split_power(numerator, has_denominator=bool(denominators)):
        parts = [(part, 1) for part in _PRODUCT.split(rest) if part] + below
        if len(parts) <= _MAX_PARTS:
            yield from _combine(power, parts)


def _combine(power: str, parts: list[tuple[str, int]]) -> Iterator[str]:
    """Yields every combination of the codes of (part, sign of its exponent)."""
    numerators: list[tuple[str, ...]] = []
    denominators: list[tuple[str, ...]] = []
    for part, sign in parts:
        if sign > 0 and part in _tables().counted:
            continue
        codes, exponent = _part_codes(part)
        (numerators if exponent * sign > 0 else denominators).append(codes)
    for above in product(*numerators):
        for below in product(*denominators):
            numerator = ".".join(filter(None, (power, *above)))
            yield numerator + "".join(f"/{code}" for code in below)


def _split_power(numerator: str, *, has_denominator: bool) -> Iterator[tuple[str, str]]:
    """Yields each possible leading power of ten of a numerator, and the rest of it.

    `has_denominator`: a word may also be a power ("thousand") or a counted thing ("cells").
    """
    counted = _tables().counted
    match = _POWER.search(numerator)
    if match is not None:
        before = numerator[: match.start()].rstrip("x.*")
        after = numerator[match.end() :].lstrip("x.*")
        if before in counted and match[1] in _POWERS:
            yield _POWERS[match[1]], "" if after in counted else after
        return
    if has_denominator:
        if numerator == "1":
            yield "", ""
        bare = numerator.lstrip("x*")
        for power, words in _tables().powers.items():
            if any(bare.startswith(word) and bare[len(word) :] in counted for word in words):
                yield power, ""
    yield "", "" if numerator in counted else numerator


def _part_codes(part: str) -> tuple[tuple[str, ...], int]:
    """Returns the codes of one part and the sign of its exponent, 1 or -1."""
    parts = _tables().parts
    match = _EXPONENT.fullmatch(part)
    if part in parts or match is None:
        return parts.get(part, ()), 1
    exponent = int(match[2])
    power = "" if abs(exponent) == 1 else str(abs(exponent))
    codes = parts.get(match[1] + power) or tuple(c + power for c in parts.get(match[1], ()))
    return codes, 1 if exponent > 0 else -1


@dataclass(frozen=True)
class _Tables:
    """The content of `units.toml`, inverted: from a spelling to its codes."""

    longest: int
    signs: dict[int, str]
    phrases: tuple[tuple[re.Pattern[str], str], ...]
    counted: frozenset[str]
    powers: dict[str, tuple[str, ...]]
    parts: dict[str, tuple[str, ...]]
    whole: dict[str, tuple[str, ...]]
    no_unit: dict[str, frozenset[str]]


@cache
def _tables() -> _Tables:
    declared = tomllib.loads(files("schemas").joinpath("units.toml").read_text(encoding="utf-8"))
    parts = _invert(declared["parts"])
    for code, atom in declared["atoms"].items():
        for prefix in ("", *atom["prefixes"]):
            prefix_spellings = declared["prefixes"].get(prefix, ("",))
            for head, spelling in product(prefix_spellings, atom["spellings"]):
                codes = parts.get(head + spelling, ())
                parts[head + spelling] = tuple(dict.fromkeys((*codes, prefix + code)))
    return _Tables(
        longest=declared["longest"],
        signs={ord(sign): plain for plain, signs in declared["signs"].items() for sign in signs},
        phrases=tuple((re.compile(p), r) for p, r in declared["phrases"]),
        counted=frozenset(("", *declared["counted"])),
        powers={power: tuple(words) for power, words in declared["powers"].items()},
        parts=parts,
        whole=_invert(declared["whole"]),
        no_unit={unit: frozenset(words) for unit, words in declared["no_unit"].items()},
    )


def _invert(table: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    inverted: dict[str, tuple[str, ...]] = {}
    for code, spellings in table.items():
        for spelling in spellings:
            inverted[spelling] = (*inverted.get(spelling, ()), code)
    return inverted
