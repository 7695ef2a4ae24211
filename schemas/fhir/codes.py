"""Codes of observations, treatments and documents, mapped to the names of a payload.

LOINC selects a variable (`schemas/variables.toml`), and so do the item ids of MIMIC-IV in the code
systems of its FHIR version. The text of a code never does, because "Sodium" may be of blood or of
urine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from schemas.features import FeatureSpec
from schemas.fhir.document import Resource
from schemas.fhir.record import Reason, codings, texts
from schemas.terminology.height import HEIGHT, HEIGHT_CODES
from schemas.terminology.treatment_names import AMBIGUOUS, PROCEDURES, find_treatment
from schemas.variables import load_rejected_names

_LOINC = frozenset({"http://loinc.org", "https://loinc.org", "urn:oid:2.16.840.1.113883.6.1"})
_MIMIC = "http://mimic.mit.edu/fhir/mimic/CodeSystem/"
_SNOMED = "http://snomed.info/sct"
_ICD_10_PCS = frozenset(
    {"http://www.cms.gov/Medicare/Coding/ICD10", "http://hl7.org/fhir/sid/icd-10-pcs"}
)
_UNKNOWN = "no input of the model has this code"
_PROCEDURE_SYSTEMS = dict.fromkeys(_ICD_10_PCS, "ICD10PCS") | {_SNOMED: "SNOMED"}
_MAX_CACHED = 10_000  # codes; feeds use a few hundred
_MAX_LENGTH = 200  # characters of a system and a code that are cached
_MAX_NAMES = 200  # distinct texts of treatments in one request; one may take 0.5 ms


@dataclass(frozen=True)
class Code:
    """What a code means: the `name` of an input, or the reason why there is none."""

    name: str | None
    reason: Reason = "unknown_code"
    detail: str = _UNKNOWN


class CodeTable:
    """The codes that a spec knows. Caches the meaning of each."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec
        self._observations: dict[tuple[str, str], Code] = {}

    def observation(self, concept: object) -> Code:
        """The variable of `Observation.code`, HEIGHT, or the reason why it is not read."""
        try:  # a single coding that is cached, which is the usual case
            (coding,) = concept["coding"]  # type: ignore[index]
            return self._observations[coding["system"], coding["code"]]
        except (TypeError, KeyError, ValueError):
            return self._observation_codings([*codings(concept)])

    def _observation_codings(self, listed: Sequence[Resource]) -> Code:
        found: Code | None = None
        unknown: Code | None = None
        for coding in listed:
            meaning = self._observation_coding(coding)
            if meaning.name is None:
                unknown = unknown if unknown and unknown.detail != _UNKNOWN else meaning
            elif found is None:
                found = meaning
            elif self._index(meaning.name) != self._index(found.name):
                detail = "its codes name two different inputs of the model"
                return Code(None, "ambiguous_code", detail)
        if found is not None:
            return found
        return unknown or Code(None, "no_code", "has no coding; send LOINC")

    def _index(self, name: str | None) -> int | str | None:
        return name if name is None or name == HEIGHT else self._spec.find_variable(name)

    def _observation_coding(self, coding: Resource) -> Code:
        system, code = coding.get("system"), coding.get("code")
        if not isinstance(code, str) or not isinstance(system, str):
            return Code(None, "no_code", "its coding needs a system and a code")
        known = self._observations.get((system, code))
        if known is None:
            known = self._look_up(system, code, coding)
            if len(self._observations) < _MAX_CACHED and len(system) + len(code) < _MAX_LENGTH:
                self._observations[system, code] = known
        return known

    def _look_up(self, system: str, code: str, coding: Resource) -> Code:
        if system in _LOINC:
            if code in HEIGHT_CODES:
                return Code(HEIGHT)
            name = f"loinc:{code}"
            if name in self._spec.variable_index:
                return Code(name)
            return Code(None, detail=load_rejected_names().get(name) or self._near_match(coding))
        if system.startswith(_MIMIC) and code in self._mimic_variables:
            return Code(self._mimic_variables[code])
        return Code(None, detail=self._near_match(coding))

    def _near_match(self, coding: Resource) -> str:
        """A detail that names the variable whose name the display is, if any."""
        display = coding.get("display")
        index = self._spec.find_variable(display) if isinstance(display, str) else None
        if index is None:
            return _UNKNOWN
        variable = self._spec.extended_variables[index]
        loinc = f"; LOINC of {variable.name}: {variable.loinc[0]}" if variable.loinc else ""
        return f"{_UNKNOWN}, although its display resembles {variable.name}{loinc}"

    @cached_property
    def _mimic_variables(self) -> dict[str, str]:
        return {str(i): v.name for v in self._spec.extended_variables for i in v.mimic_iv}

    @cached_property
    def _mimic_treatments(self) -> dict[str, str]:
        return {str(i): t.name for t in self._spec.treatments for i in t.mimic_iv}

    def treatment(self, concept: object, known: dict[str, str | None]) -> tuple[str, str] | None:
        """The text of a treatment for the payload, and the declared name that it means.

        Known codes come first, then the first known text. AMBIGUOUS if the codes or a text mean
        several treatments. `known`: the texts of this request that were looked up.
        """
        pairs = [(coding.get("system"), coding.get("code")) for coding in codings(concept)]
        coded = {name for pair in pairs if (name := self._treatment_coding(*pair)) is not None}
        if coded:
            name = coded.pop()
            return name, AMBIGUOUS if coded else name
        found = [
            (text, self._find_treatment(text, known)) for text in map(_without_tag, texts(concept))
        ]
        named = [(text, name) for text, name in found if name is not None]
        return min(named, key=lambda pair: pair[1] == AMBIGUOUS, default=None)

    def _treatment_coding(self, system: object, code: object) -> str | None:
        if not isinstance(system, str) or not isinstance(code, str):
            return None
        name = PROCEDURES.get(_PROCEDURE_SYSTEMS.get(system, ""), {}).get(code)
        if name is None and system.startswith(_MIMIC):
            name = self._mimic_treatments.get(code)
        return name if name in self._spec.treatment_names else None

    def _find_treatment(self, text: str, known: dict[str, str | None]) -> str | None:
        if text not in known and len(known) < _MAX_NAMES:
            known[text] = find_treatment(text, self._spec.treatment_names)
        return known.get(text)


def _without_tag(text: str) -> str:
    """Removes the semantic tag of SNOMED CT: `Mechanical ventilation (procedure)`."""
    head, bracket, tag = text.rstrip().rpartition(" (")
    return head if bracket and tag.endswith(")") else text
