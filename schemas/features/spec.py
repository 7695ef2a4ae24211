"""The spec: everything that decides how a payload becomes arrays."""

from functools import cached_property
from importlib.resources import files
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer

from schemas.features.images.view import View
from schemas.features.notes.language import WordCheck
from schemas.terminology.units import Conversion, conversion, readings
from schemas.variables import (
    Treatment,
    Variable,
    load_spellings,
    load_treatments,
    load_variables,
    name_key,
    with_declared,
)

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

# What the series encoder sees of each variable. Times are hours before `as_of`; windows reach back
# from it. For variables that add up (urine), a mean is the total divided by the window's hours.
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
MOST_NAMES = 10_000  # variables, and treatments
MOST_HOURS = 10_000.0  # more than a year
NUMERIC_TABULAR = ("age", "height_cm", "weight_kg", "body_mass_index", "hours_since_admission")

# Names and units, as they were spelled, that are kept with what they mean.
_MOST_KEPT, _LONGEST_KEPT = 4096, 200  # pairs; characters of one


class FeatureSpec(BaseModel):
    """Everything that decides how a payload becomes arrays. Travels with cohort and bundle.

    Shapes for one patient, float32 unless said otherwise:
    tabular `values` [F]; series `statistics` [V, S] and `treatments` [T, 4];
    notes `tokens` [L] int64, of tokens and of phrases; image `pixels` [1, side, side] uint8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    variables: tuple[Variable, ...] = Field(max_length=MOST_NAMES)
    treatments: tuple[Treatment, ...] = Field(max_length=MOST_NAMES)
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
    window_hours: float = Field(48.0, gt=0, le=MOST_HOURS)
    recent_hours: float = Field(6.0, gt=0, le=MOST_HOURS)
    # Notes of this time and older are not read; None: however old a note is, it is.
    note_window_hours: float | None = Field(default=720.0, gt=0, le=10 * MOST_HOURS)
    image_side: int = Field(128, ge=1, le=2048)
    # Views of chest X-rays that the model was trained on; films of other views are not read.
    views: tuple[View, ...] = ("frontal",)
    # Of the image that is read, and of all notes: what is read is read whole, or refused.
    max_pixels: int = Field(40_000_000, ge=1, le=200_000_000)
    max_characters: int = Field(1_000_000, ge=1, le=20_000_000)
    # Ids beside the tokenizer's, onto which whole phrases are hashed. A BERT's notes have none.
    phrases: int = Field(65_536, ge=0, le=2**24)
    # Whether a word that is denied has an id among these, which is not that of the word.
    # Bundles and cohorts that do not say so were made before this was known.
    denied_apart: bool = False
    # A file of its own wherever a spec is stored, beside it.
    tokenizer_json: str = Field(exclude=True, repr=False)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for kind, names in (
            ("variables", [variable.name for variable in self.variables]),
            ("treatments", [treatment.name for treatment in self.treatments]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"two {kind} have one name")
        return self

    @classmethod
    def default(cls) -> Self:
        """The project's own variables, treatments and tokenizer."""
        return cls(
            variables=load_variables(),
            treatments=load_treatments(),
            spellings=load_spellings(),
            denied_apart=True,
            tokenizer_json=files("schemas").joinpath("tokenizer.json").read_text("utf-8"),
        )

    @property
    def tabular_names(self) -> tuple[str, ...]:
        """The name of each of the F tabular features."""
        hot = (f"{field}={value}" for field, values in self.categories.items() for value in values)
        return (*NUMERIC_TABULAR, *hot)

    @cached_property
    def known(self) -> tuple[Variable, ...]:
        """[V] the variables, with what the dictionary of this software adds to each."""
        return with_declared(self.variables)

    @cached_property
    def variable_index(self) -> dict[str, int]:
        """Index of a variable by its name and by each `loinc:` code."""
        index = {v.name: i for i, v in enumerate(self.variables)}
        return index | {f"loinc:{c}": i for i, v in enumerate(self.known) for c in v.loinc}

    @cached_property
    def _names(self) -> dict[str, int]:
        """Index of a variable by whatever else it is called."""
        called = ((i, name) for i, v in enumerate(self.known) for name in (v.display, *v.aliases))
        names = {name_key(name): i for i, name in called}
        return names | {name_key(name): i for name, i in self.variable_index.items()}

    def find_variable(self, name: str) -> int | None:
        """Index of the variable with this name or LOINC, however it is written."""
        index = self.variable_index.get(name)
        return self._names.get(name_key(name)) if index is None else index

    def look_up(self, name: str, unit: str | None) -> tuple[int | None, Conversion | None]:
        """Index of a variable, and how its values in a unit become canonical, both as spelled.

        None where either is not known.
        """
        found = self._looked_up.get((name, unit))
        if found is None:
            index = self.find_variable(name)
            found = index, None if index is None else self._conversion(index, name, unit)
            if len(self._looked_up) >= _MOST_KEPT:
                self._looked_up.clear()
            if len(name) + len(unit or "") <= _LONGEST_KEPT:
                self._looked_up[name, unit] = found
        return found

    def _conversion(self, index: int, name: str, unit: str | None) -> Conversion | None:
        known = self.known[index]
        if unit is None:
            return Conversion(known.unit, 1.0) if known.dimensionless else None
        spelled = unit.strip()
        own = self.spellings.get(spelled) or load_spellings().get(spelled, spelled)
        declared = known.conversion(own)
        found = conversion(known, spelled) if declared is None else Conversion(own, *declared)
        other_substance = name_key(name).removeprefix("loinc:") in known.moles_only
        return None if found and other_substance and "mol" not in found.unit else found

    @cached_property
    def _looked_up(self) -> dict[tuple[str, str | None], tuple[int | None, Conversion | None]]:
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
        """[V, 2] lowest and highest typical value, canonical units; else infinite."""
        everything = (-np.inf, np.inf)
        return np.array([v.typical or everything for v in self.known], dtype=np.float64)

    @cached_property
    def sensor_off(self) -> npt.NDArray[np.float64]:
        """[V] what a detached sensor gives, canonical units; NaN where nothing is known."""
        off = [np.nan if v.sensor_off is None else v.sensor_off for v in self.known]
        return np.array(off, dtype=np.float64)

    @cached_property
    def adds_up(self) -> npt.NDArray[np.bool_]:
        """[V] whether the values of a variable are amounts that add up over time."""
        return np.array([v.aggregate == "sum" for v in self.variables], dtype=np.bool_)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)

    @cached_property
    def word_check(self) -> WordCheck:
        return WordCheck(self.tokenizer)

    @cached_property
    def vocabulary(self) -> int:
        """How many ids a note may hold: the tokenizer's, then those of phrases."""
        return self.tokenizer.get_vocab_size() + self.phrases

    def ucum(self, unit: str | None) -> str | None:
        """The UCUM code of a treatment's rate as it was spelled."""
        if unit is None:
            return None
        spelled = unit.strip()
        own = self.spellings.get(spelled, spelled)
        codes = (code for code in (own, *readings(spelled)) if code in self._rates)
        return next(codes, own)

    @cached_property
    def _rates(self) -> frozenset[str]:
        return frozenset(unit for known in self.treatments for unit in known.accepted)
