"""From a payload to arrays: the only way, in training and in serving.

`features(payload, spec)` is pure. The spec comes from the bundle (or, in training, from the
cohort), so that a model is always fed as it was taught.
"""

import io
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from importlib.resources import files
from typing import Self
from zlib import crc32

import numpy as np
import numpy.typing as npt
import PIL.Image
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from schemas.negation import denied
from schemas.payload import FieldError, Image, InvalidPayload, Payload, Tabular
from schemas.response import (
    MODALITIES,
    Converted,
    Ignored,
    Merged,
    Modality,
    ModalityUse,
    Reason,
    Receipt,
    Used,
)
from schemas.variables import (
    Treatment,
    Variable,
    load_spellings,
    load_treatments,
    load_variables,
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
NUMERIC_TABULAR = ("age", "height_cm", "weight_kg", "body_mass_index", "hours_since_admission")

_PLAUSIBLE_TABULAR = {"age": (0.0, 120.0), "height_cm": (30.0, 250.0), "weight_kg": (1.0, 500.0)}
_SENTENCE_END = re.compile(r"[;\n]+|\.(?:\s+|$)")
_LONGEST_PHRASE, _MOST_HEADINGS = 200, 8  # characters; parts between colons
_IMAGE_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}


class FeatureSpec(BaseModel):
    """Everything that decides how a payload becomes arrays. Travels with cohort and bundle.

    Shapes for one patient, float32 unless said otherwise:
    tabular `values` [F]; series `statistics` [V, S] and `treatments` [T, 4];
    notes `tokens` [L] int64, of tokens and of phrases; image `pixels` [1, side, side] uint8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variables: tuple[Variable, ...]
    treatments: tuple[Treatment, ...]
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
    window_hours: float = 48.0
    recent_hours: float = 6.0
    image_side: int = 128
    # Of all images, and of all notes, of one request: what is read is read whole, or refused.
    max_pixels: int = 40_000_000
    max_characters: int = 1_000_000
    # Ids beside the tokenizer's, onto which whole phrases are hashed. A BERT's notes have none.
    phrases: int = 65_536
    # Whether a word that is denied has an id among these, which is not that of the word.
    # Bundles and cohorts that do not say so were made before this was known.
    denied_apart: bool = False
    # A file of its own wherever a spec is stored, beside it.
    tokenizer_json: str = Field(exclude=True, repr=False)

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
    def variable_index(self) -> dict[str, int]:
        """Index of a variable by its name and by each `loinc:` code."""
        index = {v.name: i for i, v in enumerate(self.variables)}
        return index | {f"loinc:{c}": i for i, v in enumerate(self.variables) for c in v.loinc}

    @cached_property
    def treatment_index(self) -> dict[str, int]:
        return {t.name: i for i, t in enumerate(self.treatments)}

    @cached_property
    def plausible(self) -> npt.NDArray[np.float64]:
        """[V, 2] lowest and highest plausible value, canonical units."""
        return np.array([v.plausible for v in self.variables], dtype=np.float64)

    @cached_property
    def adds_up(self) -> npt.NDArray[np.bool_]:
        """[V] whether the values of a variable are amounts that add up over time."""
        return np.array([v.aggregate == "sum" for v in self.variables], dtype=np.bool_)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)

    @cached_property
    def vocabulary(self) -> int:
        """How many ids a note may hold: the tokenizer's, then those of phrases."""
        return self.tokenizer.get_vocab_size() + self.phrases

    def ucum(self, unit: str | None) -> str | None:
        """The UCUM code of a unit as it was spelled."""
        return None if unit is None else self.spellings.get(unit.strip(), unit.strip())


@dataclass(frozen=True)
class Features:
    """The arrays of each modality that is there, by the names of its graph's inputs."""

    arrays: dict[Modality, dict[str, Array]]
    receipt: Receipt


@dataclass
class _Ledger:
    """What happens to the input on the way, gathered for the receipt."""

    used: dict[str, Used]
    treatments: dict[str, None]
    converted: list[Converted]
    merged: list[Merged]
    ignored: list[Ignored]
    warnings: list[str]
    errors: list[FieldError]

    def ignore(self, pointer: str, reason: Reason, detail: str, count: int | None = None) -> None:
        self.ignored.append(
            Ignored(pointer=pointer, reason=reason, detail=detail, observations=count)
        )

    def fail(self, pointer: str, rule: str, detail: str) -> None:
        self.errors.append(FieldError(pointer=pointer, rule=rule, detail=detail))


def features(payload: Payload, spec: FeatureSpec, known: Container[Modality] = ()) -> Features:
    """Arrays and receipt of a payload.

    `known`: notes or images whose very content was read before. They are not read again: they have
    no arrays, and the same receipt.

    Raises InvalidPayload for a unit that cannot be converted, a rate or a series without the unit
    that it needs, and an image that cannot be read or is too large.
    """
    ledger = _Ledger({}, {}, [], [], [], [], [])
    arrays: dict[Modality, dict[str, Array]] = {}
    readers: dict[Modality, Callable[..., dict[str, Array] | None]] = {
        "tabular": _tabular,
        "series": _series,
        "notes": partial(_notes, read="notes" not in known),
        "image": partial(_image, read="image" not in known),
    }
    for modality in MODALITIES:
        found = readers[modality](payload, spec, ledger)
        if found is not None:
            arrays[modality] = found
    if ledger.errors:
        raise InvalidPayload(ledger.errors)
    receipt = Receipt(
        modalities={m: ModalityUse(status="used" if m in arrays else "absent") for m in MODALITIES},
        used=tuple(ledger.used.values()),
        treatments=tuple(ledger.treatments),
        converted=tuple(ledger.converted),
        merged=tuple(ledger.merged),
        ignored=tuple(ledger.ignored),
        warnings=tuple(ledger.warnings),
    )
    return Features(arrays, receipt)


def _tabular(payload: Payload, spec: FeatureSpec, ledger: _Ledger) -> dict[str, Array] | None:
    given = payload.tabular
    if given is None:
        return None
    numbers = {
        name: _plausible_tabular(given, name, limits, ledger)
        for name, limits in _PLAUSIBLE_TABULAR.items()
    }
    numbers["body_mass_index"] = numbers["weight_kg"] / (numbers["height_cm"] / 100) ** 2
    numbers["hours_since_admission"] = (
        math.nan
        if given.admitted_at is None
        else (payload.as_of - given.admitted_at).total_seconds() / 3600
    )
    hot = [0.0] * sum(map(len, spec.categories.values()))
    start, known = 0, False
    for field, allowed in spec.categories.items():
        value = getattr(given, field)
        if value in allowed:
            hot[start + allowed.index(value)] = 1.0
            known = True
        elif value is not None:
            detail = f"not one of {', '.join(allowed)}; used as missing"
            ledger.ignore(f"/tabular/{field}", "unknown_category", detail)
        start += len(allowed)
    if not known and all(map(math.isnan, numbers.values())):
        return None
    values = [numbers[name] for name in NUMERIC_TABULAR] + hot
    return {"values": np.array(values, dtype=np.float32)}


def _plausible_tabular(
    given: Tabular, name: str, limits: tuple[float, float], ledger: _Ledger
) -> float:
    value = getattr(given, name)
    if value is None:
        return math.nan
    if limits[0] <= value <= limits[1]:
        return float(value)
    detail = f"outside the plausible range {limits[0]:g} to {limits[1]:g}; used as missing"
    ledger.ignore(f"/tabular/{name}", "implausible_value", detail)
    return math.nan


def _series(payload: Payload, spec: FeatureSpec, ledger: _Ledger) -> dict[str, Array] | None:
    variable, hours, value = _observations(payload, spec, ledger)
    treatments, treated = _treatments(payload, spec, ledger)
    if not len(value) and not treated:
        return None
    return {
        "statistics": _statistics(variable, hours, value, spec),
        "treatments": treatments,
    }


def _observations(
    payload: Payload, spec: FeatureSpec, ledger: _Ledger
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """All usable observations, sorted by variable and then from old to new.

    Returns variable index, hours before `as_of`, canonical value; each [observations].
    """
    read: list[tuple[int, int, float, float]] = []
    pointers: dict[int, list[str]] = defaultdict(list)
    for i, series in enumerate(payload.series):
        index = spec.variable_index.get(series.variable)
        if index is None:
            detail = "the model knows no such variable; see GET /variables"
            ledger.ignore(f"/series/{i}", "unknown_variable", detail, len(series.values))
            continue
        known = spec.variables[index]
        unit = spec.ucum(series.unit)
        conversion = known.conversion(unit)
        if conversion is None:
            rule = "unit_required" if unit is None else "unit"
            verb = "needs a unit" if unit is None else "cannot be converted"
            detail = f"{verb}; accepted for {known.name}: {', '.join(known.accepted)}"
            ledger.fail(f"/series/{i}/unit", rule, detail)
            continue
        if unit is not None and unit != known.unit:
            ledger.converted.append(
                Converted(
                    pointer=f"/series/{i}",
                    variable=known.name,
                    from_unit=unit,
                    to_unit=known.unit,
                )
            )
        pointers[index].append(f"/series/{i}")
        read.append((i, index, *conversion))
    if not read:
        return np.empty(0, np.intp), np.empty(0), np.empty(0)

    number, index_of, factor, offset = (np.array(column) for column in zip(*read, strict=True))
    given = [payload.series[i] for i in number.tolist()]
    each = [len(series.values) for series in given]
    times = itertools.chain.from_iterable(series.times for series in given)
    seconds = np.fromiter(map(datetime.timestamp, times), np.float64)
    hours = (payload.as_of.timestamp() - seconds) / 3600
    value = np.fromiter(itertools.chain.from_iterable(s.values for s in given), np.float64)
    value = value * np.repeat(factor, each) + np.repeat(offset, each)
    number, variable = np.repeat(number, each), np.repeat(index_of, each)
    _note_unsorted(number, hours, payload, spec, ledger)
    usable = _usable(number, variable, hours, value, spec, ledger)
    for index, of_variable in pointers.items():
        if len(of_variable) > 1:
            ledger.merged.append(
                Merged(
                    variable=spec.variables[index].name,
                    reason="given_more_than_once",
                    pointers=tuple(of_variable),
                    observations=int((usable & (variable == index)).sum()),
                )
            )
    merged = _merge_duplicates(
        variable[usable], hours[usable], value[usable], pointers, spec, ledger
    )
    for index, count in zip(*np.unique(merged[0], return_counts=True), strict=True):
        name, unit = spec.variables[index].name, spec.variables[index].unit
        ledger.used[name] = Used(variable=name, unit=unit, observations=int(count))
    return merged


def _note_unsorted(
    number: npt.NDArray[np.intp],
    hours: npt.NDArray[np.float64],
    payload: Payload,
    spec: FeatureSpec,
    ledger: _Ledger,
) -> None:
    """`number` [observations]: the series of the payload that each is from."""
    later = (np.diff(hours) > 0) & (np.diff(number) == 0)
    for i in np.unique(number[1:][later]).tolist():
        series = payload.series[i]
        ledger.merged.append(
            Merged(
                variable=spec.variables[spec.variable_index[series.variable]].name,
                reason="unsorted_times",
                pointers=(f"/series/{i}",),
                observations=len(series.values),
            )
        )


def _usable(
    number: npt.NDArray[np.intp],
    variable: npt.NDArray[np.intp],
    hours: npt.NDArray[np.float64],
    value: npt.NDArray[np.float64],
    spec: FeatureSpec,
    ledger: _Ledger,
) -> npt.NDArray[np.bool_]:
    """[observations] whether each is plausible and in the window."""
    low, high = spec.plausible[variable].T
    plausible = (value >= low) & (value <= high)
    inside = hours < spec.window_hours
    usable = plausible & inside
    for i in np.unique(number[~usable]).tolist():
        of_series = number == i
        known = spec.variables[variable[of_series][0]]
        if count := int((of_series & ~plausible).sum()):
            low, high = known.plausible
            detail = (
                f"outside the plausible range {low:g} to {high:g} {known.unit}; used as missing"
            )
            ledger.ignore(f"/series/{i}/values", "implausible_value", detail, count)
        if count := int((of_series & ~inside).sum()):
            detail = f"the model reads the last {spec.window_hours:g} hours"
            ledger.ignore(f"/series/{i}/times", "before_window", detail, count)
    return np.asarray(usable, dtype=np.bool_)


def _merge_duplicates(
    variable: npt.NDArray[np.intp],
    hours: npt.NDArray[np.float64],
    value: npt.NDArray[np.float64],
    pointers: dict[int, list[str]],
    spec: FeatureSpec,
    ledger: _Ledger,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """One value for each variable and time: repeats count once, then the mean, or for amounts
    the sum.
    """
    order = np.lexsort((value, -hours, variable))
    variable, hours, value = variable[order], hours[order], value[order]
    if not len(value):
        return variable, hours, value
    same_time = (np.diff(variable) == 0) & (np.diff(hours) == 0)
    if not same_time.any():
        return variable, hours, value
    for index, count in Counter(variable[1:][same_time].tolist()).items():
        ledger.merged.append(
            Merged(
                variable=spec.variables[index].name,
                reason="duplicate_times",
                pointers=tuple(pointers[index]),
                observations=count + 1,
            )
        )
    first = np.append(True, ~(same_time & (np.diff(value) == 0)))
    variable, hours, value = variable[first], hours[first], value[first]
    start = np.flatnonzero(
        (np.diff(variable, prepend=-1) != 0) | (np.diff(hours, prepend=np.nan) != 0)
    )
    total = np.add.reduceat(value, start)
    count_at = np.diff(start, append=len(value))
    adds_up = spec.adds_up[variable[start]]
    return variable[start], hours[start], np.where(adds_up, total, total / count_at)


def _statistics(
    variable: npt.NDArray[np.intp],
    hours: npt.NDArray[np.float64],
    value: npt.NDArray[np.float64],
    spec: FeatureSpec,
) -> Floats:
    """[V, S] by STATISTICS; NaN where a variable was not measured (log_count: 0).

    `spread` and `change` are NaN also where it was measured once.
    """
    out = np.full((len(spec.variables), len(STATISTICS)), np.nan, dtype=np.float32)
    out[:, STATISTICS.index("log_count")] = 0.0
    if not len(value):
        return out
    index, mean, low, high, start = _summary(variable, value, spec.window_hours, spec)
    end = np.append(start[1:], len(value))
    count = end - start
    square = np.add.reduceat(value**2, start) / count
    level_mean = np.add.reduceat(value, start) / count
    last = value[end - 1]
    # One value says nothing of how much it varies. As 0 they would say how often it was measured,
    # which is a hospital's habit.
    varies = count > 1
    spread = np.where(varies, np.sqrt(np.maximum(square - level_mean**2, 0.0)), np.nan)
    change = np.where(varies, last - value[start], np.nan)
    out[index, :8] = np.stack(
        [last, mean, low, high, spread, change, np.log1p(count), hours[end - 1]], axis=1
    )
    recent = hours < spec.recent_hours
    if recent.any():
        index, mean, low, high, _ = _summary(
            variable[recent], value[recent], spec.recent_hours, spec
        )
        out[index, 8:] = np.stack([mean, low, high], axis=1)
    return out


def _summary(
    variable: npt.NDArray[np.intp],
    value: npt.NDArray[np.float64],
    window: float,
    spec: FeatureSpec,
) -> tuple[
    npt.NDArray[np.intp],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.intp],
]:
    """Variable index, mean, minimum, maximum and first row, for each variable that is there."""
    start = np.flatnonzero(np.diff(variable, prepend=-1))
    index = variable[start]
    total = np.add.reduceat(value, start)
    count = np.diff(start, append=len(value))
    mean = total / np.where(spec.adds_up[index], window, count)
    low, high = np.minimum.reduceat(value, start), np.maximum.reduceat(value, start)
    return index, mean, low, high, start


def _treatments(payload: Payload, spec: FeatureSpec, ledger: _Ledger) -> tuple[Floats, bool]:
    """[T, 4] by TREATMENT_FEATURES, and whether any treatment is in the window."""
    out = np.zeros((len(spec.treatments), len(TREATMENT_FEATURES)), dtype=np.float32)
    out[:, 2:] = np.nan
    as_of = payload.as_of
    # From the earliest start to the latest, so that the latest rate stays.
    for i in sorted(range(len(payload.treatments)), key=lambda i: (payload.treatments[i].start, i)):
        given = payload.treatments[i]
        pointer = f"/treatments/{i}"
        index = spec.treatment_index.get(given.name)
        if index is None:
            detail = "the model knows no such treatment; see GET /variables"
            ledger.ignore(pointer, "unknown_treatment", detail)
            continue
        rate = _rate(pointer, payload, i, spec, ledger)
        started = (as_of - given.start).total_seconds() / 3600
        ended = 0.0 if given.end is None else (as_of - given.end).total_seconds() / 3600
        if ended >= spec.window_hours:
            detail = f"the model reads the last {spec.window_hours:g} hours"
            ledger.ignore(pointer, "before_window", detail)
            continue
        ledger.treatments[given.name] = None
        row = out[index]
        row[0] = 1.0
        row[2] = np.fmax(row[2], min(started, spec.window_hours))
        if given.end is None:
            row[1] = 1.0
            row[3] = row[3] if math.isnan(rate) else rate
    return out, bool(out[:, 0].any())


def _rate(pointer: str, payload: Payload, i: int, spec: FeatureSpec, ledger: _Ledger) -> float:
    """The rate in the treatment's canonical unit; NaN if there is none that can be used."""
    given = payload.treatments[i]
    known = spec.treatments[spec.treatment_index[given.name]]
    if given.rate is None:
        return math.nan
    unit = spec.ucum(given.unit)
    if known.unit is None:
        detail = f"the model reads that {known.name} is given, not at which rate"
        ledger.ignore(f"{pointer}/rate", "rate_not_read", detail)
        return math.nan
    weight = 1.0
    if unit == known.unit:
        factor = 1.0
    elif unit in known.units:
        factor = known.units[unit]
    elif unit in known.units_per_weight:
        factor = known.units_per_weight[unit]
        kg = payload.tabular.weight_kg if payload.tabular is not None else None
        limits = _PLAUSIBLE_TABULAR["weight_kg"]
        if kg is None or not limits[0] <= kg <= limits[1]:
            detail = f"{unit} becomes {known.unit} only with a plausible weight_kg; rate not used"
            ledger.ignore(f"{pointer}/rate", "weight_needed_for_rate", detail)
            return math.nan
        weight = kg
    else:
        rule = "unit_required" if unit is None else "unit"
        verb = "a rate needs a unit" if unit is None else "cannot be converted"
        detail = f"{verb}; accepted for {known.name}: {', '.join(known.accepted)}"
        ledger.fail(f"{pointer}/unit", rule, detail)
        return math.nan
    rate = given.rate * factor / weight
    low, high = known.plausible or (0.0, math.inf)
    if not low <= rate <= high:
        detail = f"outside the plausible range {low:g} to {high:g} {known.unit}; used as missing"
        ledger.ignore(f"{pointer}/rate", "implausible_value", detail)
        return math.nan
    if unit is not None and unit != known.unit:
        ledger.converted.append(
            Converted(pointer=pointer, variable=known.name, from_unit=unit, to_unit=known.unit)
        )
    return rate


def _notes(
    payload: Payload, spec: FeatureSpec, ledger: _Ledger, *, read: bool
) -> dict[str, Array] | None:
    """Tokens of all notes, from old to new, each followed by a separator and the note's phrases.

    Nothing is cut. A token that is denied stands among the phrases, as "not" and the token.
    """
    if not payload.notes:
        return None
    if sum(len(note.text) for note in payload.notes) > spec.max_characters:
        detail = f"more than {spec.max_characters} characters in all notes together"
        ledger.fail("/notes", "text_limit", detail)
        return None
    if not read:
        return {}
    ordered = sorted(payload.notes, key=lambda note: note.time)
    encoded = spec.tokenizer.encode_batch([note.text for note in ordered])
    tokens: list[int] = []
    separator = spec.tokenizer.token_to_id("[SEP]")
    first = spec.vocabulary - spec.phrases
    for note, one in zip(ordered, encoded, strict=True):
        ids: list[int] = one.ids
        apart: list[str] = []
        if spec.phrases:
            is_denied = np.zeros(len(note.text) + 1, dtype=np.bool_)
            for start, stop in denied(note.text) if spec.denied_apart else ():
                is_denied[start:stop] = True
            there = [not is_denied[start] for start, _ in one.offsets]
            ids = list(itertools.compress(ids, there))
            apart = [f"not {t}" for t, said in zip(one.tokens, there, strict=True) if not said]
            apart += phrases_of(note.text, is_denied)
        tokens += ids if separator is None else [*ids, separator]
        tokens += [first + crc32(words.encode()) % spec.phrases for words in apart]
    return {"tokens": np.array(tokens, dtype=np.int64)}


def phrases_of(text: str, is_denied: npt.NDArray[np.bool_]) -> list[str]:
    """What stands between full stops, semicolons and line breaks, in lower case, each once.

    Of "history: cardiac: heart failure" each run of its parts, too: what a form calls a thing, and
    the headings that it stands under, mean more than their single words. A run that begins where
    the text is denied begins with "not". `is_denied` [characters + 1].
    """
    found: dict[str, None] = {}
    at = 0
    for end in (*_SENTENCE_END.finditer(text), None):
        sentence = text[at : end.start() if end else None]
        parts: list[str] = []
        beginnings: list[int] = []
        for part in sentence.split(":"):
            parts.append(" ".join(part.lower().split()))
            beginnings.append(at + len(part) - len(part.lstrip()))
            at += len(part) + 1
        at = end.end() if end else at
        if len(sentence) > _LONGEST_PHRASE or len(parts) > _MOST_HEADINGS:
            continue  # prose, which nobody says twice
        for start, stop in itertools.combinations(range(len(parts) + 1), 2):
            run = ": ".join(parts[start:stop])
            if run:
                found[f"not {run}" if is_denied[beginnings[start]] else run] = None
    return list(found)


def _image(
    payload: Payload, spec: FeatureSpec, ledger: _Ledger, *, read: bool
) -> dict[str, Array] | None:
    """Pixels of the latest chest X-ray, centred on a black square."""
    latest: int | None = None
    for i, image in enumerate(payload.images):
        if image.kind != "chest_xray":
            detail = "not one of chest_xray; not used"
            ledger.ignore(f"/images/{i}/kind", "unknown_category", detail)
        elif latest is None or image.time >= payload.images[latest].time:
            latest = i
    # Every image is read, so that a broken one is never passed over because a newer one came.
    pixels: dict[str, Array] = {}
    budget = spec.max_pixels
    for i, image in enumerate(payload.images):
        if image.kind != "chest_xray":
            continue
        if read:
            opened = _open(f"/images/{i}/data", image, budget, spec, ledger)
            if opened is None:
                continue
            budget -= opened.width * opened.height
            if i == latest:
                pixels["pixels"] = _pixels(opened, spec.image_side)
        if i != latest:
            detail = "the model reads the latest chest X-ray only"
            ledger.ignore(f"/images/{i}", "not_the_latest_image", detail)
    return None if latest is None else pixels


def _open(
    pointer: str, image: Image, budget: int, spec: FeatureSpec, ledger: _Ledger
) -> PIL.Image.Image | None:
    """The decoded image; None, with an error noted, if it cannot be read or is too large."""
    over = f"more than {spec.max_pixels} pixels in all images together"
    try:
        opened = PIL.Image.open(io.BytesIO(image.data), formats=tuple(_IMAGE_FORMATS.values()))
        if opened.format != _IMAGE_FORMATS[image.media_type]:
            ledger.fail(pointer, "media_type", "the data are not of the media_type that is given")
            return None
        if opened.width * opened.height > budget:
            ledger.fail(pointer, "pixel_limit", over)
            return None
        opened.load()
    except PIL.Image.DecompressionBombError:
        ledger.fail(pointer, "pixel_limit", over)
        return None
    except (OSError, SyntaxError, ValueError, EOFError):
        ledger.fail(pointer, "image", "is no readable PNG or JPEG image, or is truncated")
        return None
    return opened


def _pixels(image: PIL.Image.Image, side: int) -> Array:
    """[1, side, side] uint8: grey, its proportions kept."""
    grey = _greyscale(image)
    scale = side / max(grey.size)
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    small = grey.resize(size, PIL.Image.Resampling.BILINEAR)
    canvas = PIL.Image.new("L", (side, side))
    canvas.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas, dtype=np.uint8)[None]


def _greyscale(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, of which an X-ray often uses only 12
        deep = np.asarray(image).astype(np.float64)
        span = max(float(deep.max() - deep.min()), 1.0)
        return PIL.Image.fromarray(((deep - deep.min()) / span * 255).astype(np.uint8))
    return image.convert("L")


def stack(samples: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """One batch of one modality: [batch, ...]. Token lists are padded with 0 at the end."""
    batch: dict[str, Array] = {}
    for name in samples[0]:
        rows = [sample[name] for sample in samples]
        if name == "tokens":
            width = max(map(len, rows))
            rows = [np.pad(row, (0, width - len(row))) for row in rows]
        batch[name] = np.stack(rows)
    return batch
