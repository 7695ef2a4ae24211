"""The evaluation in a manifest: figures of the report on patients held out from training.

`m3h-model evaluate` writes the figures to `results.json`; the model card and the dashboard show
them. Sections and figures may be absent. Figures that are not listed here are kept as they are.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

Figure = float | None  # None: not measured
Estimate = tuple[Figure, Figure, Figure]  # a figure and the ends of its 95 % interval


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class ModelFigures(_Figures):
    """One model on all tasks. `by_task`: AUROC.

    `m3h_ahead_by`, `one_network_ahead_by`: AUROC of M3H's ensemble, and of one of its networks,
    minus that of the model.
    """

    auroc: Estimate | None = None
    by_task: dict[str, Figure] = {}
    m3h_ahead_by: Estimate | None = None
    one_network_ahead_by: Estimate | None = None
    auprc: Figure = None
    brier: Figure = None
    mae_days: Figure = None
    mae_of_the_median: Figure = None
    r2_log_days: Figure = None


class Ranking(_Figures):
    """How well models rank patients. `fewest_positives`: of a task that is counted."""

    stays: int | None = None
    tasks: int | None = None
    fewest_positives: int | None = None
    display: dict[str, str] = {}
    positives: dict[str, int] = {}
    models: dict[str, ModelFigures] = {}
    gain_of_ensemble: Estimate | None = None
    gain_of_one_network: Estimate | None = None
    relative_gain: Estimate | None = None


class Calibration(_Figures):
    """Calibration of the probabilities of several tasks, pooled."""

    slope: Figure = None
    intercept: Figure = None
    brier_skill: Figure = None
    calibration_error: Figure = None
    noise_floor: Figure = None


class TaskCalibration(_Figures):
    """Calibration of the probabilities of one task."""

    positives: int | None = None
    slope: Figure = None
    intercept: Figure = None
    observed_to_expected: Figure = None
    calibration_error: Figure = None
    noise_floor: Figure = None


class CalibrationSummary(_Figures):
    """Calibration over tasks: the median, and the shares of tasks within 0.8 to 1.25, by figure."""

    median: dict[str, Figure] = {}
    share_within: dict[str, Figure] = {}


class SubsetCalibration(CalibrationSummary):
    """Calibration with only some modalities. `observed_to_expected`: all tasks together."""

    observed_to_expected: Estimate | None = None


class Coverage(_Figures):
    """Shares of patients whose conformal set or interval contains their outcome."""

    positives: Figure = None
    negatives: Figure = None
    length_of_stay: Figure = None
    undecided: Figure = None


class Uncertainty(_Figures):
    """Calibration and coverage from all inputs.

    `by_task`, `summary`: each task by itself; `calibration`: pooled; `by_subset`: with only some
    modalities, as "tabular+notes".
    """

    tasks: int | None = None
    by_task: dict[str, TaskCalibration] = {}
    summary: CalibrationSummary | None = None
    by_subset: dict[str, SubsetCalibration] = {}
    calibration: Calibration | None = None
    coverage: Coverage | None = None


class Group(_Figures):
    """Patients of one group, such as one sex. `small`: too few for a comparison."""

    stays: int | None = None
    positives: int | None = None
    tasks: int | None = None
    small: bool | None = None
    auroc: Estimate | None = None
    against_everyone: Estimate | None = None
    observed_to_expected: Estimate | None = None


class Landmark(_Figures):
    """Predictions at one number of hours after admission. `models`: AUROC."""

    stays: int | None = None
    tasks: int | None = None
    models: dict[str, Estimate] = {}
    observed_to_expected: Estimate | None = None


class ChartedLater(_Figures):
    """Diagnoses that were charted after the prediction. `by_task`: AUROC by model."""

    tasks: int | None = None
    display: dict[str, str] = {}
    positives: dict[str, int] = {}
    by_task: dict[str, dict[str, Estimate]] = {}
    diagnoses: int | None = None
    charted_later: int | None = None
    models: dict[str, dict[str, Estimate]] = {}


class MaskedNotes(_Figures):
    """Notes without the phrases that name a disease."""

    stays: int | None = None
    stays_touched: int | None = None
    phrases: int | None = None
    share_of_tokens: Figure = None
    models: dict[str, dict[str, Estimate]] = {}
    one_network_ahead_by: dict[str, Estimate] = {}


class DecisionPoint(_Figures):
    """Alerts at a threshold (null: no patient is alerted). Net benefit: Vickers & Elkin 2006."""

    threshold: Figure = None
    sensitivity: Figure = None
    specificity: Figure = None
    ppv: Figure = None
    alerts_per_100: Figure = None
    net_benefit: Figure = None
    net_benefit_of_all: Figure = None


class TaskDecisions(_Figures):
    """Decision points of one task, such as "sensitivity_80" and "alerts_5" (per 100 patients)."""

    labelled: int | None = None
    positives: int | None = None
    points: dict[str, DecisionPoint] = {}


class Decisions(_Figures):
    """What alerts would find and cost. `mean`: over the tasks, without thresholds."""

    tasks: int | None = None
    by_task: dict[str, TaskDecisions] = {}
    mean: dict[str, DecisionPoint] = {}


class RecalibrationEffect(_Figures):
    """Calibration at another database, before and after recalibration with `patients`."""

    tasks: int | None = None
    patients: int | None = None
    splits: int | None = None
    before: dict[str, Estimate] = {}
    after: dict[str, Estimate] = {}


class BehaviourRow(_Figures):
    """One expectation for one task, or for all tasks: `(all)`.

    `share`: of the base patients in whom it holds. `mean_change`: of the log-odds.
    """

    expectation: str
    task: str
    share: float
    mean_change: Figure = None


class Behaviour(_Figures):
    """What moves the predictions, compared with what a clinician expects.

    `expectations`: the number of rows, one for each expectation and task. `patients`: base
    patients. `concordance`: the share of (expectation, task, patient) that holds. `reliable`: the
    share of the rows that hold in nine of ten patients. `rows`: ascending by share; a manifest has
    only the worst. `gate`: the least `reliable` that the export required.
    """

    expectations: int
    patients: int
    concordance: float
    reliable: float
    rows: list[BehaviourRow] = []
    gate: Figure = None


class Evaluation(_Figures):
    """The sections. `measured`: without treatments and notes; `external`: at another database."""

    measured: Ranking | None = None
    all: Ranking | None = None
    measured_external: Ranking | None = None
    all_external: Ranking | None = None
    acting: Uncertainty | None = None
    decisions: dict[str, Decisions] | None = None
    groups: dict[str, dict[str, Group]] | None = None
    landmarks: dict[str, Landmark] | None = None
    charted_later: dict[str, ChartedLater] | None = None
    masked: MaskedNotes | None = None
    recalibration: RecalibrationEffect | None = None
    behaviour: Behaviour | None = None


def _validated(figures: dict[str, Any]) -> dict[str, Any]:
    try:
        Evaluation.model_validate(figures)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    return figures


# The figures as they are in the manifest, once their shape has been validated.
EvaluationFigures = Annotated[dict[str, Any], AfterValidator(_validated)]
