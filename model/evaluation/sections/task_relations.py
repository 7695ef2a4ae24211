"""Attention on tasks whose relations are known: made patients, a graph that was drawn first."""

from pathlib import Path

from model.evaluation.measure import Found
from model.evaluation.sections import Section
from model.evaluation.study_results import Kept, NotYet
from model.tim import synthetic_study


def _measure(kept: Kept) -> Found:
    try:
        return synthetic_study.summarise(kept.folder)
    except FileNotFoundError as missing:
        raise NotYet(Path(missing.filename).stem) from None


def _tell(found: Found) -> list[str]:
    return ["\n".join(synthetic_study.report_lines(found))]


KNOWN_RELATIONS = Section(
    "known_relations",
    "Attention on tasks whose relations are known",
    _measure,
    _tell,
)
