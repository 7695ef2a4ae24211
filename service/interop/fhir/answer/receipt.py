"""The receipt of an answer at the places of the Bundle, and the resources that were used.

The receipt of a payload names its parts by JSON Pointer. Here each pointer becomes the FHIRPath of
the resources that the part was read from.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from schemas.fhir.record import STRICT_REASONS, Group, Place, Record
from schemas.request_errors import FieldError
from schemas.response import Modality
from service.interop.fhir.operation_outcome import MAX_EXPRESSIONS, Severity, issue

_RATE_PARTS = frozenset({"rate", "unit"})
_POINTER = re.compile(r"/(?:series|treatments|notes|images)/\d+")
_IN_BRACKETS = re.compile(rf" \({_POINTER.pattern}[^)]*\)")
_IMPLAUSIBLE, _EARLY = "implausible_value", "before_window"
# Reasons of the payload's receipt that are no fault of the sender.
_NO_FAULT = frozenset({"no_value", "not_the_latest_image", "hidden_modality"})


# Severity, rule and detail of an issue, and its places.
_Entry = tuple[Severity, str, str]
_Finding = tuple[_Entry, Iterable[Place]]


class _Judged(NamedTuple):
    """The places of the observations of a series, by what becomes of them."""

    used: list[Place]
    implausible: list[Place]
    early: list[Place]


class PlacedReceipt:
    """A receipt of a payload, `fields`, with the places of its parts in a Bundle."""

    def __init__(self, fields: Mapping[str, Any], record: Record) -> None:
        self._fields, self._record = fields, record
        self._groups = [*record.groups.items()]
        self._judged = {key: self._judge(*key, group) for key, group in self._groups}

    # ---- places ----------------------------------------------------------------------------------

    def places(self, pointer: str, reason: str = "") -> list[Place]:
        """The places of a pointer into the payload. `reason`: why the part is ignored."""
        part, index, *below = (*pointer.strip("/").split("/"), "")[:3]
        record = self._record
        match part:
            case "series" if index.isdecimal():
                (name, unit), group = self._groups[int(index)]
                return self._members(name, unit, group, reason)
            case "treatments" if index.isdecimal():
                entry, _ = record.treatment_places[int(index)]
                return [(entry, "dosage" if below and below[0] in _RATE_PARTS else "")]
            case "notes" if index.isdecimal():
                return [record.note_places[int(index)]]
            case "images" if index.isdecimal():
                return [record.image_places[int(index)]]
            case "tabular":
                known = record.tabular_places
                return [known[index]] if index in known else [*known.values()][:1]
        by_part = {
            "series": [place for _, group in self._groups for place in group.places],
            "treatments": record.treatment_places,
            "notes": record.note_places,
            "images": record.image_places,
        }
        return by_part.get(part) or [(-1, "entry")]

    def _members(self, name: str, unit: str | None, group: Group, reason: str) -> list[Place]:
        """The observations of a series that are ignored for `reason`; all for other reasons."""
        if reason == _IMPLAUSIBLE:
            return self._judged[name, unit].implausible or group.places
        return group.places

    def _judge(self, name: str, unit: str | None, group: Group) -> _Judged:
        """What becomes of each observation of a series (`schemas.features.series`)."""
        judged, spec = _Judged([], [], []), self._record.spec
        index, conversion = spec.look_up(name, unit)
        if index is None or conversion is None:
            return judged
        low, high = spec.variables[index].plausible
        factor, offset = conversion.factor, conversion.offset
        oldest = self._record.as_of - timedelta(hours=spec.window_hours)
        for time, value, place in zip(group.times, group.values, group.places, strict=True):
            number = value if isinstance(value, float) else float(value.lstrip("<>="))
            is_early = time <= oldest
            if is_early:
                judged.early.append(place)
            if not low <= number * factor + offset <= high:
                judged.implausible.append(place)
            elif not is_early:
                judged.used.append(place)
        return judged

    def to_expressions(self, error: FieldError) -> Iterator[FieldError]:
        """Yields the error of a payload at each of its places in the Bundle."""
        for place in self.places(error.pointer, error.rule)[:MAX_EXPRESSIONS]:
            yield error.model_copy(update={"pointer": self._record.expression(place)})

    # ---- used resources --------------------------------------------------------------------------

    def used_entries(self) -> dict[Modality, list[int]]:
        """By modality, the entries whose content the model read, in order and without repeats."""
        used: dict[Modality, dict[int, None]] = {}
        for modality, places in self._used_places():
            entries = used.setdefault(modality, {})
            if self._fields["modalities"][modality]["status"] == "used":
                entries.update((entry, None) for entry, _ in places if entry >= 0)
        return {modality: [*entries] for modality, entries in used.items()}

    def _used_places(self) -> Iterator[tuple[Modality, Iterable[Place]]]:
        record = self._record
        ignored = {entry["pointer"] for entry in self._fields.get("ignored", ())}
        fields = record.tabular_places.items()
        yield "tabular", (place for name, place in fields if f"/tabular/{name}" not in ignored)
        for judged in self._judged.values():
            yield "series", judged.used
        unread = {*self._early_treatments(), *self._early_notes(), *self._blank_notes()}
        yield "series", (place for place in record.treatment_places if place not in unread)
        yield "notes", (place for place in record.note_places if place not in unread)
        chosen = record.chosen_image
        yield "image", () if chosen is None else (record.image_places[chosen],)

    def _early_treatments(self) -> Iterator[Place]:
        """The treatments that ended before the window (`schemas.features.treatments`)."""
        record, window = self._record, timedelta(hours=self._record.spec.window_hours)
        for given, place in zip(record.treatments, record.treatment_places, strict=True):
            if given["end"] is not None and record.as_of - given["end"] >= window:
                yield place

    def _early_notes(self) -> Iterator[Place]:
        """The notes before the window (`schemas.features.notes`)."""
        record, hours = self._record, self._record.spec.note_window_hours
        for note, place in zip(record.notes, record.note_places, strict=True):
            if hours is not None and record.as_of - note["time"] >= timedelta(hours=hours):
                yield place

    def _blank_notes(self) -> Iterator[Place]:
        """The notes that hold only markup."""
        for entry in self._fields.get("ignored", ()):
            if entry["reason"] == "no_text":
                for pointer in entry.get("pointers") or (entry["pointer"],):
                    yield from self.places(pointer)

    def _observed(self) -> dict[str, list[Place]]:
        """The places of the used observations by variable."""
        observed: dict[str, list[Place]] = {}
        spec = self._record.spec
        for (name, _), judged in self._judged.items():
            index = spec.find_variable(name)
            if index is not None:
                observed.setdefault(spec.variables[index].name, []).extend(judged.used)
        return observed

    # ---- issues ----------------------------------------------------------------------------------

    def issues(self) -> list[dict[str, Any]]:
        """What became of the input, as the issues of an OperationOutcome. Equal ones are merged."""
        merged: dict[_Entry, dict[Place, None]] = {}
        for part in (
            self._warnings(),
            self._not_read(),
            self._ignored(),
            self._early(),
            self._assumed(),
            self._changed(),
            self._used(),
        ):
            for entry, places in part:
                merged.setdefault(entry, {}).update(dict.fromkeys(places))
        return [self._issue(*entry, [*places]) for entry, places in merged.items()]

    def _issue(
        self, severity: Severity, rule: str, detail: str, places: Sequence[Place]
    ) -> dict[str, Any]:
        expressions = [self._record.expression(place) for place in places[:MAX_EXPRESSIONS]]
        return issue(severity, rule, detail, expressions, len(places))

    def _warnings(self) -> Iterator[_Finding]:
        for warning in self._fields.get("warnings", ()):
            places = [place for p in _POINTER.findall(warning) for place in self.places(p)]
            yield ("warning", "warning", _named(_IN_BRACKETS.sub("", warning))), places

    def _not_read(self) -> Iterator[_Finding]:
        for (reason, detail), places in self._record.not_read.items():
            severity: Severity = "warning" if reason in STRICT_REASONS else "information"
            yield (severity, reason, detail), places

    def _ignored(self) -> Iterator[_Finding]:
        for entry in self._fields.get("ignored", ()):
            pointers = entry.get("pointers") or (entry["pointer"],)
            reason = entry["reason"]
            if reason == _EARLY:
                continue  # `_early` lists all places
            places = [place for p in pointers for place in self.places(p, reason)]
            severity: Severity = "information" if reason in _NO_FAULT else "warning"
            yield (severity, reason, _named(entry["detail"])), places

    def _early(self) -> Iterator[_Finding]:
        spec = self._record.spec
        places = [place for judged in self._judged.values() for place in judged.early]
        places += self._early_treatments()
        if places:
            detail = f"the model reads the last {spec.window_hours:g} hours"
            yield ("information", _EARLY, detail), places
        notes = [*self._early_notes()]
        if notes:
            detail = f"the model reads the notes of the last {spec.note_window_hours:g} hours"
            yield ("information", _EARLY, detail), notes

    def _assumed(self) -> Iterator[_Finding]:
        for detail, places in self._record.assumed.items():
            yield ("information", "assumed", detail), places

    def _changed(self) -> Iterator[_Finding]:
        for entry in self._fields.get("converted", ()):
            detail = (
                f"{entry['variable']}: converted from {entry['from_unit']} to {entry['to_unit']}"
            )
            yield ("information", "converted", detail), self._all_places(entry)
        for entry in self._fields.get("read_as", ()):
            detail = f"read as {entry['read_as']}: {entry['detail']}"
            yield ("information", "read_as", detail), self._all_places(entry)
        for entry in self._fields.get("merged", ()):
            if entry["reason"] != "unsorted_times":  # the order of entries has no meaning
                detail = f"{entry['variable']}: {entry['reason'].replace('_', ' ')}"
                yield ("information", "merged", detail), self._all_places(entry)

    def _all_places(self, entry: Mapping[str, Any]) -> list[Place]:
        pointers = entry.get("pointers") or (entry["pointer"],)
        return [place for pointer in pointers for place in self.places(pointer)]

    def _used(self) -> Iterator[_Finding]:
        fields = self._fields
        observed = self._observed()
        for entry in fields.get("used", ()):
            detail = f"{entry['variable']}: {entry['observations']} observations in {entry['unit']}"
            yield ("information", "used", detail), observed.get(entry["variable"], ())
        for name in fields.get("treatments", ()):
            courses = zip(self._record.treatment_names, self._record.treatment_places, strict=True)
            places = [place for known, place in courses if known == name]
            yield ("information", "used", f"{name}: a treatment"), places
        not_learned = fields.get("not_learned") or {}
        names = [*not_learned.get("variables", ()), *not_learned.get("treatments", ())]
        if names:
            detail = f"read without influence on any prediction: {', '.join(names)}"
            yield ("information", "not_learned", detail), ()
        for modality, use in fields["modalities"].items():
            detail = f"{modality}: {use['status']}"
            if use.get("unusual") is not None:
                detail = (
                    f"{detail}; more unusual than {use['unusual']:.3g} of the training patients"
                )
            yield ("information", "modality", detail), ()


def _named(text: str) -> str:
    """Replaces the names of the payload's fields by those of FHIR."""
    for name, element in (
        ("tabular.admitted_at", "the start of the stay (Encounter)"),
        ("admitted_at", "the start of the stay"),
        ("; see GET /variables", ""),
    ):
        text = text.replace(name, element)
    return text
