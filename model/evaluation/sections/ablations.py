"""What the model is made of: its inputs, its attention, and signs that one of them fails."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.evaluation import plots
from model.evaluation.evaluate import FEWEST_POSITIVES
from model.evaluation.measure import Compared, Floats, Found, entropy, interval
from model.evaluation.sections import INPUTS, NAMES, ONE, Section
from model.evaluation.sections.markdown import certain, figure, listed, prose, table, with_interval
from model.evaluation.sections.multitask_gain import GAIN
from model.evaluation.study import ALONE, SINGLE_TASK, WITHOUT
from model.evaluation.study_results import Kept

_PARTS = {
    "all": "all inputs",
    "without_notes": "all but notes",
    "without_series": "all but series and treatments",
    "without_tabular": "all but tabular",
    "only_notes": "notes alone",
    "only_series": "series and treatments alone",
    "only_tabular": "tabular alone",
}
_FORMS = {ONE: "balanced", "published": "as published", "shared_trunk_one": "none: a shared trunk"}
NEARLY_EVEN = 0.95  # entropy of the attention, as a share of the uniform one's


def _inputs(kept: Kept) -> Found:
    tested = {"all": kept.tested(ONE, "all")}
    tested |= {inputs: kept.tested("m3h", inputs) for inputs in (*WITHOUT, *ALONE)}
    alone = {inputs: kept.tested(SINGLE_TASK, inputs) for inputs in ALONE}
    single = {inputs: f"{inputs} {SINGLE_TASK}" for inputs in ALONE}
    compared = Compared(tested | {single[i]: t for i, t in alone.items()}, FEWEST_POSITIVES)
    found: Found = {}
    for inputs in _PARTS:
        here: Found = {"auroc": interval(compared.mean[inputs])}
        if inputs != "all":
            here["against_all"] = compared.ahead(inputs, "all")
        if inputs in single:
            here[SINGLE_TASK] = interval(compared.mean[single[inputs]])
            here["gain"] = compared.ahead(inputs, single[inputs])
        found[inputs] = here
    return found


def _tell_inputs(found: Found) -> list[str]:
    rows = [
        [
            _PARTS[inputs],
            with_interval(here["auroc"]),
            with_interval(here["against_all"], "+") if "against_all" in here else "",
            with_interval(here[SINGLE_TASK]) if SINGLE_TASK in here else "",
            with_interval(here["gain"], "+") if "gain" in here else "",
        ]
        for inputs, here in found.items()
    ]
    head = ["inputs", NAMES[ONE], "against all inputs", NAMES[SINGLE_TASK]]
    return [
        "One network each, trained anew without the encoder. Single-task: a network for each task.",
        table([*head, "gain by joint learning"], rows),
    ]


def _attention(kept: Kept) -> Found:
    found: Found = {}
    for inputs in INPUTS:
        compared = kept.compared(list(_FORMS), inputs, FEWEST_POSITIVES)
        found[inputs] = {
            form: {
                "auroc": interval(compared.mean[form]),
                "against_balanced": compared.ahead(form, ONE),
                **_spread(compared.tested[form].attention),
            }
            for form in _FORMS
        }
    tested = kept.tested("m3h", "all")
    found["mean"] = np.mean(tested.attention, axis=0)
    found["tasks"] = [task.display for task in tested.tasks]
    return found


def _spread(attention: Sequence[Floats]) -> Found:
    shares = np.mean([entropy(a) for a in attention], axis=0)
    return {
        "entropy": float(shares.mean()),
        "least_entropy": float(shares.min()),
        "most_entropy": float(shares.max()),
        "itself": float(np.mean([np.diag(a).mean() for a in attention])),
    }


def _tell_attention(found: Found) -> list[str]:
    rows = [
        [
            told,
            _FORMS[form],
            with_interval(here["auroc"]),
            with_interval(here["against_balanced"], "+") if form != ONE else "",
            f"{here['entropy']:.2f} ({here['least_entropy']:.2f} to {here['most_entropy']:.2f})",
            figure(here["itself"], digits=2),
        ]
        for inputs, told in INPUTS.items()
        for form, here in found[inputs].items()
    ]
    head = ["inputs", "attention", "AUROC", "against balanced", "entropy: mean (least to most)"]
    return [
        prose(
            """One network each. Entropy of a task's attention, as a share of the uniform one's: at
            1 it averages all tasks, at 0 it reads one. It is that of the mean over patients, which
            is never less even than one patient's."""
        ),
        table([*head, "weight of the task itself"], rows),
        "![Task attention](attention.png)",
        prose(
            """Mean attention of the ensemble, all inputs; of the task itself it is left out. What a
            task reads is not what helped it to learn."""
        ),
    ]


def _draw_attention(found: Found, folder: Path) -> None:
    plots.attention(found["mean"], found["tasks"], folder / "attention.png")


def _failures(kept: Kept) -> Found:
    gain, parts, forms = GAIN.measure(kept), _inputs(kept), _attention(kept)
    return {
        "tasks": len(gain["by_task"]),
        "by_chance": gain["by_chance"],
        "losing": {gain["display"][t]: gain["by_task"][t] for t in gain["losing"]},
        "entropy": forms["all"][ONE]["entropy"],
        "most_entropy": forms["all"][ONE]["most_entropy"],
        "without": {i.removeprefix("without_"): parts[i]["against_all"] for i in WITHOUT},
    }


def _tell_failures(found: Found) -> list[str]:
    losing = [f"{name} ({with_interval(f, '+')})" for name, f in found["losing"].items()]
    without = [f"{name} {with_interval(f, '+')}" for name, f in found["without"].items()]
    idle = [name for name, f in found["without"].items() if not (certain(f) and f[0] < 0)]
    even = "which is nearly even" if found["entropy"] > NEARLY_EVEN else "which is not even"
    points = [
        f"""- **Tasks that lose by joint learning** (paired interval below zero):
        {listed(losing) if losing else "none"}. Of {found["tasks"]} tasks, chance alone would show
        about {found["by_chance"]:.0f}.""",
        f"""- **Attention that averages all tasks**: its entropy is {found["entropy"]:.2f} of the
        uniform one's, {even}; in the most even task {found["most_entropy"]:.2f}.""",
        f"""- **A modality that gives nothing**: trained without it, the AUROC changes by
        {listed(without)}. {
            "Each is certainly of use." if not idle else f"Not certainly of use: {listed(idle)}."
        }""",
    ]
    return ["\n".join(map(prose, points))]


EACH_INPUT = Section("inputs", "What each input gives", _inputs, _tell_inputs)
ATTENTION = Section("attention", "The attention", _attention, _tell_attention, _draw_attention)
FAILURES = Section("failures", "Failure signatures", _failures, _tell_failures)
