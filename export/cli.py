"""`m3h-export`: a checkpoint becomes a bundle; a bundle one for elsewhere, or a faster one."""

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
    """A file that is no report of `m3h-model evaluate`."""


class _Command(TyperCommand):
    """`--version` alone prints the tool's version; with a value it is the bundle's."""

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
            help="Folder made by 'm3h-model train'; with --recalibrate or --precision a bundle."
        ),
    ],
    bundle: Annotated[Path, typer.Argument(help="Folder to write; replaced if it is there.")],
    version: Annotated[
        str | None,
        typer.Option(
            help="The bundle's version; else 1.0.0, or the old one's and what was done to it. "
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
            "--recalibrate", help="A cohort, by whose prevalences to correct a bundle. No torch."
        ),
    ] = None,
    precision: Annotated[
        PrecisionName | None,
        typer.Option(help="Make a bundle faster: fp16 for GPUs, int8 for CPUs. No torch."),
    ] = None,
    cohorts: Annotated[
        list[Path] | None,
        typer.Option(
            "--cohort",
            help="With --precision: patients that it never learned from, to tell what is lost; "
            "repeatable.",
        ),
    ] = None,
) -> None:
    if recalibrate_by is not None and precision is not None:
        raise typer.BadParameter("recalibrate first, then reduce the precision of what was made")
    if (recalibrate_by is not None or precision is not None) and evaluation is not None:
        which = "recalibrated" if precision is None else "reduced"
        raise typer.BadParameter(f"a {which} bundle keeps the evaluation that it had")
    if (precision is None) != (not cohorts):
        raise typer.BadParameter("--precision and --cohort need each other")
    try:
        if precision is not None:
            said = _reduce(source, cohorts or [], bundle, precision, version)
        elif recalibrate_by is not None:
            said = _recalibrate(source, recalibrate_by, bundle, version)
        else:
            results = {} if evaluation is None else read_evaluation(evaluation)
            said = _export(source, bundle, version or "1.0.0", results)
    except Exception as error:
        line = _line_of(error)
        if line is None:
            raise
        typer.echo(f"m3h-export: {line}", err=True)
        raise typer.Exit(2) from None
    print(f"{bundle}: {said}")


def _line_of(error: Exception) -> str | None:
    from schemas.manifest import BundleError

    return str(error) if isinstance(error, BundleError) else user_message(error)


def read_evaluation(path: Path) -> dict[str, Any]:
    """A report's figures that a card tells. Raises EvaluationError if the file is no report."""
    from export.model_card import SECTIONS

    try:
        results = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise EvaluationError(f"{path} is not JSON") from None
    known = results if isinstance(results, dict) else {}
    found = {name: known[name] for name in SECTIONS if name in known}
    if not found:
        raise EvaluationError(
            f"{path} is no report: it has none of {', '.join(SECTIONS)}; "
            "give results.json of 'm3h-model evaluate'"
        )
    return found


def _export(checkpoint: Path, bundle: Path, version: str, results: dict[str, Any]) -> str:
    # Imports torch, which recalibration does without.
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
    )
    return (
        f"digest {digest}; graphs and torch agree to {parity.largest_difference:.1e} "
        f"in {parity.comparisons} comparisons"
    )


def _recalibrate(old: Path, cohort: Path, bundle: Path, version: str | None) -> str:
    from export.recalibrate import recalibrate

    digest, found = recalibrate(old, cohort, bundle, version=version)
    least, most = min(found.shift.values()), max(found.shift.values())
    return (
        f"digest {digest}; by {found.patients} patients of {found.cohort}, "
        f"log-odds moved by {least:+.2f} to {most:+.2f}"
    )


def _reduce(
    old: Path, cohorts: list[Path], bundle: Path, precision: PrecisionName, version: str | None
) -> str:
    from export.quantize import reduce_precision

    digest, found = reduce_precision(old, cohorts, bundle, precision.value, version=version)
    kept = ", ".join(name for name, graph in found.graphs.items() if graph.reason is None)
    lost = max((c.loss for c in found.tasks.values() if c.metric == "auroc"), default=0.0)
    patients = sum(one.patients for one in found.held_out)
    return (
        f"digest {digest}; {kept} in {precision}; by {patients} patients no task loses more than "
        f"{max(lost, 0.0):.4f} in AUROC, no probability moves by more than "
        f"{found.largest_difference:.4f}"
    )
