"""Treatments by the names that hospitals write: `Levophed`, `noradrenaline`, `ASPIRIN 81 MG TAB`.

The patterns are those by which cohorts are made, and a few more names that are no drug of an open
database (`treatments.toml`).
"""

import re
from functools import cache, lru_cache
from unicodedata import normalize

from schemas.variables import load_treatment_names, load_treatments, name_key

AMBIGUOUS = "(ambiguous)"
_LONGEST = 200  # characters; a longer name is that of no treatment
# What is not given, and what is measured or known of a drug.
_NOT_GIVEN = re.compile(
    r"\b(?:no|not|without|never|hold|held|holding|stop|stopped|discontinued?|d/c|allerg\w*|refused"
    r"|declined|contraindicat\w*|avoid|levels?|trough|assay|screen|antibod\w*|flush|lock"
    r"|antagonist|history|h/o)\b",
    re.IGNORECASE,
)


def find_treatment(name: str, known: frozenset[str]) -> str | None:
    """The declared treatment of this name, however it is written; AMBIGUOUS if several are.

    `known`: the treatments of the spec; no other is found.
    """
    if len(name) > _LONGEST:
        return None
    text = normalize("NFKC", name).strip()
    key = name_key(text)
    if key in known:
        return key
    found = [one for one in _found(text) if one in known]
    return AMBIGUOUS if len(found) > 1 else next(iter(found), None)


@lru_cache(1024)
def _found(text: str) -> tuple[str, ...]:
    if _NOT_GIVEN.search(text):
        return ()
    spaced = text.replace("_", " ")
    key = name_key(text)
    found = []
    for name, display, patterns, excluded in _patterns():
        if key == display:
            return (name,)
        if any(pattern.search(spaced) for pattern in patterns) and not (
            excluded and excluded.search(spaced)
        ):
            found.append(name)
    return tuple(found)


@cache
def _patterns() -> list[tuple[str, str, tuple[re.Pattern[str], ...], re.Pattern[str] | None]]:
    """Name, key of the display, patterns of names, and one of names that are not its."""
    also, never = load_treatment_names()
    return [
        (
            one.name,
            name_key(one.display),
            tuple(
                re.compile(pattern, re.IGNORECASE)
                for pattern in (one.pattern, also.get(one.name))
                if pattern is not None
            ),
            re.compile(never[one.name], re.IGNORECASE) if one.name in never else None,
        )
        for one in load_treatments()
    ]
