"""The feature spec: the parameters of feature extraction."""

from functools import cached_property
from importlib.resources import files
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer

from schemas.features.images.view import View
from schemas.features.notes.assertions import CODES_OF_A_DISEASE
from schemas.features.notes.concepts import load_concepts
from schemas.features.notes.language import LanguageCheck
from schemas.terminology.units import Conversion, candidate_codes, find_conversion
from schemas.variables import (
    Treatment,
    Variable,
    extend_with_declared,
    load_spellings,
    load_treatments,
    load_variables,
    normalize_name,
)

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

# Statistics of each variable, the input of the series encoder. Times are hours before `as_of`, and
# windows end at `as_of`. For amounts (urine), a mean is the total divided by the window's hours.
STATISTICS = (
    "last",
    "mean",
    "minimum",
    "maximum",
    "spread",
    "change",
    "log_count",
    "hours_since_last",
    "recent_mean",
    "recent_minimum",
    "recent_maximum",
)
TREATMENT_FEATURES = ("given", "running", "hours_since_start", "rate")
MAX_NAMES = 10_000  # variables, and treatments
MAX_HOURS = 10_000.0  # more than a year
NUMERIC_TABULAR = ("age", "height_cm", "weight_kg", "body_mass_index", "hours_since_admission")

# The lookup cache maps a spelled name and unit to their meaning.
_CACHE_ENTRIES, _MAX_CACHED_LENGTH = 4096, 200  # pairs; characters of a pair


class FeatureSpec(BaseModel):
    """The parameters of feature extraction. Cohorts and bundles each carry a spec.

    Arrays of one patient, float32 unless stated otherwise: tabular `values` [F]; series
    `statistics` [V, S] and `treatments` [T, 4]; notes `tokens` [L] int64, which are token ids and
    phrase ids; image `pixels` [1, side, side] uint8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    variables: tuple[Variable, ...] = Field(max_length=MAX_NAMES)
    treatments: tuple[Treatment, ...] = Field(max_length=MAX_NAMES)
    spellings: dict[str, str]
    categories: dict[str, tuple[str, ...]] = {
        "sex": ("female", "male"),
        "admission_source": (
            "emergency",
            "operating_room",
            "ward",
            "step_down_unit",
            "other_icu",
            "other_hospital",
            "direct",
        ),
        "unit_type": (
            "medical_icu",
            "surgical_icu",
            "mixed_icu",
            "cardiac_icu",
            "cardiac_surgery_icu",
            "neuro_icu",
            "trauma_icu",
        ),
    }
    window_hours: float = Field(48.0, gt=0, le=MAX_HOURS)
    recent_hours: float = Field(6.0, gt=0, le=MAX_HOURS)
    # Notes of this age and older are not read. None: notes of any age are read.
    note_window_hours: float | None = Field(default=720.0, gt=0, le=10 * MAX_HOURS)
    image_side: int = Field(128, ge=1, le=2048)
    # Views of chest X-rays that the model was trained on. Images of other views are not read.
    views: tuple[View, ...] = ("frontal",)
    # Limits of the selected image and of all notes together. Input is never truncated.
    max_pixels: int = Field(40_000_000, ge=1, le=200_000_000)
    max_characters: int = Field(1_000_000, ge=1, le=20_000_000)
    # Number of ids, in addition to the tokenizer's, onto which phrases are hashed. 0 for a BERT.
    phrases: int = Field(65_536, ge=0, le=2**24)
    # Whether a negated word gets a phrase id instead of its token id. Bundles and cohorts without
    # this field were made before negation detection existed.
    denied_apart: bool = False
    # Tasks whose assertions in notes get ids of their own. Empty for a BERT, and in bundles and
    # cohorts that were made before assertions were read.
    assertions: tuple[str, ...] = Field(default=(), max_length=MAX_NAMES)
    # Stored in a separate file beside the spec.
    tokenizer_json: str = Field(exclude=True, repr=False)

    @model_validator(mode="after")
    def _check_unique_names(self) -> Self:
        for kind, names in (
            ("variables", [variable.name for variable in self.variables]),
            ("treatments", [treatment.name for treatment in self.treatments]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"names of {kind} must be unique")
        return self

    @classmethod
    def default(cls) -> Self:
        """Returns the spec with this project's variables, treatments and tokenizer."""
        return cls(
            variables=load_variables(),
            treatments=load_treatments(),
            spellings=load_spellings(),
            denied_apart=True,
            assertions=tuple(load_concepts()),
            tokenizer_json=files("schemas").joinpath("tokenizer.json").read_text("utf-8"),
        )

    @property
    def tabular_names(self) -> tuple[str, ...]:
        """[F] the names of the tabular features."""
        one_hot = (
            f"{field}={value}" for field, values in self.categories.items() for value in values
        )
        return (*NUMERIC_TABULAR, *one_hot)

    @cached_property
    def extended_variables(self) -> tuple[Variable, ...]:
        """[V] the variables with the codes, units and ranges that this release declares."""
        return extend_with_declared(self.variables)

    @cached_property
    def variable_index(self) -> dict[str, int]:
        """Indices of variables by name and by `loinc:` code."""
        index = {v.name: i for i, v in enumerate(self.variables)}
        return index | {
            f"loinc:{c}": i for i, v in enumerate(self.extended_variables) for c in v.loinc
        }

    @cached_property
    def _index_by_normalized_name(self) -> dict[str, int]:
        """Indices of variables by every normalized name: code, name, display name, alias."""
        names = (
            (i, name)
            for i, v in enumerate(self.extended_variables)
            for name in (v.display, *v.aliases)
        )
        index = {normalize_name(name): i for i, name in names}
        return index | {normalize_name(name): i for name, i in self.variable_index.items()}

    def find_variable(self, name: str) -> int | None:
        """Returns the index of the variable with this name or LOINC, in any notation, or None."""
        index = self.variable_index.get(name)
        return self._index_by_normalized_name.get(normalize_name(name)) if index is None else index

    def look_up(self, name: str, unit: str | None) -> tuple[int | None, Conversion | None]:
        """Returns the index of a variable and the conversion of a unit, both as spelled.

        An unknown variable or unit is None.
        """
        entry = self._lookup_cache.get((name, unit))
        if entry is None:
            index = self.find_variable(name)
            entry = index, None if index is None else self._conversion(index, name, unit)
            if len(self._lookup_cache) >= _CACHE_ENTRIES:
                self._lookup_cache.clear()
            if len(name) + len(unit or "") <= _MAX_CACHED_LENGTH:
                self._lookup_cache[name, unit] = entry
        return entry

    def _conversion(self, index: int, name: str, unit: str | None) -> Conversion | None:
        known = self.extended_variables[index]
        if unit is None:
            return Conversion(known.unit, 1.0) if known.dimensionless else None
        spelled = unit.strip()
        own = self.spellings.get(spelled) or load_spellings().get(spelled, spelled)
        declared = known.conversion(own)
        if declared is None:
            conversion = find_conversion(known, spelled)
        else:
            conversion = Conversion(own, *declared)
        other_substance = normalize_name(name).removeprefix("loinc:") in known.moles_only
        if conversion and other_substance and "mol" not in conversion.unit:
            return None
        return conversion

    @cached_property
    def _lookup_cache(self) -> dict[tuple[str, str | None], tuple[int | None, Conversion | None]]:
        return {}

    @cached_property
    def treatment_index(self) -> dict[str, int]:
        return {t.name: i for i, t in enumerate(self.treatments)}

    @cached_property
    def treatment_names(self) -> frozenset[str]:
        return frozenset(self.treatment_index)

    @cached_property
    def plausible(self) -> npt.NDArray[np.float64]:
        """[V, 2] lowest and highest plausible value, canonical units."""
        return np.array([v.plausible for v in self.variables], dtype=np.float64)

    @cached_property
    def typical(self) -> npt.NDArray[np.float64]:
        """[V, 2] lowest and highest typical value, canonical units; infinite if undeclared."""
        infinite_range = (-np.inf, np.inf)
        return np.array(
            [v.typical or infinite_range for v in self.extended_variables], dtype=np.float64
        )

    @cached_property
    def sensor_off(self) -> npt.NDArray[np.float64]:
        """[V] the value of a detached sensor, canonical units; NaN if undeclared."""
        values = [np.nan if v.sensor_off is None else v.sensor_off for v in self.extended_variables]
        return np.array(values, dtype=np.float64)

    @cached_property
    def is_amount(self) -> npt.NDArray[np.bool_]:
        """[V] whether the values of a variable are amounts, which add up over time."""
        return np.array([v.aggregate == "sum" for v in self.variables], dtype=np.bool_)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)

    @cached_property
    def language_check(self) -> LanguageCheck:
        return LanguageCheck(self.tokenizer)

    @cached_property
    def vocabulary(self) -> int:
        """Number of ids: those of the tokenizer, followed by those of phrases and assertions."""
        return self.first_assertion_id + CODES_OF_A_DISEASE * len(self.assertions)

    @cached_property
    def first_assertion_id(self) -> int:
        return self.tokenizer.get_vocab_size() + self.phrases

    def rate_unit(self, unit: str | None) -> str | None:
        """Returns the UCUM code of a rate's unit, or the spelling itself if no code is accepted."""
        if unit is None:
            return None
        spelled = unit.strip()
        own = self.spellings.get(spelled, spelled)
        codes = (
            code for code in (own, *candidate_codes(spelled)) if code in self._accepted_rate_units
        )
        return next(codes, own)

    @cached_property
    def _accepted_rate_units(self) -> frozenset[str]:
        return frozenset(unit for treatment in self.treatments for unit in treatment.accepted_units)
