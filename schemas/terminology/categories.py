"""Categories of the tabular data by the names that hospitals write: `F`, `ED`, `Med-Surg ICU`."""

import re
import tomllib
from functools import cache
from importlib.resources import files
from unicodedata import normalize

NOT_KNOWN = "(not known)"
_LONGEST = 80  # characters
_SIGNS = re.compile(r"[\W_]+")


def read_category(field: str, text: str) -> str | None:
    """The declared category, NOT_KNOWN if the text says that there is none, else None."""
    if len(text) > _LONGEST:
        return None
    key = _SIGNS.sub(" ", normalize("NFKC", text).casefold()).strip()
    return _spellings(field).get(key)


@cache
def _spellings(field: str) -> dict[str, str]:
    text = files("schemas").joinpath("categories.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)
    found = dict.fromkeys(declared["not_known"], NOT_KNOWN)
    for category, spellings in declared.get(field, {}).items():
        found |= dict.fromkeys((category.replace("_", " "), *spellings), category)
    return found
