"""The jobs of the study: models, sets of inputs and folds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from schemas.response import Modality

# Raise it if the files of jobs get another meaning, so that earlier files are not read.
VERSION = 2

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
MASKED_BASELINES = ("lightgbm", "logistic_regression")  # each a single model, as one network is
SHARES = (0.1, 0.25, 0.5)  # points of the learning curve, beside all patients
SINGLE_TASK = "single_task"
LIGHTGBM_BAG = "lightgbm_bag"
BASELINE_NAMES = ("logistic_regression", "lightgbm", LIGHTGBM_BAG)
# Models of as many members as M3H where the report compares models: with these inputs, and all
# patients to learn from. Elsewhere one network is compared with one network, and so are
# single-task networks on another database.
ENSEMBLES = ("m3h", "shared_trunk", SINGLE_TASK)
COMPARED_INPUTS = ("measured", "all")
SINGLE_TASK_PARTS = 4  # jobs of an ensemble for each task alone, so that a stop loses little


@dataclass(frozen=True)
class Job:
    """A model to train and test.

    `fold`: one of FOLDS, or EXTERNAL. `share`: of the patients to learn from. A job with a
    `candidate` is a trial of its settings, on hospitals held out of those to learn from. A job with
    a `part` trains single-task networks of a part of the tasks.
    """

    model: str
    inputs: str
    fold: str
    share: float = 1.0
    candidate: int | None = None
    part: int | None = None

    @property
    def file(self) -> str:
        share = "" if self.share == 1 else f"-{self.share:g}"
        trial = "" if self.candidate is None else f"-candidate{self.candidate}"
        part = "" if self.part is None else f"-part{self.part}"
        return f"{self.model}-{self.inputs}{share}-{self.fold}{trial}{part}.npz"

    @property
    def samples(self) -> tuple[str, str, float]:
        """The samples to learn from. Jobs with the same ones share the fits of single tasks."""
        return self.inputs, self.fold, self.share

    @property
    def is_ensemble(self) -> bool:
        """Whether the job trains all members; otherwise one network."""
        if self.model == SINGLE_TASK and self.fold == EXTERNAL:
            return False  # a quarter of an hour, for a second answer to the question
        compared = self.model in ENSEMBLES and self.inputs in COMPARED_INPUTS
        return compared and self.share == 1 and self.candidate is None


def jobs_of(model: str, inputs: str, fold: str, share: float = 1.0) -> list[Job]:
    """The job of a model, or the jobs of its parts."""
    job = Job(model, inputs, fold, share)
    if model == SINGLE_TASK and job.is_ensemble:
        return [replace(job, part=part) for part in range(SINGLE_TASK_PARTS)]
    return [job]


def headline_jobs(*, external: bool) -> list[Job]:
    """The jobs of the report's first sentences: M3H and its baselines, on all folds."""
    folds = (*FOLDS, EXTERNAL) if external else FOLDS
    return [
        Job(model, inputs, fold)
        for model in ("m3h", *BASELINE_NAMES)
        for inputs in COMPARED_INPUTS
        for fold in folds
    ]


def every_job(*, external: bool, masked: bool) -> list[Job]:
    """All jobs of the report, the headline's first."""
    folds = (*FOLDS, EXTERNAL) if external else FOLDS
    jobs = headline_jobs(external=external)
    jobs += [
        job
        for model in ("shared_trunk", SINGLE_TASK)
        for inputs in COMPARED_INPUTS
        for fold in folds
        for job in jobs_of(model, inputs, fold)
    ]
    jobs += [Job("published", i, fold) for i in COMPARED_INPUTS for fold in FOLDS]
    if masked:
        jobs += [Job(m, MASKED, fold) for m in ("m3h", *MASKED_BASELINES) for fold in FOLDS]
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
    return jobs
