"""`m3h-export`: a checkpoint becomes a bundle; a bundle becomes one for another hospital."""

import json
from pathlib import Path
from typing import Annotated

import typer

from export.recalibrate import RecalibrationError, recalibrate
from model.cohort import CohortError
from model.cohorts.synthetic import examples, patients
from schemas.manifest import BundleError

app = typer.Typer(pretty_exceptions_enable=False)
GOLDEN_PATIENTS = 4


@app.command(help=__doc__)
def main(
    source: Annotated[
        Path, typer.Argument(help="Folder made by 'm3h-model train'; with --recalibrate a bundle.")
    ],
    bundle: Annotated[Path, typer.Argument(help="Folder to write; replaced if it is there.")],
    version: Annotated[str, typer.Option(help="The bundle's version.")] = "1.0.0",
    evaluation: Annotated[
        Path | None, typer.Option(help="JSON of 'm3h-model evaluate --out', for the model card.")
    ] = None,
    recalibrate_by: Annotated[
        Path | None,
        typer.Option(
            "--recalibrate", help="A cohort, by whose prevalences to correct a bundle. No torch."
        ),
    ] = None,
) -> None:
    try:
        if recalibrate_by is None:
            said = _export(source, bundle, version, evaluation)
        else:
            digest, shifts = recalibrate(source, recalibrate_by, bundle, version=version)
            said = f"digest {digest}; log-odds moved by {shifts.min():+.2f} to {shifts.max():+.2f}"
    except (FileNotFoundError, BundleError, CohortError, RecalibrationError) as error:
        typer.echo(f"m3h-export: {error}", err=True)
        raise typer.Exit(2) from None
    print(f"{bundle}: {said}")


def _export(checkpoint: Path, bundle: Path, version: str, evaluation: Path | None) -> str:
    # Imports torch, which recalibration does without.
    from export.bundle import export_bundle  # noqa: PLC0415
    from export.parity import ParityError  # noqa: PLC0415
    from model.checkpoint import Checkpoint  # noqa: PLC0415

    golden = examples()
    for record in patients(GOLDEN_PATIENTS, seed=1):
        golden[f"synthetic-{record.patient}"] = record.payload
    scores = {} if evaluation is None else json.loads(evaluation.read_text(encoding="utf-8"))
    try:
        digest, parity = export_bundle(
            Checkpoint.load(checkpoint),
            bundle,
            name=bundle.resolve().name,
            version=version,
            golden=golden,
            evaluation=scores,
        )
    except ParityError as error:
        typer.echo(f"m3h-export: {error}", err=True)
        raise typer.Exit(2) from None
    return (
        f"digest {digest}; graphs and torch agree to {parity.largest_difference:.1e} "
        f"in {parity.comparisons} comparisons"
    )
