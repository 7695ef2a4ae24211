"""`m3h-export`: a checkpoint becomes a bundle; a bundle becomes one for another hospital."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from export.card import SECTIONS
from export.recalibrate import RecalibrationError, recalibrate
from model.cohort import CohortError
from model.cohorts.synthetic import examples, patients
from schemas.manifest import BundleError

app = typer.Typer(pretty_exceptions_enable=False)
GOLDEN_PATIENTS = 4


class EvaluationError(ValueError):
    """A file that is no report of `m3h-model evaluate`."""


@app.command(help=__doc__)
def main(
    source: Annotated[
        Path, typer.Argument(help="Folder made by 'm3h-model train'; with --recalibrate a bundle.")
    ],
    bundle: Annotated[Path, typer.Argument(help="Folder to write; replaced if it is there.")],
    version: Annotated[
        str | None,
        typer.Option(
            help="The bundle's version; 1.0.0, or the old one's and '+recalibrated', if not given."
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
) -> None:
    if recalibrate_by is not None and evaluation is not None:
        raise typer.BadParameter("a recalibrated bundle keeps the evaluation that it had")
    try:
        if recalibrate_by is None:
            results = {} if evaluation is None else read_evaluation(evaluation)
            said = _export(source, bundle, version or "1.0.0", results)
        else:
            said = _recalibrate(source, recalibrate_by, bundle, version)
    except (
        FileNotFoundError,
        BundleError,
        CohortError,
        EvaluationError,
        RecalibrationError,
    ) as error:
        typer.echo(f"m3h-export: {error}", err=True)
        raise typer.Exit(2) from None
    print(f"{bundle}: {said}")


def read_evaluation(path: Path) -> dict[str, Any]:
    """A report's figures that a card tells. Raises EvaluationError if the file is no report."""
    try:
        results = json.loads(path.read_bytes())
    except ValueError:
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
    from export.bundle import export_bundle  # noqa: PLC0415
    from export.parity import ParityError  # noqa: PLC0415
    from model.checkpoint import Checkpoint  # noqa: PLC0415

    golden = examples()
    for record in patients(GOLDEN_PATIENTS, seed=1):
        golden[f"synthetic-{record.patient}"] = record.payload
    try:
        digest, parity = export_bundle(
            Checkpoint.load(checkpoint),
            bundle,
            name=bundle.resolve().name,
            version=version,
            golden=golden,
            evaluation=results,
        )
    except ParityError as error:
        typer.echo(f"m3h-export: {error}", err=True)
        raise typer.Exit(2) from None
    return (
        f"digest {digest}; graphs and torch agree to {parity.largest_difference:.1e} "
        f"in {parity.comparisons} comparisons"
    )


def _recalibrate(old: Path, cohort: Path, bundle: Path, version: str | None) -> str:
    digest, found = recalibrate(old, cohort, bundle, version=version)
    least, most = min(found.shift.values()), max(found.shift.values())
    return (
        f"digest {digest}; by {found.patients} patients of {found.cohort}, "
        f"log-odds moved by {least:+.2f} to {most:+.2f}"
    )
