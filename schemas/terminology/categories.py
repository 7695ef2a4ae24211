"""Mapping of hospital spellings (`F`, `ED`, `Med-Surg ICU`) to tabular categories."""

import re
import tomllib
from functools import cache
from importlib.resources import files
from unicodedata import normalize

NOT_KNOWN = "(not known)"
_MAX_LENGTH = 80  # characters
_PUNCTUATION = re.compile(r"[\W_]+")


def find_category(field: str, text: str) -> str | None:
    """Returns the declared category, NOT_KNOWN for a text such as "unknown", or None."""
    if len(text) > _MAX_LENGTH:
        return None
    key = _PUNCTUATION.sub(" ", normalize("NFKC", text).casefold()).strip()
    return _spellings(field).get(key)


@cache
def _spellings(field: str) -> dict[str, str]:
    text = files("schemas").joinpath("categories.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)
    categories = dict.fromkeys(declared["not_known"], NOT_KNOWN)
    for category, spellings in declared.get(field, {}).items():
        categories |= dict.fromkeys((category.replace("_", " "), *spellings), category)
    return categories
