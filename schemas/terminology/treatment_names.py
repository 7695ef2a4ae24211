"""Mapping of hospital names (`Levophed`, `ASPIRIN 81 MG TAB`) to declared treatments.

Uses the patterns that cohorts are made with, plus a few names that the open databases lack
(`treatments.toml`).
"""

import re
from functools import cache, lru_cache
from unicodedata import normalize

from schemas.variables import load_treatment_names, load_treatments, normalize_name

AMBIGUOUS = "(ambiguous)"
# Treatments by the code of a procedure, by vocabulary (as OMOP names it). Codes that could mean two
# treatments are not listed.
PROCEDURES = {
    "SNOMED": {
        "243147009": "mechanical_ventilation",
        "428311008": "noninvasive_ventilation",
        "57485005": "oxygen_therapy",
        "302497006": "hemodialysis",
        "714749008": "continuous_renal_replacement",
    },
    "ICD10PCS": {
        "5A1935Z": "mechanical_ventilation",
        "5A1945Z": "mechanical_ventilation",
        "5A1955Z": "mechanical_ventilation",
        "5A1D70Z": "hemodialysis",
        "5A1D90Z": "continuous_renal_replacement",
    },
}
_MAX_LENGTH = 200  # characters; no treatment has a longer name
# Words for a drug that is not given, only measured, or part of the history.
_NOT_GIVEN = re.compile(
    r"\b(?:no|not|without|never|hold|held|holding|stop|stopped|discontinued?|d/c|allerg\w*|refused"
    r"|declined|contraindicat\w*|avoid|levels?|trough|assay|screen|antibod\w*|flush|lock"
    r"|antagonist|history|h/o)\b",
    re.IGNORECASE,
)


def find_treatment(name: str, known: frozenset[str]) -> str | None:
    """Returns the declared treatment of a name, AMBIGUOUS if several match, or None.

    `known`: the treatments of the spec. Other treatments are ignored.
    """
    if len(name) > _MAX_LENGTH:
        return None
    text = normalize("NFKC", name).strip()
    key = normalize_name(text)
    if key in known:
        return key
    matches = [treatment for treatment in _matches(text) if treatment in known]
    return AMBIGUOUS if len(matches) > 1 else next(iter(matches), None)


@lru_cache(1024)
def _matches(text: str) -> tuple[str, ...]:
    if _NOT_GIVEN.search(text):
        return ()
    spaced = text.replace("_", " ")
    key = normalize_name(text)
    matches = []
    for name, display, patterns, excluded in _patterns():
        if key == display:
            return (name,)
        if any(pattern.search(spaced) for pattern in patterns) and not (
            excluded and excluded.search(spaced)
        ):
            matches.append(name)
    return tuple(matches)


@cache
def _patterns() -> list[tuple[str, str, tuple[re.Pattern[str], ...], re.Pattern[str] | None]]:
    """Returns name, normalized display name, name patterns and exclusion pattern."""
    also, never = load_treatment_names()
    return [
        (
            treatment.name,
            normalize_name(treatment.display),
            tuple(
                re.compile(pattern, re.IGNORECASE)
                for pattern in (treatment.pattern, also.get(treatment.name))
                if pattern is not None
            ),
            re.compile(never[treatment.name], re.IGNORECASE) if treatment.name in never else None,
        )
        for treatment in load_treatments()
    ]
