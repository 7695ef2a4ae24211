"""Baselines: logistic regression and LightGBM, one model for each task, alone or in a bag.

Both get the inputs that the network's representations are made of, at 24 h or at all landmarks, as
tuned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model.evaluation.metrics import SHORTEST_DAYS, Floats, Rows
from model.representations.modalities import select_words
from model.training.data import SampleTensors
from schemas.tasks import Task

Settings = Mapping[str, Any]
Predict = Callable[[SampleTensors, Rows], dict[str, Floats]]

MIN_CASES = 3  # of a class, to fit a model
_BOOSTING: Settings = {
    "min_child_samples": 20,
    "colsample_bytree": 0.3,
    "subsample": 0.8,
    "subsample_freq": 1,
    "force_col_wise": True,  # otherwise LightGBM tries both ways at the start of each model
}


class InputColumns:
    """The input columns of the modalities in use: values, NaN where missing, and words.

    The rows to learn from determine the columns.
    """

    def __init__(self, data: SampleTensors, learn: Rows, vocabulary: int) -> None:
        self._used = data.present.any(dim=0).tolist()
        share, patients = data.token_shares(learn, vocabulary)
        words = select_words(share, patients).numpy()
        self._column = np.full(vocabulary, -1)
        self._column[words] = np.arange(len(words))
        self._words = len(words)

    def values(self, data: SampleTensors, rows: Rows) -> Floats:
        """[rows, columns], NaN where missing."""
        samples = data.samples
        parts: list[npt.NDArray[Any]] = [np.empty((len(rows), 0))]
        if self._used[0]:
            parts.append(samples.tabular[rows])
        if self._used[1]:
            parts += [
                samples.statistics[rows].reshape(len(rows), -1),
                samples.treatments[rows].reshape(len(rows), -1),
            ]
        joined: Floats = np.concatenate(parts, axis=1).astype(np.float64)
        return joined

    def words(self, data: SampleTensors, rows: Rows) -> Floats:
        """[rows, words] 1 where the notes hold the word, else 0."""
        occurs = np.zeros((len(rows), self._words))
        for i, row in enumerate(rows):
            if self._used[2] and data.present[row, 2]:
                columns = self._column[np.unique(data.tokens(row))]
                occurs[i, columns[columns >= 0]] = 1.0
        return occurs


def logistic_regression(
    inputs: InputColumns,
    data: SampleTensors,
    tasks: tuple[Task, ...],
    learn: Rows,
    settings: Settings,
) -> Predict:
    """A logistic regression for each task; ridge regression of log-days for a length of stay.

    Values are compressed by arcsinh and clipped to the range of the training patients, outside of
    which a linear model extrapolates. Missing values get the median and an indicator column.
    """
    learned = np.arcsinh(inputs.values(data, learn))
    missing = np.isnan(learned)
    lowest = np.where(missing, np.inf, learned).min(axis=0, initial=np.inf)
    highest = np.where(missing, -np.inf, learned).max(axis=0, initial=-np.inf)
    varies = missing.any(axis=0) & ~missing.all(axis=0)
    scale = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    )

    def compressed(data: SampleTensors, rows: Rows) -> Floats:
        values = np.arcsinh(inputs.values(data, rows))
        values[:, missing.all(axis=0)] = np.nan  # no training patient has these
        values = np.clip(values, lowest, highest)  # NaN stays NaN
        return np.concatenate([values, np.isnan(values)[:, varies]], axis=1)

    if missing.shape[1]:
        scale.fit(compressed(data, learn))

    def design_matrix(data: SampleTensors, rows: Rows) -> Floats:
        values = compressed(data, rows)
        scaled = scale.transform(values) if missing.shape[1] else values
        words = inputs.words(data, rows) * settings["words"]
        return np.concatenate([scaled, words], axis=1)

    x_learn = design_matrix(data, learn)

    def fit(task: Task, y: Floats, known: npt.NDArray[np.bool_]) -> Any:
        if task.kind == "regression":
            model = Ridge(1 / settings["C"])  # the same penalty as below
        else:
            model = LogisticRegression(C=settings["C"], max_iter=300)
        return model.fit(x_learn[known], y[known])

    return _fit_each_task(fit, design_matrix, data, tasks, learn)


def gradient_boosting(
    inputs: InputColumns,
    data: SampleTensors,
    tasks: tuple[Task, ...],
    learn: Rows,
    settings: Settings,
) -> Predict:
    """A LightGBM model for each task. Missing values stay missing."""
    own = {k: v for k, v in settings.items() if k not in ("every_landmark", "n_estimators")}
    parameters = {**_BOOSTING, **own, "verbose": -1, "num_threads": 1, "seed": 0}
    datasets: dict[bytes, lightgbm.Dataset] = {}

    def design_matrix(data: SampleTensors, rows: Rows) -> Floats:
        return np.concatenate([inputs.values(data, rows), inputs.words(data, rows)], axis=1)

    x_learn = design_matrix(data, learn)

    def fit(task: Task, y: Floats, known: npt.NDArray[np.bool_]) -> Any:
        # Binning the values takes longer than boosting. Tasks with the same patients share it.
        key = known.tobytes()
        if key not in datasets:
            datasets[key] = lightgbm.Dataset(
                x_learn[known], np.zeros(known.sum()), params=parameters, free_raw_data=False
            ).construct()
        classes, label = np.unique(y[known], return_inverse=True)
        objectives: Mapping[str, Settings] = {
            "regression": {"objective": "regression"},
            "binary": {"objective": "binary"},
            "multiclass": {"objective": "multiclass", "num_class": len(classes)},
        }
        datasets[key].set_label(y[known] if task.kind == "regression" else label)
        rounds = settings["n_estimators"]
        learning = {**parameters, **objectives[task.kind]}
        booster = lightgbm.train(learning, datasets[key], rounds)
        return _Boosted(booster, classes)

    return _fit_each_task(fit, design_matrix, data, tasks, learn)


@dataclass(frozen=True)
class _Boosted:
    """A LightGBM model with the methods of scikit-learn."""

    booster: lightgbm.Booster
    classes_: Floats

    def predict(self, x: Floats) -> Floats:
        return np.asarray(self.booster.predict(x))

    def predict_proba(self, x: Floats) -> Floats:
        p = self.predict(x)
        return p if p.ndim > 1 else np.stack([1 - p, p], axis=1)


def mean_predictions(
    members: Sequence[Mapping[str, Floats]], tasks: Sequence[Task]
) -> dict[str, Floats]:
    """The predictions of a bag: mean probabilities, and the geometric mean of days."""
    in_days = {task.name for task in tasks if task.kind == "regression"}
    means: dict[str, Floats] = {}
    for name in members[0]:
        values = np.stack([outputs[name] for outputs in members])
        if name in in_days:
            means[name] = np.exp(np.log(values).mean(axis=0))
        else:
            means[name] = values.mean(axis=0)
    return means


def _fit_each_task(
    fit: Callable[[Task, Floats, npt.NDArray[np.bool_]], Any],
    design_matrix: Callable[[SampleTensors, Rows], Floats],
    data: SampleTensors,
    tasks: tuple[Task, ...],
    learn: Rows,
) -> Predict:
    """Fits a model for each task; returns the function that predicts probabilities and days.

    Days are learned as their logarithm. A task with too few cases of a class predicts the observed
    share; a task without labels predicts NaN; a clustering has no model.
    """
    models: dict[str, Callable[[Floats], Floats]] = {}
    for i, task in enumerate(tasks):
        y = data.samples.outcomes[learn, i].astype(np.float64)
        known = ~np.isnan(y)
        if task.kind == "regression" and known.any():
            log_days = np.log(np.maximum(y, SHORTEST_DAYS))
            models[task.name] = _days_model(fit(task, log_days, known), log_days[known])
        elif task.kind in ("binary", "multiclass"):
            counts = np.bincount(y[known].astype(int), minlength=len(task.classes) or 2)
            share = counts / counts.sum() if known.any() else np.full(len(counts), np.nan)
            enough = (counts >= MIN_CASES).sum() > 1
            models[task.name] = _class_model(fit(task, y, known) if enough else None, share)

    def predict(data: SampleTensors, rows: Rows) -> dict[str, Floats]:
        x = design_matrix(data, rows)
        outputs = {name: model(x) for name, model in models.items()}
        binary = [outputs.pop(t.name)[:, 1] for t in tasks if t.kind == "binary"]
        return {"binary": np.stack(binary, axis=1), **outputs}

    return predict


def _days_model(model: Any, learned: Floats) -> Callable[[Floats], Floats]:
    """Predicts days, within the range of `learned` log-days: a linear model extrapolates far."""

    def predict(x: Floats) -> Floats:
        days: Floats = np.exp(np.clip(model.predict(x), learned.min(), learned.max()))[:, None]
        return days

    return predict


def _class_model(model: Any, share: Floats) -> Callable[[Floats], Floats]:
    def predict(x: Floats) -> Floats:
        p = np.tile(share, (len(x), 1))
        if model is not None:
            p = np.zeros_like(p)
            p[:, model.classes_.astype(int)] = model.predict_proba(x)
        return p

    return predict
