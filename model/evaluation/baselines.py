"""What a user would try instead: one model for each task, on the same inputs.

Logistic regression and LightGBM. Both see what the network's representations are made of, at 24 h
or at all landmarks, as tuned.
"""

from collections.abc import Callable, Mapping
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model.representations.modalities import select_words
from model.training.data import Rows, SampleTensors
from schemas.tasks import Task

Floats = npt.NDArray[np.float64]
Settings = Mapping[str, Any]
Predict = Callable[[SampleTensors, Rows], dict[str, Floats]]

FEWEST_CASES = 3  # of a class, to fit a model at all
SHORTEST_DAYS = 1 / 24
_BOOSTING: Settings = {
    "min_child_samples": 20,
    "colsample_bytree": 0.3,
    "subsample": 0.8,
    "subsample_freq": 1,
}


class Inputs:
    """Columns of the modalities in use: values as they are, NaN where missing; and words.

    What the columns are is decided by the rows to learn from.
    """

    def __init__(self, data: SampleTensors, learn: Rows, vocabulary: int) -> None:
        self.used = data.present.any(dim=0).tolist()
        share, patients = data.token_shares(learn, vocabulary)
        kept = select_words(share, patients).numpy()
        self._column = np.full(vocabulary, -1)
        self._column[kept] = np.arange(len(kept))
        self._count = len(kept)

    def values(self, data: SampleTensors, rows: Rows) -> Floats:
        """[rows, columns]."""
        samples = data.samples
        parts: list[npt.NDArray[Any]] = [np.empty((len(rows), 0))]
        if self.used[0]:
            parts.append(samples.tabular[rows])
        if self.used[1]:
            parts += [
                samples.statistics[rows].reshape(len(rows), -1),
                samples.treatments[rows].reshape(len(rows), -1),
            ]
        joined: Floats = np.concatenate(parts, axis=1).astype(np.float64)
        return joined

    def words(self, data: SampleTensors, rows: Rows) -> Floats:
        """[rows, words] 1 where a word is there."""
        there = np.zeros((len(rows), self._count))
        for i, row in enumerate(rows):
            if self.used[2] and data.present[row, 2]:
                columns = self._column[np.unique(data.tokens(row))]
                there[i, columns[columns >= 0]] = 1.0
        return there


def logistic_regression(
    inputs: Inputs, data: SampleTensors, tasks: tuple[Task, ...], learn: Rows, settings: Settings
) -> Predict:
    """One for each task; tails compressed, medians for what is missing, and that it is missing.

    Of a regression it is the ridge regression of log-days.
    """
    missing = np.isnan(inputs.values(data, learn))
    varies = missing.any(axis=0) & ~missing.all(axis=0)
    scale = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    )

    def compressed(data: SampleTensors, rows: Rows) -> Floats:
        values = np.arcsinh(inputs.values(data, rows))
        return np.concatenate([values, np.isnan(values)[:, varies]], axis=1)

    if missing.shape[1]:
        scale.fit(compressed(data, learn))

    def ready(data: SampleTensors, rows: Rows) -> Floats:
        values = compressed(data, rows)
        scaled = scale.transform(values) if missing.shape[1] else values
        words = inputs.words(data, rows) * settings["words"]
        return np.concatenate([scaled, words], axis=1)

    x_learn = ready(data, learn)

    def fit(task: Task, y: Floats, known: npt.NDArray[np.bool_]) -> Any:
        if task.kind == "regression":
            model = Ridge(1 / settings["C"])  # the same penalty
        else:
            model = LogisticRegression(C=settings["C"], max_iter=300)
        return model.fit(x_learn[known], y[known])

    return _each_task(fit, ready, data, tasks, learn)


def gradient_boosting(
    inputs: Inputs, data: SampleTensors, tasks: tuple[Task, ...], learn: Rows, settings: Settings
) -> Predict:
    """One LightGBM for each task; missing values as they are."""
    parameters = {k: v for k, v in settings.items() if k != "every_landmark"}

    def ready(data: SampleTensors, rows: Rows) -> Floats:
        return np.concatenate([inputs.values(data, rows), inputs.words(data, rows)], axis=1)

    x_learn = ready(data, learn)

    def fit(task: Task, y: Floats, known: npt.NDArray[np.bool_]) -> Any:
        kind = lightgbm.LGBMRegressor if task.kind == "regression" else lightgbm.LGBMClassifier
        model = kind(**_BOOSTING, **parameters, verbose=-1, n_jobs=1, random_state=0)
        return model.fit(x_learn[known], y[known])

    return _each_task(fit, ready, data, tasks, learn)


def _each_task(
    fit: Callable[[Task, Floats, npt.NDArray[np.bool_]], Any],
    ready: Callable[[SampleTensors, Rows], Floats],
    data: SampleTensors,
    tasks: tuple[Task, ...],
    learn: Rows,
) -> Predict:
    """Probabilities and days by output name; days are learned as their logarithm.

    The observed share where a class has too few cases, NaN for a task without any label. A
    clustering has no labels, and no model here.
    """
    models: dict[str, Callable[[Floats], Floats]] = {}
    for i, task in enumerate(tasks):
        y = data.samples.outcomes[learn, i].astype(np.float64)
        known = ~np.isnan(y)
        if task.kind == "regression" and known.any():
            log_days = np.log(np.maximum(y, SHORTEST_DAYS))
            models[task.name] = _days(fit(task, log_days, known), log_days[known])
        elif task.kind in ("binary", "multiclass"):
            counts = np.bincount(y[known].astype(int), minlength=len(task.classes) or 2)
            share = counts / counts.sum() if known.any() else np.full(len(counts), np.nan)
            enough = (counts >= FEWEST_CASES).sum() > 1
            models[task.name] = _classes(fit(task, y, known) if enough else None, share)

    def predict(data: SampleTensors, rows: Rows) -> dict[str, Floats]:
        x = ready(data, rows)
        found = {name: model(x) for name, model in models.items()}
        binary = [found.pop(t.name)[:, 1] for t in tasks if t.kind == "binary"]
        return {"binary": np.stack(binary, axis=1), **found}

    return predict


def _days(model: Any, seen: Floats) -> Callable[[Floats], Floats]:
    """Never beyond the stays that were `seen` (log-days): a line far outside says a million."""

    def predict(x: Floats) -> Floats:
        days: Floats = np.exp(np.clip(model.predict(x), seen.min(), seen.max()))[:, None]
        return days

    return predict


def _classes(model: Any, share: Floats) -> Callable[[Floats], Floats]:
    def predict(x: Floats) -> Floats:
        p = np.tile(share, (len(x), 1))
        if model is not None:
            p = np.zeros_like(p)
            p[:, model.classes_.astype(int)] = model.predict_proba(x)
        return p

    return predict
