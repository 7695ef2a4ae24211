"""What a bundle says of itself in words: the model card, and the notice of the data's licences.

The card has the headings of model cards (Mitchell et al. 2019). It is made of the manifest alone,
and its figures are those of the report (`docs/results.json` of `m3h-model evaluate`), which the
manifest keeps; what the report has not is said to be not measured.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.manifest import Change, Manifest, Recalibration, Reduction, TaskFacts
from schemas.tim import Agreement, Tim
from service.prediction.phenotypes import describe_phenotypes

if TYPE_CHECKING:  # it imports torch, which a card does without
    from model.network.checkpoint import Facts

Found = Mapping[str, Any]

NOT_MEASURED = "not measured"
TOLD_TASKS, TOLD_CELLS, TOLD_CHANGES = 3, 10, 5
# Of the report's sections those that a card tells; a file with none of them is no report.
SECTIONS = (
    "measured",
    "all",
    "measured_external",
    "all_external",
    "acting",
    "groups",
    "landmarks",
    "charted_later",
    "masked",
    "recalibration",
)
_INPUTS = {
    "measured": "vital signs, laboratory values, demographics",
    "all": "also treatments and notes",
}
_OTHERS = {
    "single_task": "same network, each task alone",
    "lightgbm": "LightGBM",
    "logistic_regression": "logistic regression",
}


def notice(facts: "Facts") -> str:
    """The data that the model learned from, their licences, and the command that made it."""
    sources = "\n\n".join(f"{c.name}: {c.source}" for c in facts.cohorts)
    encoders = "".join(f"{m}: {found}\n\n" for m, found in facts.pretrained.items())
    if encoders:
        encoders = f"It holds these encoders of others, under their own licences.\n\n{encoders}"
    return (
        "This model was trained on the data named here. It holds no patient's record.\n\n"
        f"{sources}\n\n{encoders}Made by:\n  {facts.command}\n"
    )


def model_card(manifest: Manifest, tim: Tim | None = None) -> str:
    """The model card, in Markdown. `tim`: which task teaches which, if the bundle has it."""
    parts = {
        "Model details": _details(manifest),
        "Intended use": _INTENDED_USE.format(**_words(manifest)),
        "Factors": _FACTORS,
        "Metrics": _METRICS,
        "Evaluation data": _evaluation_data(manifest),
        "Training data": _training_data(manifest),
        "Quantitative analyses": _quantitative(manifest),
        "Phenotypes": _phenotypes(manifest),
        "Which task teaches which": _teaching(tim, manifest),
        "Ethical considerations": _ETHICS.format(**_words(manifest)),
        "Caveats and recommendations": _caveats(manifest),
    }
    text = "\n\n".join(f"## {title}\n\n{part.strip()}" for title, part in parts.items())
    return f"# {manifest.name} {manifest.version}\n\n{_WARNING.strip()}\n\n{text}\n"


# ---- what it is ----------------------------------------------------------------------------------


def _words(manifest: Manifest) -> dict[str, Any]:
    first, last = manifest.trained_hours
    return {
        "first": f"{first:g}",
        "last": f"{last:g}",
        "inputs": _listed([name.partition("=")[0] for name in manifest.spec.tabular_names]),
    }


def _details(manifest: Manifest) -> str:
    kinds = [f.task.kind for f in manifest.tasks]
    diseases = sum(f.task.is_disease for f in manifest.tasks)
    made = ""
    if manifest.network:
        made = " {members} networks, {width} wide, attention {attention}, their answers averaged;"
        made = made.format(**manifest.network)
    phenotypes = kinds.count("clustering")
    text = _DETAILS.format(
        made=made,
        tasks=len(kinds),
        diseases=diseases,
        operations=len(kinds) - diseases - phenotypes,
        phenotypes=phenotypes,
        created=manifest.created,
        command=manifest.command,
    )
    if manifest.recalibration is not None:
        text += f"\n{_corrected(manifest.recalibration, manifest)}"
    if manifest.reduction is not None:
        text += f"\n{_reduced(manifest.reduction, manifest)}"
    return text


def _corrected(said: Recalibration, manifest: Manifest) -> str:
    display = {f.task.name: f.task.display for f in manifest.tasks}
    largest = sorted(said.shift.items(), key=lambda item: -abs(item[1]))[:10]
    moves = _table(["task", "moved by"], [[display[t], f"{by:+.2f}"] for t, by in largest])
    lines = [_CORRECTED.format(**said.model_dump(exclude={"shift", "classes", "ends"})), *moves]
    for task, classes in said.classes.items():
        moved = _listed([f"{name} {by:+.2f}" for name, by in classes.items()])
        lines += ["", f"{display[task]}: {moved}, in log-odds against each other."]
    for task, (low, high) in said.ends.items():
        ends = f"by {low:+.2f} and {high:+.2f} in log-days"
        lines += ["", f"{display[task]}: the ends of the interval were moved outwards {ends}."]
    return "\n".join(lines)


def _reduced(said: Reduction, manifest: Manifest) -> str:
    """What became of each graph, and the tasks that lose most."""
    display = {f.task.name: f.task.display for f in manifest.tasks}
    graphs = [
        [
            name,
            graph.precision,
            ", ".join(f"{share:.2f} of {n}" for n, share in graph.time.items()) or NOT_MEASURED,
            graph.reason or "",
        ]
        for name, graph in said.graphs.items()
    ]
    head = ["graph", "precision", "share of the time before, by requests at once", "why not"]
    patients = [f"{one.patients} patients of {one.cohort} ({one.source})" for one in said.held_out]
    text = _REDUCED.format(
        precision=said.precision,
        bundle=said.bundle,
        patients=_listed(patients),
        moved=f"{said.largest_difference:.4f}",
    )
    most = sorted(said.tasks.items(), key=lambda item: -_share(item[1], said))[:TOLD_CHANGES]
    rows = [
        [display[name], c.metric, f"{c.before:.4f}", f"{c.after:.4f}", f"{said.limits[c.metric]:g}"]
        for name, c in most
    ]
    changes = _table(["task", "metric", "before", "after", "may lose"], rows)
    return "\n".join(
        [text, *_table(head, graphs), "", "What loses most of what it may:", "", *changes]
    )


def _share(change: Change, said: Reduction) -> float:
    """Of what it may lose, how much a task does; those with too few patients to tell come last."""
    return change.loss / said.limits[change.metric] if change.judged else -math.inf


def _training_data(manifest: Manifest) -> str:
    rows = [
        [
            c.name,
            c.patients,
            c.samples,
            ", ".join(f"{h:g}" for h in c.landmarks_hours) or "none",
            c.source,
        ]
        for c in manifest.cohorts
    ]
    head = ["cohort", "patients", "samples", "hours since admission", "source"]
    local = manifest.recalibration
    served = manifest.cohorts[0].name if local is None else local.cohort
    return "\n".join([*_table(head, rows), "", _LABELS.format(served=served)])


def _phenotypes(manifest: Manifest) -> str:
    words = describe_phenotypes(manifest)
    if not words:
        return "None were described."
    lines = ["Groups alike in vital signs and laboratory values, found without labels.", ""]
    return "\n".join(lines + [f"- {number}: {text}" for number, text in words.items()])


def _teaching(tim: Tim | None, manifest: Manifest) -> str:
    """The cells that are certain, and the tasks that learning together helps or harms most."""
    if tim is None:
        return "Not measured."
    display = {f.task.name: f.task.display for f in manifest.tasks}
    cells = [
        (value, tim.lower[i][j], tim.upper[i][j], display[source], display[task], tim.metric[i])
        for i, source in enumerate(tim.sources)
        for j, task in enumerate(tim.tasks)
        if (value := tim.matrix[i][j]) is not None and tim.certain[i][j]
    ]
    cells.sort(key=lambda cell: -abs(cell[0]))
    pairs = sum(value is not None for row in tim.matrix for value in row)
    text = _TEACHING.format(
        coalitions=tim.coalitions, patients=tim.patients, certain=len(cells), pairs=pairs
    )
    every = zip(tim.multitask_gain, tim.gain_lower, tim.gain_upper, tim.sources, strict=True)
    gains = sorted(found for found in every if found[0] is not None)
    said = [
        f"{display[task]} {gain:+.3f} [{low:+.3f}, {high:+.3f}]"
        for gain, low, high, task in (*gains[: -TOLD_TASKS - 1 : -1], *gains[:TOLD_TASKS])
    ]
    lines = [text, "", f"What learning all together brings, most and least: {_listed(said)}."]
    if tim.halves is not None:
        lines += ["", _HALVES.format(agreement=_agreement(tim.halves))]
    if tim.attention_agreement is not None:
        lines += ["", _READ.format(agreement=_agreement(tim.attention_agreement))]
    if cells:
        rows = [
            [source, task, f"{value:+.4f} [{low:+.4f}, {high:+.4f}]", metric]
            for value, low, high, source, task, metric in cells[:TOLD_CELLS]
        ]
        head = ["is helped (+) or harmed (-)", "by learning", "by", "in"]
        lines += ["", *_table(head, rows)]
    return "\n".join(lines)


def _agreement(found: Agreement) -> str:
    return f"{found.value:.2f} [{found.lower:.2f}, {found.upper:.2f}]"


# ---- what was measured ---------------------------------------------------------------------------


def _evaluation_data(manifest: Manifest) -> str:
    results = manifest.evaluation
    if not any(name in results for name in SECTIONS):
        return "This model was not evaluated: each figure below is said to be not measured."
    stays = [results[name].get("stays") for name in _INPUTS if name in results]
    many = f", {stays[0]} stays" if stays and stays[0] else ""
    return _EVALUATION.format(home=manifest.cohorts[0].name, many=many)


def _quantitative(manifest: Manifest) -> str:
    results = manifest.evaluation
    sections = {
        "How well patients are ranked": _ranking(results),
        "Calibration, sets and intervals": _acting(results.get("acting")),
        "Task by task": _tasks(manifest),
        "Subgroups": _groups(results.get("groups")),
        "Hours since admission": _landmarks(results.get("landmarks")),
        "Recognition or prediction": _recognition(results),
        "Recalibration for another database": _recalibration(results.get("recalibration")),
    }
    return "\n\n".join("\n".join([f"### {title}", "", *lines]) for title, lines in sections.items())


def _ranking(results: Found) -> list[str]:
    rows = []
    for inputs, words in _INPUTS.items():
        for key, where in ((inputs, "hospitals never seen"), (f"{inputs}_external", "external")):
            models = results.get(key, {}).get("models", {})
            if "m3h" not in models:
                rows.append([words, where, "", NOT_MEASURED, *([""] * len(_OTHERS))])
                continue
            ahead = [models.get(m, {}).get("m3h_ahead_by") for m in _OTHERS]
            area = _interval(models["m3h"]["auroc"])
            told = [NOT_MEASURED if a is None else _interval(a, "+") for a in ahead]
            rows.append([words, where, results[key]["tasks"], area, *told])
    head = ["inputs", "tested on", "tasks", "mean AUROC"]
    return _table([*head, *(f"ahead of {name}" for name in _OTHERS.values())], rows)


def _acting(found: Found | None) -> list[str]:
    if not found or "calibration" not in found:
        return [f"Calibration, sets and intervals: {NOT_MEASURED}."]
    c, s = found["calibration"], found["coverage"]
    rows = [
        ["calibration slope (1 is right)", _number(c.get("slope"))],
        ["calibration intercept (0 is right)", _number(c.get("intercept"), "+")],
        ["Brier skill (0: the prevalence alone)", _number(c.get("brier_skill"))],
        ["calibration error, ten bins", _number(c.get("calibration_error"), digits=4)],
        ["what chance alone makes of it", _number(c.get("noise_floor"), digits=4)],
        ["patients with the disease whose set has `yes` (made for 0.9)", _number(s["positives"])],
        ["patients without whose set has `no` (made for 0.9)", _number(s["negatives"])],
        ["sets with both: cannot say", _number(s.get("undecided"))],
        ["lengths of stay inside their interval (made for 0.9)", _number(s["length_of_stay"])],
    ]
    return ["All inputs, common tasks pooled.", "", *_table(["", "measured"], rows)]


def _tasks(manifest: Manifest) -> list[str]:
    rows = []
    for facts in manifest.tasks:
        measured = [_task(facts, manifest.evaluation.get(inputs)) for inputs in _INPUTS]
        rows.append(
            [
                facts.task.display,
                max(facts.labels.values(), default=0),
                "" if facts.positives is None else facts.positives,
                "" if facts.prevalence is None else f"{facts.prevalence:.3f}",
                ", ".join(facts.seen),
                *measured,
                _set(facts),
            ]
        )
    head = ["task", "labelled patients", "with it", "prevalence", "sees"]
    few = min((found.get("fewest_positives", 0) for found in _there(manifest)), default=0)
    lines = [
        "AUROC on hospitals never seen, at 24 h, from what is measured, and from all inputs"
        + (f"; *too few*: fewer than {few} of the patients had it. " if few else ". ")
        + f"Calibration of each task on its own: {NOT_MEASURED}.",
        "",
    ]
    return lines + _table([*head, "AUROC, measured", "AUROC, all inputs", "set"], rows)


def _there(manifest: Manifest) -> list[Found]:
    return [manifest.evaluation[i] for i in _INPUTS if i in manifest.evaluation]


def _task(facts: TaskFacts, found: Found | None) -> str:
    """A task's AUROC; of a length of stay its mean absolute error."""
    mine = (found or {}).get("models", {}).get("m3h")
    if mine is None or facts.task.kind == "clustering":
        return NOT_MEASURED
    if facts.task.kind == "regression":
        error = mine.get("mae_days")
        return NOT_MEASURED if error is None else f"errs by {_number(error)} d"
    area = mine["by_task"].get(facts.task.name)
    if area is None:
        return "too few" if facts.task.kind == "binary" else NOT_MEASURED
    return _interval(area) if isinstance(area, list) else _number(area)


def _set(facts: TaskFacts) -> str:
    if facts.abstains is not None:
        return f"no answer: {facts.abstains}"
    if facts.task.kind in ("regression", "clustering"):
        return "an interval" if facts.task.kind == "regression" else "none"
    if facts.sets is None:
        return "none"
    return "yes" if facts.sets.reason is None else f"none: {facts.sets.reason}"


def _groups(found: Found | None) -> list[str]:
    if not found:
        return [f"Sex, age, ethnicity, year of discharge: {NOT_MEASURED}."]
    rows = [
        [
            by,
            f"{name} (small)" if here.get("small") else name,
            here.get("stays", ""),
            here.get("tasks", ""),
            *_few(here, "auroc", "against_everyone", "observed_to_expected"),
        ]
        for by, groups in found.items()
        for name, here in groups.items()
    ]
    head = ["by", "group", "stays", "tasks", "AUROC", "against everyone", "observed / expected"]
    return [_GROUPS, *_table(head, rows)]


def _landmarks(found: Found | None) -> list[str]:
    if not found:
        return [f"By hours since admission: {NOT_MEASURED}."]
    rows = [
        [
            f"{hours} h",
            here.get("stays", ""),
            here.get("tasks", ""),
            _interval(here["models"]["m3h"]),
            *_few(here, "observed_to_expected"),
        ]
        for hours, here in found.items()
    ]
    head = ["after admission", "stays", "tasks", "AUROC", "observed / expected"]
    return ["All inputs; those who are still in the unit.", "", *_table(head, rows)]


def _recognition(results: Found) -> list[str]:
    rows = []
    later = results.get("charted_later", {})
    for inputs, words in _INPUTS.items():
        here = later.get(inputs, {}).get("models", {}).get("m3h")
        told = (
            [_interval(here[k]) for k in ("charted_later", "same_tasks_as_usual")] if here else []
        )
        rows.append([words, *(told or [NOT_MEASURED, NOT_MEASURED])])
    head = ["inputs", "AUROC, diseases first charted afterwards", "the same tasks as usual"]
    masked = results.get("masked", {}).get("models", {}).get("m3h_one")
    without = NOT_MEASURED
    if masked:
        without = f"AUROC {_interval(masked['masked'])}, as they are {_interval(masked['all'])}"
    named = f"One network, from notes that name no disease: {without}."
    return [_RECOGNITION, *_table(head, rows), "", named]


def _recalibration(found: Found | None) -> list[str]:
    if not found:
        return [f"What recalibration repairs elsewhere: {NOT_MEASURED}."]
    names = {
        "slope": "calibration slope",
        "intercept": "calibration intercept",
        "brier_skill": "Brier skill",
        "calibration_error": "calibration error",
        "noise_floor": "what chance alone makes of it",
    }
    rows = [
        [words, *(_interval(found[when][key]) for when in ("before", "after"))]
        for key, words in names.items()
        if key in found["before"]
    ]
    by = f"By {found['patients']} of its patients, drawn at random {found['splits']} times"
    return [f"{by}; measured on the others.", "", *_table(["", "before", "after"], rows)]


# ---- how it is said ------------------------------------------------------------------------------


def _number(value: float | None, sign: str = "", digits: int = 3) -> str:
    return NOT_MEASURED if value is None else f"{value:{sign}.{digits}f}"


def _interval(figures: Sequence[float | None], sign: str = "") -> str:
    value, low, high = figures
    if low is None or high is None:
        return _number(value, sign)
    return f"{_number(value, sign)} [{_number(low, sign)}, {_number(high, sign)}]"


def _few(here: Found, *names: str) -> list[str]:
    """Figures with intervals, where there were enough to make them of."""
    sign = {"against_everyone": "+"}
    return [
        _interval(here[name], sign.get(name, "")) if name in here else "too few" for name in names
    ]


def _listed(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def _caveats(manifest: Manifest) -> str:
    both = sum(c.with_notes_and_image for c in manifest.cohorts)
    joined = _JOINED.format(both=both) if both else _NEVER_JOINED
    local = manifest.recalibration
    use = _USE.format(folder=manifest.name)
    if local is not None:
        use = _USE_ELSEWHERE.format(cohort=local.cohort)
    return _CAVEATS.format(joined=joined, **_words(manifest)) + use


_WARNING = """
**For research. Not a medical device; not validated for any clinical use.** A disease's probability
means "coded at any time in this stay": the model recognises what is or will be charted. It is no
proof of the disease, nor of its absence.
"""

_DETAILS = """
M3H (arXiv 2404.18975), as this project reads it:{made}
{tasks} tasks ({diseases} diseases, {operations} operations, {phenotypes} phenotype) from tabular
data, series with treatments, notes and a chest X-ray, any of which may be absent. Calibrated on
hospitals that the networks did not learn from; kept as ONNX graphs.

Made on {created} by:

    {command}

The code is under Apache-2.0; the licences of the data are in NOTICE.
"""

_CORRECTED = """
### Recalibrated for {cohort}

By {patients} patients ({source}), from the bundle of the digest {bundle}. The order in which a
disease ranks patients is as it was; probabilities, their intervals and sets, and prevalences are
moved. **The figures below were measured before that**; those of calibration do not hold any more.
The largest moves, in log-odds:
"""

_REDUCED = """
### Reduced to {precision}

From the bundle of the digest {bundle}, whose golden answers it still gives, within its own
tolerance. Before and after were compared by {patients}, who are no part of the training data: no
probability moves by more than {moved}. **The figures below are those of the bundle before.**
"""

_TEACHING = """\
{coalitions} coalitions of tasks were trained together and tested on {patients} patients of
hospitals held out (`GET /tim` says what the score is). Of {pairs} pairs of tasks {certain} are
certain at a false discovery rate of 5 %: of the others the data are too few to tell. It is what
networks learn from these data, not which disease causes which."""

_HALVES = """\
The matrices of two halves of the coalitions have a correlation of {agreement}: 1 if nothing were
chance, 0 if all were."""

_READ = """\
The mean attention that a task pays to another has a rank correlation of {agreement} with how much
that other helps it: 1 if attention showed who teaches whom, 0 if it did not."""

_INTENDED_USE = """
For building and testing clinical software against a real model, for research on multitask learning,
and as a start for a hospital that trains its own; for those who build and study such systems. It
knows the kind of patients that it learned from (*Training data*; the open data are of adults in
intensive care in the United States), {first} to {last} hours after admission to the unit.

It must not be used

- to diagnose, treat or triage, to withhold or end care, to decide on a bed or a discharge;
- to rule a disease out: a low probability is a statement on coding;
- for patients of another kind: children, in pregnancy, on a ward, at home, at other hours;
- to code or to bill, or to judge hospitals, clinicians or the insured;
- anywhere before it was recalibrated there, tested there and watched there (see the last section).
"""

_FACTORS = """
What its answers may depend on: the hospital and how it codes; sex, age, ethnicity; the hours since
admission; which modalities are there, and how much is in them; the year. What of this was measured
is below, from *Subgroups* on. Language, insurance, pregnancy, disability and rare diseases: not.
"""

_METRICS = """
- **AUROC**: the positives-weighted mean of within-fold areas, and of these the mean over tasks with
  enough positives; in brackets the 95 % interval of bootstraps over hospitals.
- **Calibration**: slope and intercept of a logistic regression of the outcome on the log-odds,
  pooled over common tasks; Brier skill; the error in ten bins, and its noise floor.
- **Interval** of a probability: Venn-Abers. Of a length of stay: made to hold nine in ten.
- **Set**: label-conditional conformal, made to hold the truth in nine of ten patients with the
  disease, and in nine of ten without.
"""

_EVALUATION = """
{home}, five folds by hospital{many}, at 24 h: no hospital and no patient is on both sides. The
models that were tested were made as this one was, each without the hospitals that test it; this one
learned from all of them. *External*: learned from {home} alone, tested on another database.
"""

_LABELS = """\
A label is a diagnosis or billing code, or a diagnosis of the chart, at any time in the stay; it is
never an input. The prevalences that are served are those of {served}; a cohort of which patients
were chosen otherwise is corrected by its log-odds. A modality moves the tasks that had labels
beside it (*sees*, below) and no other; the receipt of each answer names the others."""

_GROUPS = """\
All inputs, at 24 h. Descriptive: nothing was corrected for any group, and groups differ in their
tasks. *Against everyone*: on the group's own tasks. Observed / expected above 1: the probabilities
are too low.
"""

_RECOGNITION = """\
Most diagnoses are charted in the first day, and notes often name them: telling those is
recognition.
"""

_ETHICS = """
- The data are de-identified and openly licensed, or the hospital's own (NOTICE). The bundle holds
  no patient's record; whether one could be found out from its weights was not measured.
- Labels are what was coded. Who is diagnosed less is labelled less, and the model learns that, too.
- Of the person it reads {inputs}. What is not among these, ethnicity or insurance, it may infer.
- Notes often name the disease: from notes it repeats what was written, mistakes included.
- A number looks surer than it is. Each answer has its interval or set, how unusual the input is,
  and what of the input was not used: whoever shows the number must show these.
"""

_JOINED = "Patients with notes and a chest X-ray apart: it learned from {both} who had both."

_NEVER_JOINED = """\
**Notes and a chest X-ray of the same patient.** Nobody that it learned from had both, and no open
  data join them: what it makes of the two together was never measured."""

_CAVEATS = """
What was never tested:

- {joined}
- At the bedside: nothing was measured prospectively, nor what showing its answers does to care.
- In other countries and languages, in children, after {last} hours, on other images than frontal
  chest X-rays.
- Against text or values that were made to mislead it.

What to know:

- The absence of a code is not the absence of the disease, and hospitals code differently: elsewhere
  probabilities may be far off, and the ranking is then worth more than the number.
- Of a rare disease a set of `yes` alone does not mean that it is likely.
"""

_USE_ELSEWHERE = """
**To use it at a hospital** other than {cohort}, recalibrate the bundle that this one was made from.
"""

_USE = """
**To use it at a hospital**, recalibrate it by patients there whose outcomes are known, fifty or
more, of the kind that it is to be asked about and with the inputs that it is to be given:

    m3h-model cohort ... --out runs/local
    m3h-export {folder} {folder}-local --recalibrate runs/local

This moves each task's probabilities to what is charted there (one number for each, drawn towards
what all tasks have in common), their intervals and sets with them, and the interval of the length
of stay. It changes no ranking and needs no torch. Then test the new bundle on *other* patients of
the hospital: calibration, how often its sets hold the truth, each group of patients that matters
there; and again when coding, wards or equipment change. Where the ranking is poor, train on the
hospital's own data.
"""
