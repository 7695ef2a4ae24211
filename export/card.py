"""What a bundle says of itself in words: the model card, and the notice of the data's licences."""

from typing import Any

from model.checkpoint import Facts

NOTICE, MODEL_CARD = "NOTICE", "MODEL_CARD.md"


def notice(facts: Facts) -> str:
    """The data that the model learned from, their licences, and the command that made it."""
    sources = "\n\n".join(f"{c.name}: {c.source}" for c in facts.cohorts)
    encoders = "".join(f"{m}: {found}\n\n" for m, found in facts.pretrained.items())
    if encoders:
        encoders = f"It holds these encoders of others, under their own licences.\n\n{encoders}"
    return (
        "This model was trained on the data named here. It holds no patient's record.\n\n"
        f"{sources}\n\n{encoders}Made by:\n  {facts.command}\n"
    )


def model_card(name: str, version: str, facts: Facts, evaluation: dict[str, Any]) -> str:
    """Data, tasks, results and limits, in Markdown."""
    lines = [
        f"# {name} {version}",
        "",
        _INTRODUCTION.format(tasks=len(facts.tasks)),
        "## Learned from",
        "",
        "| cohort | patients | samples | hours since admission |",
        "|---|---|---|---|",
    ]
    for c in facts.cohorts:
        hours = ", ".join(f"{h:g}" for h in c.landmarks_hours) or "none"
        lines.append(f"| {c.name} | {c.patients} | {c.samples} | {hours} |")
    lines += [
        "",
        f"`{facts.command}`",
        "",
        "## Tasks",
        "",
        _AUROC_MEANS if evaluation else "AUROC: not measured.",
        "",
        "| task | department | labelled patients | with it | prevalence | seen by | AUROC |",
        "|---|---|---|---|---|---|---|",
    ]
    scores = {s["task"]: s for s in evaluation.get("M3H", [])}
    for task in facts.tasks:
        positives = facts.positives.get(task.name)
        prevalence = facts.prevalence.get(task.name)
        lines.append(
            f"| {task.display} | {task.department} | {max(facts.labels[task.name].values())} "
            f"| {'' if positives is None else positives} "
            f"| {'' if prevalence is None else f'{prevalence:.3f}'} "
            f"| {', '.join(facts.seen(task))} | {_area(scores.get(task.name))} |"
        )
    first, last = facts.trained_hours
    return "\n".join(lines) + _LIMITS.format(first=first, last=last)


def _area(score: dict[str, Any] | None) -> str:
    if score is None or "auroc" not in score["metrics"]:
        return ""
    few = score["positives"] is not None and score["positives"] < 20
    return "" if few else f"{score['metrics']['auroc']:.3f}"


_INTRODUCTION = """\
An M3H model: {tasks} medical tasks at once from tabular data, vital signs and laboratory values,
notes and chest X-rays, any of which may be absent.

**For research. Not a medical device; not validated for any clinical use.** A disease's probability
means "coded at any time in this stay": the model recognises what is or will be charted, and is no
proof of the disease, nor of its absence.
"""

_AUROC_MEANS = """\
AUROC: five folds by hospital, at 24 h, from vital signs, laboratory values and demographics alone;
within-fold, weighted by positives. Left out below 20 positives."""

_LIMITS = """

## Limits

- No open data join chest X-rays and notes to the same patients: how the model does with both at
  once was never measured.
- Labels are charting and billing codes: the absence of a code is not the absence of the disease.
- An X-ray moves only the tasks that had labels beside X-rays; the receipt of each answer names the
  others.
- Trained at {first:g} to {last:g} hours since admission to the unit; the receipt warns outside.
"""
