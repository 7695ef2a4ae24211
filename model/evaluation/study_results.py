"""The predictions that a study keeps, read back for its report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.cohorts.store import Cohort
from model.evaluation.evaluate import HEADLINE_HOURS
from model.evaluation.measure import Compared, Tested
from model.evaluation.study import EXTERNAL, FOLDS, Job


class NotYet(FileNotFoundError):
    """Predictions that the study has not made yet; says which."""


class Kept:
    """The predictions of a study, and the cohorts that they are of."""

    def __init__(
        self, folder: Path, cohort: Cohort, other: Cohort | None, masked: Cohort | None = None
    ) -> None:
        self.folder, self.cohort, self.other, self.masked = folder, cohort, other, masked
        self._compared: dict[tuple[Any, ...], Compared] = {}

    def has(self, model: str, inputs: str, *, external: bool = False, share: float = 1.0) -> bool:
        return not self._missing(model, inputs, external, share)

    def _missing(self, model: str, inputs: str, external: bool, share: float) -> list[str]:
        files = [self._file(model, inputs, place, share) for place in _places(external)]
        return [file.stem for file in files if not file.is_file()]

    def _file(self, model: str, inputs: str, fold: str, share: float) -> Path:
        return self.folder / Job(model.removesuffix("_one"), inputs, fold, share).file

    def tested(
        self,
        model: str,
        inputs: str,
        *,
        external: bool = False,
        share: float = 1.0,
        hours: float = HEADLINE_HOURS,
    ) -> Tested:
        """`model` may end in "_one": the first member of an ensemble alone. Raises NotYet."""
        if missing := self._missing(model, inputs, external, share):
            raise NotYet(", ".join(missing))
        cohort = self.other if external and self.other is not None else self.cohort
        samples, tasks = cohort.samples, cohort.tasks
        kind, mean = (
            ("one/", "one_attention") if model.endswith("_one") else ("output/", "attention")
        )
        parts, rows, fold, unusual, facts, attention = [], [], [], [], [], []
        for number, place in enumerate(_places(external)):
            with np.load(self._file(model, inputs, place, share)) as kept:
                at = samples.landmark[kept["rows"]] == hours
                parts.append(
                    {
                        name.removeprefix(kind): kept[name][at].astype(np.float64)
                        for name in kept.files
                        if name.startswith(kind)
                    }
                )
                rows.append(kept["rows"][at])
                fold.append(np.full(int(at.sum()), number))
                if "facts" in kept.files:
                    facts.append(json.loads(str(kept["facts"])))
                if mean in kept.files:
                    attention.append(kept[mean].astype(np.float64))
                if "unusual" in kept.files:
                    unusual.append(kept["unusual"][at])
        joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        binary = [t.name for t in tasks if t.kind == "binary"]
        scores = dict(zip(binary, joined.pop("binary").T, strict=True)) | joined
        row = np.concatenate(rows)
        return Tested(
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

    def compared(
        self,
        models: Sequence[str],
        inputs: str,
        fewest: int,
        *,
        external: bool = False,
        share: float = 1.0,
    ) -> Compared:
        """Models side by side at the headline's landmark, made once. Raises NotYet."""
        key = (tuple(models), inputs, fewest, external, share)
        if key not in self._compared:
            tested = {m: self.tested(m, inputs, external=external, share=share) for m in models}
            self._compared[key] = Compared(tested, fewest)
        return self._compared[key]


def _places(external: bool) -> Sequence[str]:
    return (EXTERNAL,) if external else FOLDS
