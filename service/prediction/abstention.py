"""Abstention: whether a task gives no prediction for a patient, and why."""

import math
from dataclasses import dataclass
from typing import Self

from schemas.features import Features
from schemas.manifest import Manifest, ServedTask
from schemas.response import MODALITIES, Modality
from service.prediction.answer_fields import AbstainedFields

_ADULT = 18.0  # years


@dataclass(frozen=True)
class Basis:
    """The facts about a request that decide which tasks abstain. Hashable.

    `present`: the modalities with usable input. `rejected`: those of them whose input is not of the
    kind that the model reads, such as a photograph instead of a chest X-ray. `outside`: why the
    patient is outside the trained population, or None.
    """

    present: tuple[Modality, ...]
    rejected: frozenset[Modality] = frozenset()
    outside: str | None = None

    @classmethod
    def of(cls, features: Features, manifest: Manifest) -> Self:
        """The basis of the features of a request."""
        # Feature extraction scores an image only if it is clearly no chest X-ray.
        no_xray = features.receipt.modalities["image"].unusual is not None
        return cls(
            present=tuple(m for m in MODALITIES if m in features.arrays),
            rejected=frozenset({"image"}) if no_xray else frozenset(),
            outside=_outside_population(features, manifest),
        )

    def based_on(self, served: ServedTask) -> tuple[Modality, ...]:
        """The modalities that the task uses; empty if it abstains."""
        return () if self.abstention(served) else self._visible(served)

    def abstention(self, served: ServedTask) -> AbstainedFields | None:
        """Why the task gives no prediction for this patient; None if it gives one."""
        if served.abstains is not None:
            return {"reason": served.abstains, "code": "not_trained"}
        if self.outside is not None:
            return {"reason": self.outside, "code": "outside_trained_population"}
        if self.has_evidence(served):
            return None
        return {"reason": self._no_evidence(served), "code": "no_input"}

    def has_evidence(self, served: ServedTask) -> bool:
        """Whether the task can use any input of the request."""
        return not self.rejected.issuperset(self._visible(served))

    def _visible(self, served: ServedTask) -> tuple[Modality, ...]:
        return tuple(m for m in self.present if m in served.visible_modalities)

    def _no_evidence(self, served: ServedTask) -> str:
        if self._visible(served):
            return "the only input that this task can use is no chest X-ray"
        if self.present:
            return "the request has no usable input of a kind that this task learned from"
        return "nothing of the request could be used"


def _outside_population(features: Features, manifest: Manifest) -> str | None:
    """Why the patient's age is outside that of the training patients; None if it is not."""
    low, high = manifest.trained_age
    age = tabular_value("age", features, manifest)
    if math.isnan(age) or low <= age <= high:
        return None
    if age > high:
        return f"the model learned from patients of {high:g} years and younger; this one is older"
    population = "adults" if low == _ADULT else "patients"
    return f"the model learned from {population} ({low:g} years and older); this one is younger"


def tabular_value(name: str, features: Features, manifest: Manifest) -> float:
    """A number of the tabular features; NaN if it is unknown."""
    if "tabular" not in features.arrays:
        return math.nan
    index = manifest.spec.tabular_names.index(name)
    return float(features.arrays["tabular"]["values"][index])
