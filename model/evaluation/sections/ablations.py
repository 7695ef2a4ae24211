"""Ablations: the contribution of each input, the attention, and signs that a part fails."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.evaluation import plots
from model.evaluation.bootstrap import Comparison, interval
from model.evaluation.metrics import MIN_POSITIVES, Floats, attention_entropy
from model.evaluation.sections import (
    INPUT_NAMES,
    MODEL_NAMES,
    ONE_NETWORK,
    SHARED_TRUNK_ONE,
    Figures,
    Section,
)
from model.evaluation.sections.markdown import (
    decimal,
    excludes_zero,
    join_words,
    paragraph,
    table,
    with_interval,
)
from model.evaluation.sections.multitask_gain import gain_figures
from model.evaluation.study.jobs import SINGLE_MODALITY, WITHOUT_MODALITY
from model.evaluation.study.results import StudyResults

_ABLATIONS = {
    "all": "all inputs",
    "without_notes": "all but notes",
    "without_series": "all but series and treatments",
    "without_tabular": "all but tabular",
    "only_notes": "notes alone",
    "only_series": "series and treatments alone",
    "only_tabular": "tabular alone",
}
_ATTENTION_FORMS = {
    ONE_NETWORK: "balanced",
    "published": "as published",
    SHARED_TRUNK_ONE: "none: a shared trunk",
}
# Attention with a higher entropy (as a share of that of uniform attention) is nearly uniform.
NEARLY_UNIFORM = 0.95


def _inputs(study: StudyResults) -> Figures:
    predictions = {"all": study.predictions(ONE_NETWORK, "all")}
    for inputs in (*WITHOUT_MODALITY, *SINGLE_MODALITY):
        predictions[inputs] = study.predictions(ONE_NETWORK, inputs)
    comparison = Comparison(predictions, MIN_POSITIVES)
    figures: Figures = {}
    for inputs in _ABLATIONS:
        of_inputs: Figures = {"auroc": interval(comparison.mean[inputs])}
        if inputs != "all":
            of_inputs["against_all"] = comparison.difference(inputs, "all")
        figures[inputs] = of_inputs
    return figures


def _render_inputs(figures: Figures) -> list[str]:
    rows = [
        [
            _ABLATIONS[inputs],
            with_interval(aurocs["auroc"]),
            with_interval(aurocs["against_all"], "+") if "against_all" in aurocs else "",
        ]
        for inputs, aurocs in figures.items()
    ]
    return [
        paragraph("One network each, trained with only these encoders on the same hospitals."),
        table(["inputs", MODEL_NAMES[ONE_NETWORK], "difference from all inputs"], rows),
    ]


def _attention(study: StudyResults) -> Figures:
    figures: Figures = {}
    for inputs in INPUT_NAMES:
        comparison = study.comparison(list(_ATTENTION_FORMS), inputs, MIN_POSITIVES)
        figures[inputs] = {
            form: {
                "auroc": interval(comparison.mean[form]),
                "against_balanced": comparison.difference(form, ONE_NETWORK),
                **_entropy_figures(comparison.predictions[form].attention),
            }
            for form in _ATTENTION_FORMS
        }
    predictions = study.predictions("m3h", "all")
    figures["mean"] = np.mean(predictions.attention, axis=0)
    figures["tasks"] = [task.display for task in predictions.tasks]
    return figures


def _entropy_figures(attention: Sequence[Floats]) -> Figures:
    """The entropy over tasks, mean over folds, and the weight of a task on itself."""
    shares = np.mean([attention_entropy(a) for a in attention], axis=0)
    return {
        "entropy": float(shares.mean()),
        "least_entropy": float(shares.min()),
        "most_entropy": float(shares.max()),
        "itself": float(np.mean([np.diag(a).mean() for a in attention])),
    }


def _render_attention(figures: Figures) -> list[str]:
    rows = [
        [
            input_name,
            _ATTENTION_FORMS[form],
            with_interval(f["auroc"]),
            with_interval(f["against_balanced"], "+") if form != ONE_NETWORK else "",
            f"{f['entropy']:.2f} ({f['least_entropy']:.2f} to {f['most_entropy']:.2f})",
            decimal(f["itself"], digits=2),
        ]
        for inputs, input_name in INPUT_NAMES.items()
        for form, f in figures[inputs].items()
    ]
    head = [
        *("inputs", "attention", "AUROC", "difference from balanced"),
        *("entropy: mean (minimum to maximum)", "weight of the task itself"),
    ]
    return [
        paragraph(
            """One network each. The entropy of a task's attention is a share of that of uniform
            attention: at 1 the task averages all tasks, at 0 it attends to one. It is computed from
            the mean attention over patients, which is at least as uniform as that of one
            patient."""
        ),
        table(head, rows),
        paragraph(
            " ".join(_cost_of_attention(name, figures[i]) for i, name in INPUT_NAMES.items())
        ),
        "![Task attention](attention.png)",
        paragraph(
            """Mean attention of the ensemble with all inputs, without the weight of each task on
            itself. Attention does not show which tasks help a task to learn."""
        ),
    ]


def _cost_of_attention(input_name: str, forms: Figures) -> str:
    """A sentence: whether balanced attention gains or costs AUROC, compared with none."""
    difference = forms[SHARED_TRUNK_ONE]["against_balanced"]
    figure = with_interval(difference, "+")
    if not excludes_zero(difference):
        return f"With {input_name}, a shared trunk without attention is level ({figure})."
    if difference[0] > 0:
        return f"With {input_name}, attention costs AUROC: the shared trunk is ahead by {figure}."
    return f"With {input_name}, attention gains AUROC: the shared trunk is behind ({figure})."


def _plot_attention(figures: Figures, folder: Path) -> None:
    plots.attention(figures["mean"], figures["tasks"], folder / "attention.png")


def _failures(study: StudyResults) -> Figures:
    gain, inputs, attention = gain_figures(study), _inputs(study), _attention(study)
    return {
        "tasks": len(gain["by_task"]),
        "by_chance": gain["by_chance"],
        "losing": {gain["display"][t]: gain["by_task"][t] for t in gain["losing"]},
        "entropy": attention["all"][ONE_NETWORK]["entropy"],
        "most_entropy": attention["all"][ONE_NETWORK]["most_entropy"],
        "without": {
            name.removeprefix("without_"): inputs[name]["against_all"] for name in WITHOUT_MODALITY
        },
    }


def _render_failures(figures: Figures) -> list[str]:
    losing = [f"{name} ({with_interval(f, '+')})" for name, f in figures["losing"].items()]
    without = [f"{name} {with_interval(f, '+')}" for name, f in figures["without"].items()]
    unused = [name for name, f in figures["without"].items() if not (excludes_zero(f) and f[0] < 0)]
    uniform = "nearly uniform" if figures["entropy"] > NEARLY_UNIFORM else "not uniform"
    contribution = (
        f"No clear contribution: {join_words(unused)}."
        if unused
        else "Each modality clearly contributes."
    )
    points = [
        f"""- **Tasks that lose by multitask learning** (paired interval below zero):
        {join_words(losing) if losing else "none"}. By chance alone, about
        {figures["by_chance"]:.0f} of {figures["tasks"]} tasks would show this.""",
        f"""- **Attention that averages all tasks**: the entropy is {figures["entropy"]:.2f} of that
        of uniform attention, which is {uniform}; the maximum over tasks is
        {figures["most_entropy"]:.2f}.""",
        f"""- **A modality without a contribution**: training without it changes the AUROC by
        {join_words(without)}. {contribution}""",
    ]
    return ["\n".join(map(paragraph, points))]


EACH_INPUT = Section("inputs", "Contribution of each input", _inputs, _render_inputs)
ATTENTION = Section("attention", "Attention", _attention, _render_attention, _plot_attention)
FAILURES = Section("failures", "Failure signatures", _failures, _render_failures)
