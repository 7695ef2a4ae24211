"""The CDS Services: one for each hook, with its prefetch templates (CDS Hooks, "Discovery").

Each hook has a service id of its own, because clients remove the cards of an id when another hook
of it answers (CDS Hooks, "Update stale guidance").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.interop.cds_hooks.models import ServiceDescription

Hook = Literal["patient-view", "encounter-start", "encounter-discharge"]

# The page sizes are requests: servers may send less. Queries use the recommended subset only
# (CDS Hooks, "Prefetch query restrictions").
_PATIENT = "patient={{context.patientId}}"
_TEMPLATES = {
    "patient": "Patient/{{context.patientId}}",
    "encounter": "Encounter/{{context.encounterId}}",
    "observations": f"Observation?{_PATIENT}&_sort=-date&_count=1000",
    "medications": f"MedicationAdministration?{_PATIENT}&_sort=-effective-time&_count=500",
    "procedures": f"Procedure?{_PATIENT}&_sort=-date&_count=200",
    "reports": f"DiagnosticReport?{_PATIENT}&_sort=-date&_count=100",
    "documents": f"DocumentReference?{_PATIENT}&_sort=-date&_count=100",
    "media": f"Media?{_PATIENT}&_sort=-created&_count=20",
}
# The context of this hook need not have an Encounter.
_CURRENT_ENCOUNTERS = f"Encounter?{_PATIENT}&status=in-progress"
_TITLES: dict[Hook, str] = {
    "patient-view": "M3H: conditions with a high probability",
    "encounter-start": "M3H: conditions with a high probability at admission",
    "encounter-discharge": "M3H: conditions with a high probability before discharge",
}
_REQUIREMENTS = (
    "Send every prefetch key, with null if the record has no such data; otherwise the answer is "
    "412. The service never calls the FHIR server. The time of the prediction is the time of the "
    "call. Cards are for clinicians, not for patients."
)


@dataclass(frozen=True)
class CdsService:
    """A CDS Service. `prefetch`: template by key. `needs_encounter`: of the context of its hook."""

    hook: Hook
    prefetch: dict[str, str]
    description: str

    @property
    def id(self) -> str:
        return f"m3h-{self.hook}"

    @property
    def needs_encounter(self) -> bool:
        return self.hook != "patient-view"

    @property
    def required(self) -> tuple[str, ...]:
        """The prefetch keys that may not be null."""
        return ("patient", "encounter") if self.needs_encounter else ("patient",)

    def describe(self) -> ServiceDescription:
        return ServiceDescription(
            hook=self.hook,
            title=_TITLES[self.hook],
            description=self.description,
            id=self.id,
            prefetch=self.prefetch,
            usageRequirements=_REQUIREMENTS,
        )


def cds_services(keys: Sequence[str], description: str) -> dict[str, CdsService]:
    """The services by id. `keys`: of the prefetch templates; patient and encounter are added."""
    templates = {
        key: query for key, query in _TEMPLATES.items() if key in ("patient", "encounter", *keys)
    }
    current = templates | {"encounter": _CURRENT_ENCOUNTERS}
    services = [
        CdsService(hook, current if hook == "patient-view" else templates, description)
        for hook in _TITLES
    ]
    return {service.id: service for service in services}
