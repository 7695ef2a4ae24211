"""The report: writes results.md, results.json and plots from the predictions of a study."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.cohorts.store import Cohort
from model.evaluation.sections import (
    ablations,
    alerts,
    calibration,
    external_validation,
    images,
    models,
    multitask_gain,
    patients,
    phenotyping,
    recognition,
    task_relations,
)
from model.evaluation.sections.markdown import (
    excludes_zero,
    join_words,
    paragraph,
    with_interval,
)
from model.evaluation.study.jobs import LIGHTGBM_BAG, SINGLE_TASK
from model.evaluation.study.results import MissingPredictionsError, StudyResults

SECTIONS = (
    recognition.CHARTED_LATER,
    models.MEASURED,
    models.ALL,
    models.MEASURED_EXTERNAL,
    models.ALL_EXTERNAL,
    external_validation.CAUSES,
    external_validation.RECALIBRATION,
    calibration.CALIBRATION,
    calibration.ROC,
    alerts.ALERTS,
    recognition.MASKED_NOTES,
    multitask_gain.GAIN,
    multitask_gain.LEARNING_CURVE,
    patients.LANDMARKS,
    patients.BY_GROUP,
    phenotyping.PHENOTYPING,
    images.IMAGES,
    ablations.EACH_INPUT,
    ablations.ATTENTION,
    task_relations.KNOWN_RELATIONS,
    ablations.FAILURES,
)


def write_report(
    work: Path, cohort: Cohort, external: Cohort | None, folder: Path, masked: Cohort | None = None
) -> None:
    """Writes results.md, results.json and the plots of the study in `work` to `folder`.

    A section without all its predictions is left out and listed at the end.
    """
    study = StudyResults(work, cohort, external, masked)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    missing = {}
    for section in SECTIONS:
        try:
            figures = as_json(section.measure(study))
        except MissingPredictionsError as error:
            missing[section.title] = str(error)
            continue
        results[section.name] = figures
        if section.plot is not None:
            section.plot(figures, folder)
    (folder / "results.md").write_text(render(results, missing), encoding="utf-8")
    (folder / "results.json").write_text(_dump(results), encoding="utf-8")


def render(results: Mapping[str, Any], missing: Mapping[str, str]) -> str:
    """The report in Markdown. `missing`: the missing predictions by the title of their section."""
    blocks = []
    for section in SECTIONS:
        if section.name in results:
            blocks += [f"## {section.title}", *section.render(results[section.name])]
    if missing:
        items = [paragraph(f"- {title}: {names}") for title, names in missing.items()]
        blocks += ["## Not in this report", "Not yet run, or not given:", "\n".join(items)]
    return "\n\n".join([*_HEAD, _summary(results), paragraph(_EXPLANATION), *blocks]) + "\n"


def as_json(figures: Any) -> Any:
    """Figures as JSON holds them: floats with four decimals, NaN and infinity as None."""
    if isinstance(figures, Mapping):
        return {str(key): as_json(value) for key, value in figures.items()}
    if isinstance(figures, list | tuple | np.ndarray):
        return [as_json(value) for value in figures]
    if isinstance(figures, float | np.floating):
        return round(float(figures), 4) if np.isfinite(figures) else None
    return figures.item() if isinstance(figures, np.generic) else figures


def _dump(results: Mapping[str, Any]) -> str:
    """JSON text with lists of numbers on one line."""
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    return re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)


def _summary(results: Mapping[str, Any]) -> str:
    """The report in a few sentences: AUROC, comparison with other models, another database."""
    models = {name: results[name]["models"] for name in _INPUTS if name in results}
    if not models:
        return "The study has not yet tested M3H on all folds."
    sentences = []
    if later := results.get("charted_later"):
        sentences += _first_endpoint(later)
    aurocs = [_auroc(of_inputs, name) for name, of_inputs in models.items()]
    sentences.append(
        "On unseen hospitals, with diseases coded at any time in the stay and hospital outcomes, "
        f"M3H ranks patients with a mean AUROC of {join_words(aurocs)}."
    )
    for name, of_inputs in models.items():
        sentences += _comparisons(of_inputs, f"With {_INPUTS[name]}")
        if gain := results[name].get("gain_of_one_network"):
            sentences.append(
                "One network for all tasks, compared with one network for each task alone: "
                f"{with_interval(gain, '+')}."
            )
    external = [
        _auroc(results[f"{name}_external"]["models"], name)
        for name in _INPUTS
        if f"{name}_external" in results
    ]
    if external:
        sentences.append(f"On MIMIC-IV, trained on eICU only, it has {join_words(external)}.")
        if "recalibration" in results:
            sentences.append(_recalibration(results["recalibration"]))
    return paragraph(" ".join(sentences))


def _first_endpoint(later: Mapping[str, Any]) -> list[str]:
    """Diseases first charted after the prediction: AUROC, and comparison with all inputs."""
    aurocs = [
        f"{with_interval(later[inputs]['models']['m3h']['charted_later'])} with {name}"
        for inputs, name in _INPUTS.items()
        if inputs in later
    ]
    first = (
        "Diseases that were first charted after the prediction, on unseen hospitals: M3H ranks "
        f"patients with a mean AUROC of {join_words(aurocs)}."
    )
    compared = (
        _comparisons(later["all"]["models"], "Here, with all inputs") if "all" in later else []
    )
    return [first, *compared]


def _comparisons(models: Mapping[str, Any], start: str) -> list[str]:
    """A sentence that compares M3H with the other models; empty without them."""
    compared = [_comparison(models[m], name) for m, name in _OTHER_MODELS.items() if m in models]
    return [f"{start}, it is {join_words(compared)}."] if compared else []


def _auroc(models: Mapping[str, Any], inputs: str) -> str:
    return f"{with_interval(models['m3h']['auroc'])} with {_INPUTS[inputs]}"


def _comparison(other: Mapping[str, Sequence[float]], name: str) -> str:
    difference = other["m3h_ahead_by"]
    if excludes_zero(difference):
        relation = "ahead of" if difference[0] > 0 else "behind"
    else:
        relation = "not clearly different from"
    return f"{relation} {name} ({with_interval(difference, '+')})"


def _recalibration(figures: Mapping[str, Any]) -> str:
    before, after = (figures[when]["calibration_error"][0] for when in ("before", "after"))
    floor = figures["after"]["noise_floor"][0]
    return (
        "Its probabilities there need a local correction before use; with "
        f"{figures['patients']} patients, the correction reduces the calibration error from "
        f"{before:.3f} to {after:.3f} (noise floor: {floor:.3f})."
    )


_INPUTS = {"measured": "vital signs, laboratory values and demographics", "all": "all inputs"}
_OTHER_MODELS = {  # each an ensemble of as many members as M3H, but the logistic regression
    "shared_trunk": "the same network without attention between tasks (a shared trunk)",
    SINGLE_TASK: "the same network trained for each task alone",
    LIGHTGBM_BAG: "bagged LightGBM",
    "logistic_regression": "logistic regression",
}
_HEAD = ("# Results", "Made by `make results`; every figure here is in `results.json`.")
_EXPLANATION = """
**How to read it.** Unless stated otherwise: eICU demo, five folds by hospital (no hospital and no
patient is on both sides), 24 h after admission to the unit. The training settings of each model
were tuned within the hospitals to learn from; the protocol in `docs/evaluation.md` names the
choices that were not. Ensembles are compared with ensembles of as many members, one network with
one network, and their members learn from the same hospitals. AUROC: the mean over tasks of the mean
of within-fold AUROCs, weighted by positives. AUPRC and Brier score: means over the binary tasks,
with the probabilities of all folds together. In brackets: 95 % intervals of 1,000 bootstraps over
hospitals within folds (on MIMIC-IV over patients), paired for comparisons of models. They show the
uncertainty for other hospitals like these, not for hospitals that chart differently. They leave out
a network's seed and are not corrected for multiple comparisons. A label is a charted code: its
absence does not mean health.
"""
