"""Boosted trees beside the network, fitted to the patients that a member learns from.

Each binary task has its own trees (LightGBM, Ke et al. 2017). They are monotone in every value with
a stated effect on the task, so that they never move in a wrong direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.knowledge.effects import expected_effects
from model.knowledge.findings import Finding
from model.network.m3h import Member
from model.network.trees import DEPTH, LEAVES, SPLITS
from model.training.data import RepresentedSamples, Rows
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec
from schemas.response import Modality
from schemas.tasks import Task

MIN_CASES = 3  # of each outcome, to fit trees
_PARAMETERS: Mapping[str, Any] = {
    "objective": "binary",
    "max_depth": DEPTH,
    "num_leaves": LEAVES,
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "max_bin": 63,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    # Chosen here, because LightGBM's own choice tries both ways at the start of each model.
    "force_col_wise": True,
    "verbose": -1,
}
# Statistics that a higher value can change in either direction, and those that only depend on when
# it was measured.
_EITHER_DIRECTION, _TIMES = ("spread", "change"), ("log_count", "hours_since_last")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TaskTrees:
    """The trees of one task and modality, as arrays of `model.network.trees.Trees`.

    `mean`: of their sum, over the patients that they were fitted to.
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    missing_goes_right: npt.NDArray[np.bool_]
    leaf: npt.NDArray[np.float32]
    mean: float


class TreeFitter:
    """Fits the trees of tasks to the samples `learn`. `encoders`: of a network with trees."""

    def __init__(
        self,
        encoders: Any,
        represented: RepresentedSamples,
        present: Tensor,
        learn: Rows,
        counts: Mapping[Modality, int],
        columns: "Columns",
    ) -> None:
        self._learn, self._columns = learn, columns
        self._counts = {m: n for m, n in counts.items() if n and m in represented.vectors}
        self._present: dict[Modality, npt.NDArray[np.bool_]] = {}
        self._values: dict[Modality, npt.NDArray[np.float32]] = {}
        self._datasets: dict[tuple[Modality, bytes], lightgbm.Dataset] = {}
        for modality in self._counts:
            has, vectors = represented.of_modality(modality, learn, present)
            self._present[modality] = has
            self._values[modality] = vectors[:, encoders[modality].width :].numpy()

    def fit(self, task: Task, outcome: Tensor, offset: Tensor) -> dict[Modality, TaskTrees]:
        """The trees of one task by modality. Those of a modality correct those of the one before.

        Empty without enough patients of each outcome.
        """
        y = outcome[self._learn].double().numpy()
        known = ~np.isnan(y)
        positives = int(y[known].sum())
        if min(positives, int(known.sum()) - positives) < MIN_CASES:
            return {}
        score = offset[self._learn].double().numpy() + np.log(positives / (known.sum() - positives))
        fitted: dict[Modality, TaskTrees] = {}
        for modality, values in self._values.items():
            present = self._present[modality]
            rows = present & known
            if not rows.any():
                continue
            data = self._dataset(modality, known[present])
            data.set_label(y[rows]).set_init_score(score[rows])
            sign, is_used = self._columns.directions(task.name, modality)
            parameters = {**_PARAMETERS, "monotone_constraints": sign, "feature_contri": is_used}
            count = self._counts[modality]
            booster = lightgbm.train(parameters, data, count)
            learned = np.asarray(booster.predict(values[known[present]], raw_score=True))
            score[rows] += learned
            fitted[modality] = _arrays(booster, count, float(learned.mean()))
        return fitted

    def _dataset(self, modality: Modality, known: npt.NDArray[np.bool_]) -> lightgbm.Dataset:
        """The values of the patients with a known outcome, for all tasks with these patients."""
        key = modality, known.tobytes()
        if key not in self._datasets:
            values = self._values[modality][known]
            data = lightgbm.Dataset(
                values, np.zeros(len(values)), params=dict(_PARAMETERS), free_raw_data=False
            )
            self._datasets[key] = data.construct()
        return self._datasets[key]


class Columns:
    """The columns of the trees' inputs: findings, and then the values of a modality.

    `names`: of the findings of each modality.
    """

    def __init__(
        self,
        findings: Mapping[str, Finding],
        names: Mapping[Modality, tuple[str, ...]],
        spec: FeatureSpec,
    ) -> None:
        self._findings, self._names, self._spec = findings, names, spec

    def directions(self, task: str, modality: Modality) -> tuple[list[int], list[float]]:
        """For each column, the sign of its effect on the task (0: any), and 1 if it is used.

        A column is not used if its variable has a stated effect and a change of the variable can
        move the column to both sides, or if both high and low values have the same effect. The
        findings of the variable remain.
        """
        own = [float(sign) for sign in np.sign(expected_effects(task, self._names[modality]))]
        if modality == "tabular":
            own += [self._sign(task, "column", name) for name in self._spec.tabular_names]
        else:
            for variable in self._spec.variables:
                sign = self._sign(task, "variable", variable.name)
                own += [_sign_of_statistic(sign, statistic) for statistic in STATISTICS]
            treatments = [treatment.name for treatment in self._spec.treatments]
            for effect in expected_effects(task, treatments):
                sign = float(np.sign(effect))
                own += [
                    np.nan if sign and feature == "hours_since_start" else sign
                    for feature in TREATMENT_FEATURES
                ]
        signs = np.array(own)
        return np.nan_to_num(signs).astype(int).tolist(), (~np.isnan(signs)).astype(float).tolist()

    def _sign(self, task: str, source: str, name: str) -> float:
        """The sign of the effect of a higher value; NaN if high and low values have the same."""
        own = {n: f for n, f in self._findings.items() if getattr(f, source) == name}
        effects = dict(zip(own, expected_effects(task, list(own)), strict=True))
        signs = {float(np.sign(e if own[n].is_high else -e)) for n, e in effects.items() if e}
        return next(iter(signs), 0.0) if len(signs) < 2 else np.nan


def _sign_of_statistic(sign: float, statistic: str) -> float:
    if statistic in _TIMES:
        return 0.0
    return np.nan if sign and statistic in _EITHER_DIRECTION else sign


def _arrays(booster: lightgbm.Booster, count: int, mean: float) -> TaskTrees:
    trees = TaskTrees(
        np.zeros((count, SPLITS), np.int32),
        np.zeros((count, SPLITS), np.float32),
        np.zeros((count, SPLITS), np.bool_),
        np.zeros((count, LEAVES), np.float32),
        mean,
    )
    for number, tree in enumerate(booster.dump_model()["tree_info"]):
        _fill(trees, number, tree["tree_structure"], 0, 0)
    return trees


def _fill(trees: TaskTrees, tree: int, node: Mapping[str, Any], position: int, level: int) -> None:
    """Copies a node and those below it. `position`: among the splits, level by level."""
    if "leaf_value" in node:
        # A leaf above the last level stands for all leaves below it.
        span = 2 ** (DEPTH - level)
        first = (position - (2**level - 1)) * span
        trees.leaf[tree, first : first + span] = node["leaf_value"]
        return
    trees.feature[tree, position] = node["split_feature"]
    trees.threshold[tree, position] = _single(node["threshold"])
    # Without missing values in training, a missing value is taken for 0.
    as_zero = node["missing_type"] != "NaN"
    trees.missing_goes_right[tree, position] = (
        node["threshold"] < 0 if as_zero else not node["default_left"]
    )
    _fill(trees, tree, node["left_child"], 2 * position + 1, level + 1)
    _fill(trees, tree, node["right_child"], 2 * position + 2, level + 1)


def _single(threshold: float) -> np.float32:
    """The threshold in single precision, rounded down: the same single values are above it."""
    limit = float(np.finfo(np.float32).max)
    single = np.float32(min(max(threshold, -limit), limit))
    # Compared in double precision: NumPy would round the threshold as well.
    return np.nextafter(single, np.float32(-np.inf)) if float(single) > threshold else single


@torch.no_grad()
def set_trees(member: Member, column: int, trees: Mapping[Modality, TaskTrees]) -> None:
    """Sets the trees of the binary task in `column`."""
    adapters: Any = member.adapters
    for modality, fitted in trees.items():
        own = adapters[modality].trees
        count = len(fitted.leaf)
        rows = slice(column * count, (column + 1) * count)
        for name in ("feature", "threshold", "missing_goes_right", "leaf"):
            getattr(own, name)[rows] = torch.from_numpy(getattr(fitted, name))
        own.mean[column] = fitted.mean
