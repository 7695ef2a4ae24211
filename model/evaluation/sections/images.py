"""Chest X-rays alone, cross-validated by patient."""

from pathlib import Path

from model.evaluation.sections import MODEL_NAMES, ONE_NETWORK, Figures, Section
from model.evaluation.sections.markdown import paragraph, table, with_interval
from model.evaluation.study import image_study
from model.evaluation.study.results import MissingPredictionsError, StudyResults

_MODELS = ("m3h", ONE_NETWORK)


def _measure(study: StudyResults) -> Figures:
    try:
        return image_study.summarise(study.folder)
    except FileNotFoundError as missing:
        raise MissingPredictionsError(Path(missing.filename).stem) from None


def _render(figures: Figures) -> list[str]:
    models = figures["models"]
    rows = [
        [
            figures["display"][task],
            positives,
            *(with_interval(models[model]["by_task"][task]) for model in _MODELS),
        ]
        for task, positives in figures["positives"].items()
    ]
    rows.append(["mean", "", *(with_interval(models[model]["auroc"]) for model in _MODELS)])
    return [
        paragraph(
            f"""{figures["images"]} frontal images of {figures["patients"]} patients of NIH
            ChestX-ray14, nothing but the image. Five folds by patient; all images are of one
            hospital. In brackets: 95 % intervals of bootstraps over patients. The labels were
            text-mined from reports, and the images were sampled by finding: the AUROC is no
            estimate for other hospitals or unselected patients. No open data join images with the
            other inputs of the same patient, so their contribution to a joint prediction is not
            measured."""
        ),
        table(["finding", "positives", *(MODEL_NAMES[model] for model in _MODELS)], rows),
    ]


IMAGES = Section("images", "Chest X-rays alone", _measure, _render)
