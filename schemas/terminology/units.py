"""Units of measurement: from the way that a feed spells a unit to a conversion, or to none.

A spelling is normalised and read as UCUM codes (`readings`). A reading counts if it converts to the
variable's canonical unit; if two do and disagree, the unit is unknown. Conversions are declared in
`variables.toml`, or given by UCUM (`schemas.terminology.ucum`). Nothing is guessed.
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
_MOST_PARTS = 4


@dataclass(frozen=True)
class Conversion:
    """Canonical value = `factor` * value + `offset`. `unit`: the UCUM code that was understood."""

    unit: str
    factor: float
    offset: float = 0.0


def conversion(variable: Variable, spelled: str) -> Conversion | None:
    """How a value in the unit that is `spelled` becomes canonical; None if that is not known."""
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
    codes = (own,) if own is not None else _readings(folded)
    found = [
        Conversion(code, *converted)
        for code in codes
        if (converted := variable.conversion(code)) is not None
    ]
    if not found and variable.unit != "%":  # parts of a whole are not told apart by dimension
        found = [
            Conversion(code, factor)
            for code in codes or (text,)
            if (factor := ucum.factor(variable, code)) is not None
        ]
    agree = len({(round(one.factor, 12), one.offset) for one in found}) == 1
    return found[0] if agree else None


def readings(spelled: str) -> tuple[str, ...]:
    """Every UCUM code that a spelling may stand for, whatever it measures."""
    text = _clean(spelled)
    return () if text is None else _readings(_fold(text))


def _clean(spelled: str) -> str | None:
    """The spelling in plain characters and without annotations; None if it is not to be read.

    An annotation has no meaning in UCUM, but a denominator of nothing else has: "/{HPF}" is not
    "per one". Of a unit that is nothing else, the annotation is read.
    """
    longest = _tables().longest
    if len(spelled) > longest:
        return None
    text = "".join(c for c in spelled if unicodedata.category(c) != "Cf").translate(_tables().signs)
    text = _SUPERSCRIPT.sub(lambda run: "^" + run[0].translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", text).translate(_tables().signs).strip()
    alone = _ANNOTATION.fullmatch(text)
    if alone is not None:
        return alone[1].strip()
    without = _ANNOTATION.sub("", text)
    if len(text) > longest or (without != text and _NO_DENOMINATOR.search(without)):
        return None
    return without


def _fold(text: str) -> str:
    """In lower case, without spaces, and with phrases rewritten ("per minute": "/minute")."""
    folded = " ".join(text.lower().split())
    for pattern, replacement in _tables().phrases:
        folded = pattern.sub(replacement, folded)
    return _HYPHEN.sub("", folded).replace(" ", "").rstrip(".")


def _readings(folded: str) -> tuple[str, ...]:
    whole = _tables().whole.get(folded, ())
    return tuple(dict.fromkeys((*whole, *_composed(folded))))


def _composed(folded: str) -> Iterator[str]:
    """Codes of a product of parts: `x10^3 cells/ul`, `umol/l`, `l/(min*m2)`, `mg.dl-1`."""
    if folded.count("(") != folded.count(")"):
        return
    flat = _GROUP.sub(lambda m: "/" + _PRODUCT.sub("/", m[1]), folded)
    numerator, *denominators = re.sub(r"[()]", "", flat).split("/")
    below = [(part, -1) for group in denominators for part in _PRODUCT.split(group)]
    for power, rest in _heads(numerator, counts=bool(denominators)):
        parts = [(part, 1) for part in _PRODUCT.split(rest) if part] + below
        if len(parts) <= _MOST_PARTS:
            yield from _products(power, parts)


def _products(power: str, parts: list[tuple[str, int]]) -> Iterator[str]:
    over: list[tuple[str, ...]] = []
    under: list[tuple[str, ...]] = []
    for part, sign in parts:
        if sign > 0 and part in _tables().counted:
            continue
        codes, exponent = _part(part)
        (over if exponent * sign > 0 else under).append(codes)
    for tops in product(*over):
        for bottoms in product(*under):
            top = ".".join(filter(None, (power, *tops)))
            yield top + "".join(f"/{code}" for code in bottoms)


def _heads(numerator: str, *, counts: bool) -> Iterator[tuple[str, str]]:
    """The power of ten at the head of a numerator, and what remains of it.

    `counts`: there is a denominator, so that a word may be a power or what is counted.
    """
    counted = _tables().counted
    found = _POWER.search(numerator)
    if found is not None:
        before = numerator[: found.start()].rstrip("x.*")
        after = numerator[found.end() :].lstrip("x.*")
        if before in counted and found[1] in _POWERS:
            yield _POWERS[found[1]], "" if after in counted else after
        return
    if counts:
        if numerator == "1":
            yield "", ""
        bare = numerator.lstrip("x*")
        for power, words in _tables().powers.items():
            if any(bare.startswith(word) and bare[len(word) :] in counted for word in words):
                yield power, ""
    yield "", "" if numerator in counted else numerator


def _part(part: str) -> tuple[tuple[str, ...], int]:
    """The codes of one part, and its sign: -1 where its exponent is negative."""
    parts = _tables().parts
    found = _EXPONENT.fullmatch(part)
    if part in parts or found is None:
        return parts.get(part, ()), 1
    exponent = int(found[2])
    power = "" if abs(exponent) == 1 else str(abs(exponent))
    codes = parts.get(found[1] + power) or tuple(c + power for c in parts.get(found[1], ()))
    return codes, 1 if exponent > 0 else -1


@dataclass(frozen=True)
class _Tables:
    """`units.toml`, turned around: from a spelling to its codes."""

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
    parts = _turned(declared["parts"])
    for code, atom in declared["atoms"].items():
        for prefix in ("", *atom["prefixes"]):
            heads = declared["prefixes"].get(prefix, ("",))
            for head, spelling in product(heads, atom["spellings"]):
                codes = parts.get(head + spelling, ())
                parts[head + spelling] = tuple(dict.fromkeys((*codes, prefix + code)))
    return _Tables(
        longest=declared["longest"],
        signs={ord(sign): plain for plain, signs in declared["signs"].items() for sign in signs},
        phrases=tuple((re.compile(p), r) for p, r in declared["phrases"]),
        counted=frozenset(("", *declared["counted"])),
        powers={power: tuple(words) for power, words in declared["powers"].items()},
        parts=parts,
        whole=_turned(declared["whole"]),
        no_unit={unit: frozenset(words) for unit, words in declared["no_unit"].items()},
    )


def _turned(table: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    turned: dict[str, tuple[str, ...]] = {}
    for code, spellings in table.items():
        for spelling in spellings:
            turned[spelling] = (*turned.get(spelling, ()), code)
    return turned
