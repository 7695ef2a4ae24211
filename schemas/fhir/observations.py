"""Observations: vital signs and laboratory values (FHIR R4, section 10.1).

Each Observation with a number is read on its own, and so is each component. A panel has no value
itself; its members are entries of the Bundle.
"""

from datetime import datetime

from schemas.fhir.codes import CodeTable
from schemas.fhir.document import Resource
from schemas.fhir.entries import Entries, indexed_objects, is_modified
from schemas.fhir.quantities import UnitChoice, read_value
from schemas.fhir.record import Group, Place, Record
from schemas.terminology.height import HEIGHT

_READ_STATUSES = ("final", "amended", "corrected", "preliminary")
_STATUS = "its status is not final, amended, corrected or preliminary; it never counts"
_LATER = "was not known at as_of"


class ObservationReader:
    """Reads the Observations of one Bundle into a record."""

    def __init__(self, record: Record, codes: CodeTable, units: UnitChoice) -> None:
        self._record, self._codes, self._units = record, codes, units
        self.heights: list[tuple[datetime, float, str | None, Place]] = []

    def read(self, i: int, resource: Resource) -> None:
        """Reads an Observation with its components."""
        place = (i, "")
        if resource.get("status") not in _READ_STATUSES:
            self._record.skip(place, "status", _STATUS)
            return
        if is_modified(self._record, place, resource):
            return
        time = self._time(i, resource)
        if time is None:
            return
        if "component" not in resource and "hasMember" not in resource:
            self._read_part(resource, place, time)
            return
        components = indexed_objects(resource, "component")
        is_panel = bool(components) or "hasMember" in resource
        if not is_panel or "valueQuantity" in resource or "valueInteger" in resource:
            self._read_part(resource, place, time)
        for j, component in components:
            self._read_part(component, (i, f"component[{j}]"), time)

    def _time(self, i: int, resource: Resource) -> datetime | None:
        """When the value was observed; None if it is unknown, not exact or after `as_of`."""
        record, field = self._record, "effective"
        value = resource.get("effectiveDateTime") or resource.get("effectiveInstant")
        if not value:
            period = resource.get("effectivePeriod")
            if isinstance(period, dict):
                value = period.get("end") or period.get("start")
            elif "issued" in resource and "effectiveTiming" not in resource:
                value, field = resource["issued"], "issued"
                record.assume((i, field), "has no effective time; the time of issue is used")
        if value is None:
            record.skip((i, ""), "no_time", "has no effective time; its age is unknown")
            return None
        time = record.time(value, (i, field), exact=True)
        if time is None:
            return None
        if time > record.as_of or self._is_issued_later(i, resource):
            record.skip((i, ""), "after_as_of", _LATER)
            return None
        return time

    def _is_issued_later(self, i: int, resource: Resource) -> bool:
        issued = resource.get("issued")
        if issued is None or issued == resource.get("effectiveDateTime"):
            return False
        time = self._record.time(issued, (i, "issued"))
        return time is not None and time > self._record.as_of

    def _read_part(self, part: Resource, place: Place, time: datetime) -> None:
        code = self._codes.observation(part.get("code"))
        if code.name is None:
            self._record.skip(place, code.reason, code.detail)
            return
        read = read_value(part, place, code.name, self._units, self._record)
        if read is None:
            return
        value, unit = read
        if code.name == HEIGHT:
            if isinstance(value, float):
                self.heights.append((time, value, unit, place))
            return
        group = self._record.groups.get((code.name, unit))
        if group is None:
            group = self._record.groups[code.name, unit] = Group()
        group.times.append(time)
        group.values.append(value)
        group.places.append(place)


def check_members(entries: Entries, record: Record) -> None:
    """Checks that each member of a panel is in the Bundle and that no panel holds itself."""
    members: dict[int, list[int]] = {}
    for i, resource in entries.of_type("Observation"):
        if "hasMember" not in resource:
            continue
        members[i] = []
        for j, reference in indexed_objects(resource, "hasMember"):
            target = entries.resolve(reference, resource)
            if target is None:
                detail = "the member is not in the Bundle; its value is not read"
                record.skip((i, f"hasMember[{j}]"), "dangling_reference", detail)
            elif target[0] >= 0:
                members[i].append(target[0])
    for i in _in_loops(members):
        detail = "the members of this panel lead back to it"
        record.add_error((i, "hasMember"), "reference_loop", detail)


def _in_loops(members: dict[int, list[int]]) -> list[int]:
    """The panels that are reached from themselves. Removes panels without open members in turn."""
    open_members = {i: {m for m in targets if m in members} for i, targets in members.items()}
    holders: dict[int, list[int]] = {}
    for i, targets in open_members.items():
        for target in targets:
            holders.setdefault(target, []).append(i)
    done = [i for i, targets in open_members.items() if not targets]
    while done:
        i = done.pop()
        del open_members[i]
        for holder in holders.get(i, ()):
            open_members[holder].discard(i)
            if not open_members[holder]:
                done.append(holder)
    return sorted(open_members)
