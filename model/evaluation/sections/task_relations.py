"""Attention between tasks with known relations: synthetic patients, drawn from a known graph."""

from pathlib import Path

from model.evaluation.sections import Figures, Section
from model.evaluation.study.results import MissingPredictionsError, StudyResults
from model.tim import synthetic_study


def _measure(study: StudyResults) -> Figures:
    try:
        return synthetic_study.summarise(study.folder)
    except FileNotFoundError as missing:
        raise MissingPredictionsError(Path(missing.filename).stem) from None


def _render(figures: Figures) -> list[str]:
    return ["\n".join(synthetic_study.report_lines(figures))]


KNOWN_RELATIONS = Section(
    "known_relations", "Attention between tasks with known relations", _measure, _render
)
