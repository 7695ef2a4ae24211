"""The report: from kept predictions to docs/results.md, docs/results.json and plots."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.cohorts.store import Cohort
from model.evaluation.sections import (
    ablations,
    calibration,
    external_validation,
    models,
    multitask_gain,
    patients,
    phenotyping,
    recognition,
    task_relations,
)
from model.evaluation.sections.markdown import certain, listed, prose, with_interval
from model.evaluation.study import SINGLE_TASK
from model.evaluation.study_results import Kept, NotYet

SECTIONS = (
    models.MEASURED,
    models.ALL,
    models.MEASURED_EXTERNAL,
    models.ALL_EXTERNAL,
    external_validation.CAUSES,
    external_validation.RECALIBRATION,
    calibration.ACTING,
    calibration.ROC,
    recognition.CHARTED_LATER,
    recognition.MASKED_NOTES,
    multitask_gain.GAIN,
    multitask_gain.LEARNING_CURVE,
    patients.LANDMARKS,
    patients.BY_GROUP,
    phenotyping.PHENOTYPING,
    ablations.EACH_INPUT,
    ablations.ATTENTION,
    task_relations.KNOWN_RELATIONS,
    ablations.FAILURES,
)


def write(
    work: Path, cohort: Cohort, other: Cohort | None, folder: Path, masked: Cohort | None = None
) -> None:
    """Writes results.md, results.json and the plots to `folder`, of whatever the study holds.

    A section whose predictions are not all there is left out, and named at the end.
    """
    kept = Kept(work, cohort, other, masked)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    blocks, absent = [], []
    for section in SECTIONS:
        try:
            found = plain(section.measure(kept))
        except NotYet as missing:
            absent.append(prose(f"- {section.title}: {missing}"))
            continue
        results[section.name] = found
        blocks += [f"## {section.title}", *section.tell(found)]
        if section.draw is not None:
            section.draw(found, folder)
    if absent:
        blocks += ["## Not in this report", "Not made yet, or not given:", "\n".join(absent)]
    text = "\n\n".join([*_HEAD, _answer(results), prose(_HOW), *blocks])
    (folder / "results.md").write_text(text + "\n", encoding="utf-8")
    (folder / "results.json").write_text(_json(results), encoding="utf-8")


def plain(found: Any) -> Any:
    """As JSON holds it, to four decimals; what is no number is None."""
    if isinstance(found, Mapping):
        return {str(key): plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple | np.ndarray):
        return [plain(value) for value in found]
    if isinstance(found, float | np.floating):
        return round(float(found), 4) if np.isfinite(found) else None
    return found.item() if isinstance(found, np.generic) else found


def _json(results: Mapping[str, Any]) -> str:
    """With lists of numbers on one line."""
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    return re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)


def _answer(results: Mapping[str, Any]) -> str:
    """Three sentences: how good, better than what, and elsewhere."""
    there = {name: results[name]["models"] for name in _FROM if name in results}
    if not there:
        return "The study has not yet tested M3H on all folds: there is no answer."
    reached = [_reached(models, name) for name, models in there.items()]
    compared = [
        f"from {_FROM[name]} it is {listed(told)}"
        for name, models in there.items()
        if (told := [_stands(models[m], said) for m, said in _OTHERS.items() if m in models])
    ]
    sentences = [
        f"On hospitals never seen, M3H ranks patients with a mean AUROC of {listed(reached)}."
    ]
    if compared:
        joined = "; ".join(compared)
        sentences.append(f"{joined[0].upper()}{joined[1:]}.")
    outside = [
        _reached(results[f"{name}_external"]["models"], name)
        for name in _FROM
        if f"{name}_external" in results
    ]
    if outside:
        recalibrated = ""
        if "recalibration" in results:
            found = results["recalibration"]
            before, after = (found[when]["calibration_error"][0] for when in ("before", "after"))
            recalibrated = (
                f"; its probabilities there are to be used only after a local correction, which "
                f"with {found['patients']} patients brings the calibration error from {before:.3f} "
                f"to {after:.3f} (chance alone: {found['after']['noise_floor'][0]:.3f})"
            )
        sentences.append(f"On MIMIC-IV, learned from eICU alone, {listed(outside)}{recalibrated}.")
    return prose(" ".join(sentences))


def _reached(models: Mapping[str, Any], inputs: str) -> str:
    return f"{with_interval(models['m3h']['auroc'])} from {_FROM[inputs]}"


def _stands(other: Mapping[str, Sequence[float]], name: str) -> str:
    figures = other["m3h_ahead_by"]
    where = ("ahead of" if figures[0] > 0 else "behind") if certain(figures) else "not told from"
    return f"{where} {name} ({with_interval(figures, '+')})"


_FROM = {"measured": "vital signs, laboratory values and demographics", "all": "all inputs"}
_OTHERS = {
    SINGLE_TASK: "the same network trained for each task alone",
    "lightgbm": "LightGBM",
    "logistic_regression": "logistic regression",
}
_HEAD = ("# Results", "Made by `make results`; every figure here is in `results.json`.")
_HOW = """
**How to read it.** eICU demo, five folds by hospital (no hospital and no patient on both sides),
24 h after admission to the unit unless said otherwise. How each model is trained was chosen within
the hospitals to learn from. AUROC: the mean over tasks of the mean of within-fold AUROCs, weighted
by positives. AUPRC and Brier score: means over the binary tasks, the probabilities of all folds
together. In brackets: 95 % intervals of 1,000 bootstraps over hospitals within folds (on MIMIC-IV
over patients), paired where models are compared. They say how sure a figure is for other hospitals
like these, not for ones that chart otherwise; a network's seed is not in them, and nothing was
corrected for looking at many figures. A label is a charted code: its absence is not health.
"""
