"""The entries of a Bundle: their resources, references between them, and the patient.

References are resolved inside the Bundle only (FHIR R4, section 2.36.4). The service never calls
another server.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from schemas.fhir.document import BundleDocument, Resource
from schemas.fhir.record import Place, Record

# Resources whose content is read. Each must name its subject.
PATIENT_DATA = frozenset(
    {
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "Media",
        "MedicationAdministration",
        "Observation",
        "Procedure",
    }
)
_HISTORY = "/_history/"


class Entries:
    """The resources of a Bundle by type, and by the references that name them.

    Raises InvalidPayload: the structure is wrong, or the resources belong to more than one patient.
    """

    def __init__(self, document: BundleDocument, record: Record) -> None:
        self._document, self._record = document, record
        self._by_type: dict[str, list[tuple[int, Resource]]] = {}
        self._by_url: dict[str, tuple[int, Resource]] = {}
        self._contained: dict[int, dict[str, Resource]] = {}
        for i, entry in enumerate(document.entries):
            self._add(i, entry)
        self._urls: dict[int, str] = {}
        for name, (i, _) in self._by_url.items():
            self._urls.setdefault(i, name)  # the fullUrl, which was added first
        self._patient_names: dict[str, bool] = {}
        self.patient = self._find_patient()
        self.subject: str | None = None
        for kind, resources in self._by_type.items():
            self._check_subjects(resources, is_required=kind in PATIENT_DATA)
        if self.patient is None:
            self.subject = min(
                (name for name, own in self._patient_names.items() if own), default=None
            )

    def _add(self, i: int, entry: Any) -> None:
        is_entry = isinstance(entry, dict)
        if is_entry and entry.get("resource") is None:
            return  # a request or response without content (section 3.1.0.11)
        resource = entry["resource"] if is_entry else None
        kind = resource.get("resourceType") if isinstance(resource, dict) else None
        if not isinstance(resource, dict) or not isinstance(kind, str) or not kind.isalpha():
            self._record.add_error((i, ""), "resource_type", "must be a resource with a type")
            return
        url, identity = entry.get("fullUrl"), resource.get("id")
        added, by_url = (i, resource), self._by_url
        known = None
        if isinstance(url, str):
            known = by_url.setdefault(url, added)
        if isinstance(identity, str) and (known is None or known is added):
            known = by_url.setdefault(f"{kind}/{identity}", added)
            if known is not added and self._are_servers(url, known):
                known = added  # of another server
        if known is None or known is added:
            self._by_type.setdefault(kind, []).append(added)
            return
        if isinstance(url, str):
            by_url[url] = known
        self._add_repeated(i, resource, known[1])

    def _are_servers(self, url: object, known: tuple[int, Resource]) -> bool:
        """Whether both entries have the URL of a server, which then differ."""
        urls = (url, self._full_url(known[0]))
        return all(isinstance(u, str) and u.startswith(("http://", "https://")) for u in urls)

    def _full_url(self, i: int) -> object:
        return self._document.entries[i].get("fullUrl")

    def _add_repeated(self, i: int, resource: Resource, known: Resource) -> None:
        """A second entry of a resource: equal content is read once, other content is an error."""
        if resource == known:
            detail = "the resource is in the Bundle more than once; it is read once"
            self._record.skip((i, ""), "duplicate_resource", detail)
        else:
            detail = "two entries have the same identity and different content; send one version"
            self._record.add_error((i, ""), "duplicate_resource", detail)

    def release(self) -> None:
        """Frees the resources. Their references stay known."""
        self._document = BundleDocument(self._document.path, [])
        self._contained.clear()
        self._by_type.clear()
        self._by_url.clear()

    def of_type(self, kind: str) -> list[tuple[int, Resource]]:
        """The resources of a type with the index of their entry."""
        return self._by_type.get(kind, [])

    def types(self) -> Iterator[str]:
        yield from self._by_type

    def url(self, i: int) -> str:
        """The fullUrl of an entry, otherwise its type and id; empty if it has neither."""
        return self._urls.get(i, "")

    def reference_of(self, i: int) -> dict[str, str]:
        """A Reference to an entry. Without fullUrl and id it only describes the entry."""
        url = self._urls.get(i)
        return {"display": f"entry {i} of the request"} if url is None else {"reference": url}

    def resolve(self, reference: object, origin: Resource) -> tuple[int, Resource] | None:
        """The entry that a Reference names; None if it is not in the Bundle.

        A contained resource has the index -1.
        """
        text = reference.get("reference") if isinstance(reference, dict) else reference
        if not isinstance(text, str):
            return None
        if text.startswith("#"):
            part = self._contained_in(origin).get(text[1:])
            return None if part is None else (-1, part)
        return self._look_up(text)

    def _look_up(self, reference: str) -> tuple[int, Resource] | None:
        """The entry of a URL or of a type and id. The URL of one server never names another's."""
        plain = reference.partition(_HISTORY)[0]
        target = self._by_url.get(plain)
        if target is None:
            target = self._by_url.get(_type_and_id(plain))
            if target is not None and self._are_servers(reference, target):
                return None
        return target

    def _contained_in(self, origin: Resource) -> dict[str, Resource]:
        """The contained resources of a resource by their id."""
        known = self._contained.get(id(origin))
        if known is None:
            parts = objects(origin, "contained")
            known = {part["id"]: part for part in parts if isinstance(part.get("id"), str)}
            self._contained[id(origin)] = known
        return known

    # ---- the patient -----------------------------------------------------------------------------

    def _find_patient(self) -> tuple[int, Resource] | None:
        patients = self.of_type("Patient")
        for i, _ in patients[1:]:
            detail = "the Bundle has more than one Patient; send one Bundle for each"
            self._record.add_error((i, ""), "one_patient", detail)
        return patients[0] if patients else None

    def _check_subjects(
        self, resources: Sequence[tuple[int, Resource]], *, is_required: bool
    ) -> None:
        checked = None  # the last reference that names the patient
        for i, resource in resources:
            subject = resource.get("subject")
            reference = subject.get("reference") if type(subject) is dict else None
            if checked is None or reference != checked:
                self._check_subject(i, resource, is_required=is_required)
                is_known = type(reference) is str and self._patient_names.get(reference)
                checked = reference if is_known else None

    def _check_subject(self, i: int, resource: Resource, *, is_required: bool) -> None:
        field = "subject" if "subject" in resource else "patient"
        subject = resource.get(field)
        if subject is None:
            if is_required:
                self._record.add_error((i, "subject"), "required", "must name the patient")
            return
        reference = subject.get("reference") if isinstance(subject, dict) else None
        if not isinstance(reference, str):
            if is_required and not self._has_patient_identifier(subject):
                detail = "must be a reference to the Patient of the Bundle, or its identifier"
                self._record.add_error((i, field), "required", detail)
            return
        if not is_required and "Patient/" not in reference and reference not in self._by_url:
            return  # a Group, Location or Device as subject of a resource that is not read
        known = self._patient_names.get(reference)
        if known is None:
            known = self._patient_names[reference] = self._names_patient(reference)
        if not known:
            detail = "must reference the one patient of the Bundle"
            self._record.add_error((i, f"{field}.reference"), "one_patient", detail)

    def _names_patient(self, reference: str) -> bool:
        if self.patient is not None:
            target = self._look_up(reference)
            return target is not None and target[0] == self.patient[0]
        name = _type_and_id(reference)
        if self.subject is None:
            self.subject = reference
        return name == _type_and_id(self.subject)

    def _has_patient_identifier(self, subject: object) -> bool:
        """Whether a logical reference has an identifier of the Patient (section 2.3.0.4)."""
        sent = subject.get("identifier") if isinstance(subject, dict) else None
        return isinstance(sent, dict) and _identifier_key(sent) in self._patient_identifiers

    @cached_property
    def _patient_identifiers(self) -> frozenset[tuple[str, str]]:
        own = [] if self.patient is None else objects(self.patient[1], "identifier")
        return frozenset(key for key in map(_identifier_key, own) if key is not None)

    def patient_reference(self) -> dict[str, str]:
        """A Reference to the Patient, otherwise to the patient as the resources name it."""
        if self.patient is not None:
            return self.reference_of(self.patient[0])
        return {"display": "not named"} if self.subject is None else {"reference": self.subject}


def objects(resource: Resource, name: str) -> list[Resource]:
    """The objects of a repeating element; entries of another kind are left out."""
    parts = resource.get(name)
    return [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []


def indexed_objects(resource: Resource, name: str) -> list[tuple[int, Resource]]:
    """The objects of a repeating element with their index."""
    parts = resource.get(name)
    listed = parts if isinstance(parts, list) else []
    return [(i, part) for i, part in enumerate(listed) if isinstance(part, dict)]


def is_modified(record: Record, place: Place, resource: Resource) -> bool:
    """Records and returns whether a resource has rules that could change its meaning.

    A reader must not use an element whose modifier extension it does not know (FHIR R4, section
    2.4.0.2).
    """
    if "modifierExtension" not in resource and "implicitRules" not in resource:
        return False
    detail = "has a modifierExtension or implicitRules that the service does not know"
    record.skip(place, "modifier_extension", detail)
    return True


def _identifier_key(identifier: Resource) -> tuple[str, str] | None:
    system, value = identifier.get("system", ""), identifier.get("value")
    return (system, value) if isinstance(system, str) and isinstance(value, str) else None


def _type_and_id(reference: str) -> str:
    """`http://host/fhir/Patient/1/_history/2` becomes `Patient/1`."""
    return "/".join(reference.partition(_HISTORY)[0].split("/")[-2:])
