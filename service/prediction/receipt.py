"""Completes the receipt of a request: what this model hides, and how unusual the input is."""

import math

from schemas.features import Features
from schemas.manifest import Manifest
from schemas.response import Ignored, Modality, ModalityUse, NotLearned, Receipt
from service.prediction.abstention import Basis, tabular_value
from service.runtime.engine import Outputs

UNUSUAL_SCORE = 0.99  # above it the receipt warns

_UNUSUAL_INPUT: dict[Modality, str] = {
    "tabular": "the tabular data are",
    "series": "the series and treatments are",
    "notes": "the notes are",
    "image": "the image is",
}
_POINTERS: dict[Modality, str] = {
    "tabular": "/tabular",
    "series": "/series",
    "notes": "/notes",
    "image": "/images",
}


def complete_receipt(features: Features, manifest: Manifest) -> Receipt:
    """The receipt of the features, with hidden modalities and warnings of this model."""
    receipt = features.receipt
    modalities, ignored = dict(receipt.modalities), list(receipt.ignored)
    for modality in features.arrays:
        hidden_from = tuple(
            t.task.name for t in manifest.tasks if modality not in t.visible_modalities
        )
        if not hidden_from:
            continue
        from_all = len(hidden_from) == len(manifest.tasks)
        modalities[modality] = ModalityUse(
            status="hidden" if from_all else "used",
            hidden_from=hidden_from,
            unusual=None if from_all else modalities[modality].unusual,
        )
        tasks = "all" if from_all else f"{len(hidden_from)} of {len(manifest.tasks)}"
        detail = f"hidden from {tasks} tasks: no patient with it had their labels in training"
        pointer = _pointer(modality, features)
        ignored.append(Ignored(pointer=pointer, reason="hidden_modality", detail=detail))
    basis = Basis.of(features, manifest)
    warnings = (
        *receipt.warnings,
        *_no_input_warning(basis, manifest),
        *_time_warning(features, manifest),
        *_age_warning(basis),
    )
    return receipt.model_copy(
        update={
            "modalities": modalities,
            "not_learned": _not_learned(receipt, manifest),
            "ignored": tuple(ignored),
            "warnings": warnings,
        }
    )


def _not_learned(receipt: Receipt, manifest: Manifest) -> NotLearned | None:
    """The variables and treatments of the receipt that have no influence; None without any."""
    known = manifest.not_learned
    if known is None:
        return None
    variables = tuple(u.variable for u in receipt.used if u.variable in known.variables)
    treatments = tuple(name for name in receipt.treatments if name in known.treatments)
    if not variables and not treatments:
        return None
    return NotLearned(variables=variables, treatments=treatments)


def with_unusual_scores(receipt: Receipt, outputs: Outputs) -> Receipt:
    """The receipt with the unusual score of each used modality, and a warning for a high one.

    A modality that feature extraction has found unusual keeps its score and its own warning.
    """
    modalities, warnings = dict(receipt.modalities), list(receipt.warnings)
    for modality, score in outputs.unusual.items():
        use = modalities[modality]
        if use.status != "used" or use.unusual is not None or not math.isfinite(score):
            continue
        modalities[modality] = use.model_copy(update={"unusual": score})
        if score > UNUSUAL_SCORE:
            share = f"unlike those of {UNUSUAL_SCORE * 100:g} % of the training patients"
            warnings.append(f"{_UNUSUAL_INPUT[modality]} {share}: read with caution")
    return receipt.model_copy(update={"modalities": modalities, "warnings": tuple(warnings)})


def _pointer(modality: Modality, features: Features) -> str:
    if modality == "series" and not features.receipt.used:
        return "/treatments"
    return _POINTERS[modality]


def _no_input_warning(basis: Basis, manifest: Manifest) -> tuple[str, ...]:
    """A warning if no task can use any input."""
    if any(map(basis.has_evidence, manifest.tasks)):
        return ()
    return ("nothing of the request could be used: no task has a prediction",)


def _time_warning(features: Features, manifest: Manifest) -> tuple[str, ...]:
    """A warning if the time since admission is outside that of the training, or unknown."""
    low, high = manifest.trained_hours
    trained = f"the model was trained {low:g} to {high:g} hours after admission to the unit"
    hours = tabular_value("hours_since_admission", features, manifest)
    if math.isnan(hours):
        absent = "tabular.admitted_at is absent or not used"
        return (f"{absent} and {trained}: whether this holds is not known",)
    if low <= hours <= high:
        return ()
    return (f"as_of is {hours:.4g} hours after admitted_at and {trained}: read with caution",)


def _age_warning(basis: Basis) -> tuple[str, ...]:
    """A warning if the age is outside that of the training patients."""
    return () if basis.outside is None else (f"{basis.outside}: no task has a prediction",)
