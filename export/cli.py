"""`m3h-export`: a checkpoint becomes a bundle."""

import json
from pathlib import Path
from typing import Annotated

import typer

from export.bundle import export_bundle
from export.parity import ParityError
from model.checkpoint import Checkpoint
from model.cohorts.synthetic import examples, patients

app = typer.Typer(pretty_exceptions_enable=False)
GOLDEN_PATIENTS = 4


@app.command(help=__doc__)
def main(
    checkpoint: Annotated[Path, typer.Argument(help="Folder made by 'm3h-model train'.")],
    bundle: Annotated[Path, typer.Argument(help="Folder to write; replaced if it is there.")],
    version: Annotated[str, typer.Option(help="The bundle's version.")] = "1.0.0",
    evaluation: Annotated[
        Path | None, typer.Option(help="JSON of 'm3h-model evaluate --out', for the model card.")
    ] = None,
) -> None:
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
    except (FileNotFoundError, ParityError) as error:
        typer.echo(f"m3h-export: {error}", err=True)
        raise typer.Exit(2) from None
    print(
        f"{bundle}: digest {digest}; graphs and torch agree to {parity.largest_difference:.1e} "
        f"in {parity.comparisons} comparisons"
    )
