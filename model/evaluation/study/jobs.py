"""The jobs of the study: models, sets of inputs and folds."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.response import Modality

EXTERNAL = "external"
FOLDS = ("0", "1", "2", "3", "4")

MASKED = "masked"
# Modalities of each set of inputs, and whether its series include treatments. "masked": from the
# cohort with masked notes.
INPUTS: Mapping[str, tuple[tuple[Modality, ...], bool]] = {
    "measured": (("tabular", "series"), False),
    "all": (("tabular", "series", "notes"), True),
    "only_tabular": (("tabular",), True),
    "only_series": (("series",), True),
    "only_notes": (("notes",), True),
    "without_tabular": (("series", "notes"), True),
    "without_series": (("tabular", "notes"), True),
    "without_notes": (("tabular", "series"), True),
    MASKED: (("tabular", "series", "notes"), True),
}
SINGLE_MODALITY = ("only_tabular", "only_series", "only_notes")
WITHOUT_MODALITY = ("without_tabular", "without_series", "without_notes")
SHARES = (0.1, 0.25, 0.5)  # points of the learning curve, beside all patients
SINGLE_TASK = "single_task"
BASELINE_NAMES = ("logistic_regression", "lightgbm")


@dataclass(frozen=True)
class Job:
    """A model to train and test.

    `fold`: one of FOLDS, or EXTERNAL. `share`: of the patients to learn from. A job with a
    `candidate` is a trial of its settings, on hospitals held out of those to learn from.
    """

    model: str
    inputs: str
    fold: str
    share: float = 1.0
    candidate: int | None = None

    @property
    def file(self) -> str:
        share = "" if self.share == 1 else f"-{self.share:g}"
        trial = "" if self.candidate is None else f"-candidate{self.candidate}"
        return f"{self.model}-{self.inputs}{share}-{self.fold}{trial}.npz"


def every_job(*, external: bool, masked: bool) -> list[Job]:
    """All jobs of the report, the headline's first."""
    folds = (*FOLDS, EXTERNAL) if external else FOLDS
    models = ("m3h", *BASELINE_NAMES, SINGLE_TASK, "shared_trunk")
    jobs = [Job(m, i, fold) for m in models for i in ("measured", "all") for fold in folds]
    if masked:
        jobs += [Job(m, MASKED, fold) for m in ("m3h", "logistic_regression") for fold in FOLDS]
    jobs += [Job("published", i, fold) for i in ("measured", "all") for fold in FOLDS]
    jobs += [
        Job("m3h", inputs, fold)
        for inputs in (*WITHOUT_MODALITY, *SINGLE_MODALITY)
        for fold in FOLDS
    ]
    jobs += [
        Job(model, "measured", fold, share)
        for share in SHARES
        for model in ("m3h", SINGLE_TASK)
        for fold in FOLDS
    ]
    jobs += [Job(SINGLE_TASK, inputs, fold) for inputs in SINGLE_MODALITY for fold in FOLDS]
    return jobs
