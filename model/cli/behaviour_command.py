"""The command `m3h-model behaviour`."""

from collections.abc import Sequence
from pathlib import Path

from model.evaluation.behaviour.checkpoint_predictor import checkpoint_predictor
from model.evaluation.behaviour.expectations import load_expectations, read_expectations
from model.evaluation.behaviour.judgement import judge
from model.evaluation.behaviour.patients import made_patients
from model.evaluation.behaviour.summary import summarize, table
from model.network.checkpoint import Checkpoint


def behaviour(
    checkpoint: Path,
    data: Path | None,
    patients: int,
    files: Sequence[Path] | None,
    out: Path | None,
    show: int,
) -> float:
    """Prints and writes the behaviour of a trained model with made and real patients.

    Returns the share of the expectations that hold in nine of ten patients.
    """
    expectations = read_expectations(*files) if files else load_expectations()
    predictor = checkpoint_predictor(Checkpoint.load(checkpoint))
    asked = made_patients()
    if data is not None:
        from model.evaluation.behaviour.real_patients import real_patients  # noqa: PLC0415 - slow

        asked = asked | real_patients(data, patients)
    figures = summarize(judge(predictor, expectations, asked))
    print(table(figures, show))
    if out is not None:
        out.write_text(figures.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return figures.reliable
