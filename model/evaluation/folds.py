"""Cross-validation folds by hospital."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold

from model.cohorts.store import Cohort, CohortError
from model.evaluation.metrics import Rows

HEADLINE_HOURS = 24.0  # the landmark of the report's main figures


@dataclass(frozen=True)
class Fold:
    """One fold: the rows to learn from (all landmarks) and the rows to test on (24 h)."""

    number: int
    learn: Rows
    test: Rows


def hospital_folds(cohort: Cohort, count: int = 5) -> Iterator[Fold]:
    """Folds by hospital over the 24 h samples.

    No patient of the test hospitals, at whatever landmark, is learned from.
    """
    samples, rows = cohort.samples, rows_at(cohort, HEADLINE_HOURS)
    sites = samples.site[rows]
    split = GroupKFold(count, shuffle=True, random_state=0)
    for number, (_, test) in enumerate(split.split(rows, groups=sites)):
        tested = np.isin(samples.site, np.unique(sites[test]))
        # Also of a patient who is tested at another landmark only.
        excluded = np.isin(samples.patient, np.unique(samples.patient[tested])) | tested
        yield Fold(number, np.flatnonzero(~excluded), rows[test])


def rows_at(cohort: Cohort, hours: float | None) -> Rows:
    """The rows of the samples at a landmark (None: all). Raises CohortError without any."""
    landmark = cohort.samples.landmark
    rows = np.flatnonzero(landmark == hours) if hours is not None else np.arange(len(landmark))
    if not len(rows):
        raise CohortError(f"the cohort {cohort.name} has no sample at {hours:g} h")
    return rows
