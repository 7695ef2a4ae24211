"""The predictions of a study, read back for the report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.cohorts.store import Cohort
from model.evaluation.bootstrap import Comparison
from model.evaluation.folds import HEADLINE_HOURS
from model.evaluation.predictions import Predictions
from model.evaluation.study.jobs import ENSEMBLES, EXTERNAL, FOLDS, Job, jobs_of
from model.training.processes.jobs import Arrays

_ONE_NETWORK = "_one"


class MissingPredictionsError(FileNotFoundError):
    """Predictions that the study has not made yet. The text names them."""


class StudyResults:
    """The predictions of a study in `folder`, and its cohorts.

    A model name that ends in "_one" means the first member of an ensemble.
    """

    def __init__(
        self, folder: Path, cohort: Cohort, external: Cohort | None, masked: Cohort | None = None
    ) -> None:
        self.folder, self.cohort, self.external, self.masked = folder, cohort, external, masked
        self._comparisons: dict[tuple[Any, ...], Comparison] = {}

    def has(self, model: str, inputs: str, *, external: bool = False, share: float = 1.0) -> bool:
        planned = self.planned(model, inputs, external=external, share=share)
        return planned and not self._missing(model, inputs, external, share)

    def planned(
        self, model: str, inputs: str, *, external: bool = False, share: float = 1.0
    ) -> bool:
        """Whether the study trains the model; a name in ENSEMBLES means all members."""
        fold = EXTERNAL if external else FOLDS[0]
        return model not in ENSEMBLES or Job(model, inputs, fold, share).is_ensemble

    def predictions(
        self,
        model: str,
        inputs: str,
        *,
        external: bool = False,
        share: float = 1.0,
        hours: float = HEADLINE_HOURS,
        subset: str | None = None,
    ) -> Predictions:
        """The predictions of all folds at a landmark. Raises MissingPredictionsError.

        `subset`: one of `subsets`; then only binary tasks have predictions.
        """
        if missing := self._missing(model, inputs, external, share):
            raise MissingPredictionsError(", ".join(missing))
        cohort = self.external if external and self.external is not None else self.cohort
        samples, tasks = cohort.samples, cohort.tasks
        one_network = model.endswith(_ONE_NETWORK)
        prefix, attention_key = (
            ("one/", "one_attention") if one_network else ("output/", "attention")
        )
        if subset is not None:
            prefix = f"subset/{subset}/"
        outputs, rows, fold, unusual, facts, attention = [], [], [], [], [], []
        for number, name in enumerate(_folds(external)):
            arrays = _read(self._files(model, inputs, name, share))
            chosen = samples.landmark[arrays["rows"]] == hours
            outputs.append(
                {
                    key.removeprefix(prefix): values[chosen].astype(np.float64)
                    for key, values in arrays.items()
                    if key.startswith(prefix)
                }
            )
            rows.append(arrays["rows"][chosen])
            fold.append(np.full(int(chosen.sum()), number))
            if "facts" in arrays:
                facts.append(json.loads(str(arrays["facts"])))
            if attention_key in arrays:
                attention.append(arrays[attention_key].astype(np.float64))
            if "unusual" in arrays:
                unusual.append(arrays["unusual"][chosen])
        joined = {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}
        binary = [t.name for t in tasks if t.kind == "binary"]
        scores = dict(zip(binary, joined.pop("binary").T, strict=True)) | joined
        row = np.concatenate(rows)
        return Predictions(
            tasks=tasks,
            scores=scores,
            outcome=samples.outcomes[row].astype(np.float64),
            fold=np.concatenate(fold),
            site=(samples.patient if external else samples.site)[row],
            rows=row,
            facts=tuple(facts),
            attention=tuple(attention),
            unusual=np.concatenate(unusual) if len(unusual) == len(rows) else None,
        )

    def subsets(self, model: str, inputs: str) -> list[str]:
        """The subsets of modalities from which an ensemble also predicted, as "tabular+notes".

        Raises MissingPredictionsError.
        """
        if missing := self._missing(model, inputs, external=False, share=1.0):
            raise MissingPredictionsError(", ".join(missing))
        names = _read(self._files(model, inputs, FOLDS[0], 1.0))
        return [name.split("/")[1] for name in names if name.startswith("subset/")]

    def comparison(
        self,
        models: Sequence[str],
        inputs: str,
        min_positives: int,
        *,
        external: bool = False,
        share: float = 1.0,
    ) -> Comparison:
        """The comparison of models at 24 h, computed once. Raises MissingPredictionsError."""
        key = (tuple(models), inputs, min_positives, external, share)
        if key not in self._comparisons:
            predictions = {
                m: self.predictions(m, inputs, external=external, share=share) for m in models
            }
            self._comparisons[key] = Comparison(predictions, min_positives)
        return self._comparisons[key]

    def _missing(self, model: str, inputs: str, external: bool, share: float) -> list[str]:
        return [
            file.stem
            for fold in _folds(external)
            for file in self._files(model, inputs, fold, share)
            if not file.is_file()
        ]

    def _files(self, model: str, inputs: str, fold: str, share: float) -> list[Path]:
        jobs = jobs_of(model.removesuffix(_ONE_NETWORK), inputs, fold, share)
        return [self.folder / job.file for job in jobs]


def _read(files: Sequence[Path]) -> Arrays:
    """The arrays of a job; of the parts of a job, each task's outputs from the part that has it."""
    joined: Arrays = {}
    for file in files:
        with np.load(file) as arrays:
            for name in arrays.files:
                values = arrays[name]
                if name in joined and name.endswith("/binary"):
                    values = np.where(np.isnan(joined[name]), values, joined[name])
                joined[name] = values
    return joined


def _folds(external: bool) -> Sequence[str]:
    return (EXTERNAL,) if external else FOLDS
