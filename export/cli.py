"""`m3h-export`: exports a checkpoint as a bundle; recalibrates a bundle or makes it faster."""

import json
from enum import StrEnum
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from model.errors import UserError, user_message

app = typer.Typer(pretty_exceptions_enable=False)
GOLDEN_PATIENTS = 4


class PrecisionName(StrEnum):
    fp16 = "fp16"
    int8 = "int8"


class EvaluationError(UserError):
    """A file is not a report of `m3h-model evaluate`."""


class _Command(TyperCommand):
    """`--version` alone prints the version of the tool; with a value it sets the bundle's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args == ["--version"]:
            print(f"m3h-export {version_of('m3h')}")
            ctx.exit()
        return super().parse_args(ctx, args)


@app.command(cls=_Command, help=__doc__)
def main(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder made by 'm3h-model train'; with --recalibrate or --precision, a bundle."
        ),
    ],
    bundle: Annotated[
        Path, typer.Argument(help="Folder to write. An existing folder is replaced.")
    ],
    version: Annotated[
        str | None,
        typer.Option(
            help="The bundle's version. Default: 1.0.0, or the old version and the change. "
            "Alone and without a value: print the version of m3h-export and exit."
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="results.json of 'm3h-model evaluate', for the model card."),
    ] = None,
    recalibrate_by: Annotated[
        Path | None,
        typer.Option(
            "--recalibrate",
            help="A cohort of local patients to recalibrate a bundle by. Needs no torch.",
        ),
    ] = None,
    precision: Annotated[
        PrecisionName | None,
        typer.Option(
            help="Reduce the precision of a bundle: fp16 for GPUs, int8 for CPUs. Needs no torch."
        ),
    ] = None,
    cohorts: Annotated[
        list[Path] | None,
        typer.Option(
            "--cohort",
            help="With --precision: a cohort that the bundle never learned from, to measure the "
            "loss of accuracy. Repeatable.",
        ),
    ] = None,
    behaviour_gate: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the expectations of behaviour that must hold in nine of ten patients; "
            "0 accepts every bundle. With --recalibrate or --precision, the new bundle may not be "
            "worse than its source, and only 0 has an effect.",
        ),
    ] = 0.95,
) -> None:
    _check_options(recalibrate_by, precision, cohorts, evaluation)
    try:
        if precision is not None:
            message = _quantize(source, cohorts or [], bundle, precision, version, behaviour_gate)
        elif recalibrate_by is not None:
            message = _recalibrate(source, recalibrate_by, bundle, version, behaviour_gate)
        else:
            message = _export(source, bundle, version or "1.0.0", evaluation, behaviour_gate)
    except Exception as error:
        line = _error_line(error)
        if line is None:
            raise
        typer.echo(f"m3h-export: {line}", err=True)
        raise typer.Exit(2) from None
    print(f"{bundle}: {message}; {_behaviour(bundle)}")


def _check_options(
    recalibrate_by: Path | None,
    precision: PrecisionName | None,
    cohorts: list[Path] | None,
    evaluation: Path | None,
) -> None:
    if recalibrate_by is not None and precision is not None:
        raise typer.BadParameter(
            "--recalibrate and --precision exclude each other; recalibrate first, then reduce the "
            "precision of the new bundle"
        )
    if (recalibrate_by is not None or precision is not None) and evaluation is not None:
        kind = "recalibrated" if precision is None else "reduced"
        raise typer.BadParameter(f"a {kind} bundle keeps its evaluation; leave out --evaluation")
    if (precision is None) != (not cohorts):
        raise typer.BadParameter("--precision and --cohort must be used together")


def _error_line(error: Exception) -> str | None:
    from schemas.manifest import BundleError

    return str(error) if isinstance(error, BundleError) else user_message(error)


def read_evaluation(path: Path) -> dict[str, Any]:
    """The sections of a report for the model card. Raises EvaluationError without any."""
    from export.card.model_card import SECTIONS

    try:
        results = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise EvaluationError(f"{path} is not JSON") from None
    known = results if isinstance(results, dict) else {}
    sections = {name: known[name] for name in SECTIONS if name in known}
    if not sections:
        raise EvaluationError(
            f"{path} is not a report: it has none of {', '.join(SECTIONS)}; "
            "use results.json of 'm3h-model evaluate'"
        )
    return sections


def _behaviour(bundle: Path) -> str:
    """The judged behaviour of the bundle, in words."""
    from schemas.manifest import read_manifest

    figures = read_manifest(bundle)[0].evaluation["behaviour"]
    return (
        f"{figures['reliable']:.1%} of {figures['expectations']} expectations of its behaviour "
        "hold in nine of ten patients"
    )


def _export(
    checkpoint: Path, bundle: Path, version: str, evaluation: Path | None, share: float
) -> str:
    results = {} if evaluation is None else read_evaluation(evaluation)
    # These imports load torch, which recalibration does not need.
    from export.behaviour import BehaviourGate
    from export.bundle import export_bundle
    from model.cohorts.synthetic import examples, patients
    from model.network.checkpoint import Checkpoint

    golden = examples()
    for record in patients(GOLDEN_PATIENTS, seed=1):
        golden[f"synthetic-{record.patient}"] = record.payload
    digest, parity = export_bundle(
        Checkpoint.load(checkpoint),
        bundle,
        name=bundle.resolve().name,
        version=version,
        golden=golden,
        evaluation=results,
        gate=BehaviourGate(share),
    )
    return (
        f"digest {digest}; graphs and torch agree to {parity.largest_difference:.1e} "
        f"in {parity.comparisons} comparisons"
    )


def _recalibrate(old: Path, cohort: Path, bundle: Path, version: str | None, share: float) -> str:
    from export.behaviour import BehaviourGate
    from export.recalibrate import recalibrate

    gate = BehaviourGate(share, old)
    digest, recalibration = recalibrate(old, cohort, bundle, version=version, gate=gate)
    shifts = recalibration.shift.values()
    return (
        f"digest {digest}; recalibrated by {recalibration.patients} patients of "
        f"{recalibration.cohort}, log-odds shifted by {min(shifts):+.2f} to {max(shifts):+.2f}"
    )


def _quantize(
    old: Path,
    cohorts: list[Path],
    bundle: Path,
    precision: PrecisionName,
    version: str | None,
    share: float,
) -> str:
    from export.behaviour import BehaviourGate
    from export.precision.quantize import quantize_bundle

    gate = BehaviourGate(share, old)
    digest, reduction = quantize_bundle(
        old, cohorts, bundle, precision.value, version=version, gate=gate
    )
    converted = ", ".join(n for n, graph in reduction.graphs.items() if graph.reason is None)
    loss = max((c.loss for c in reduction.tasks.values() if c.metric == "auroc"), default=0.0)
    patients = sum(held_out.patients for held_out in reduction.held_out)
    return (
        f"digest {digest}; {converted} in {precision}; on {patients} patients, no task loses more "
        f"than {max(loss, 0.0):.4f} in AUROC, and no probability changes by more than "
        f"{reduction.largest_difference:.4f}"
    )
