"""The largest cells of a matrix, and its agreement with medical knowledge.

KNOWN has pairs of tasks that textbooks relate: one causes, complicates or implies the other, or
both have a common cause. The pairs were written down before a matrix was computed.

    python benchmarks/tim/reading.py runs/m3h-open/tim.json
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from model.evaluation.bootstrap import REPLICATES, interval
from schemas.tim import Tim

MAX_CELLS = 10
KNOWN = {
    "sepsis": ("septic_shock", "pneumonia", "urinary_tract_infection", "acute_kidney_injury"),
    "septic_shock": ("acidosis", "respiratory_failure", "in_hospital_mortality"),
    "chronic_kidney_disease": (
        "acute_kidney_injury",
        "end_stage_renal_disease",
        "anemia",
        "hypertension",
        "diabetes",
    ),
    "acute_kidney_injury": ("end_stage_renal_disease", "fluid_electrolyte_disorder", "acidosis"),
    "coronary_artery_disease": (
        "acute_myocardial_infarction",
        "hyperlipidemia",
        "peripheral_vascular_disease",
        "heart_failure",
    ),
    "heart_failure": ("cardiomyopathy", "atrial_fibrillation", "valve_disease", "pleural_effusion"),
    "diabetes": ("obesity", "hyperlipidemia", "hypertension"),
    "respiratory_failure": ("copd", "pneumonia", "in_hospital_mortality"),
    "copd": ("asthma",),
    "pneumonia": ("pleural_effusion",),
    "liver_disease": (
        "coagulopathy",
        "thrombocytopenia",
        "gastrointestinal_bleeding",
        "encephalopathy",
        "substance_use_disorder",
    ),
    "substance_use_disorder": ("pancreatitis", "seizure"),
    "gastrointestinal_bleeding": ("anemia",),
    "coagulopathy": ("thrombocytopenia",),
    "malignancy": ("anemia", "venous_thromboembolism", "malnutrition"),
    "stroke_or_tia": ("atrial_fibrillation", "hypertension", "seizure"),
    "encephalopathy": ("dementia_or_delirium",),
    "discharge_disposition": ("in_hospital_mortality", "length_of_stay", "dementia_or_delirium"),
}
Floats = npt.NDArray[np.float64]


def known_pairs(tasks: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """[T, T] whether a pair of tasks is KNOWN, in both directions."""
    pairs = np.zeros((len(tasks), len(tasks)), np.bool_)
    for task, others in KNOWN.items():
        for other in others:
            if task in tasks and other in tasks:
                i, j = tasks.index(task), tasks.index(other)
                pairs[i, j] = pairs[j, i] = True
    return pairs


def agreement(cells: Floats, known: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """AUROC of known pairs by their cells, less their row's mean; bootstrap over rows."""
    centred = cells - np.nanmean(cells, axis=1, keepdims=True)
    rows = np.flatnonzero(~np.isnan(cells).all(axis=1))
    draw = np.random.default_rng(0)
    areas = []
    for sample in [rows, *draw.choice(rows, (REPLICATES, len(rows)))]:
        measured = ~np.isnan(centred[sample])
        areas.append(roc_auc_score(known[sample][measured], centred[sample][measured]))
    return interval(np.array(areas))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("tim", type=Path)
    tim = Tim.model_validate_json(parser.parse_args().tim.read_bytes())
    cells, lower, upper, attention = (
        np.array(part, dtype=np.float64)
        for part in (tim.matrix, tim.lower, tim.upper, tim.mean_attention)
    )
    np.fill_diagonal(attention, np.nan)
    print(f"{tim.coalitions} coalitions, {tim.patients} patients; halves {tim.halves}")
    print(f"cells: standard deviation {np.nanstd(cells):.4f}; ", end="")
    print(f"half of an interval {np.nanmedian(upper - lower) / 2:.4f} (median)")
    print(f"{np.sum(tim.certain)} of {np.sum(~np.isnan(cells))} cells are certain")
    print(f"attention against the matrix, rank correlation: {tim.attention_agreement}")
    known = known_pairs(tim.tasks)
    for name, matrix in (("the matrix", cells), ("mean attention", attention)):
        value, low, high = agreement(matrix, known)
        print(f"{known.sum()} known pairs by {name}: AUROC {value:.3f} [{low:.3f}, {high:.3f}]")
    surest = np.argsort(-np.nan_to_num(np.abs(cells) / (upper - lower)), axis=None)[:MAX_CELLS]
    print("\n| task | helped (+) or harmed (-) by | by how much | known | certain |")
    print("|---|---|---|---|---|")
    for i, j in zip(*np.unravel_index(surest, cells.shape), strict=True):
        cell = f"{cells[i, j]:+.4f} [{lower[i, j]:+.4f}, {upper[i, j]:+.4f}]"
        marks = ["yes" if mark else "no" for mark in (known[i, j], tim.certain[i][j])]
        print(f"| {tim.sources[i]} | {tim.tasks[j]} | {cell} | {' | '.join(marks)} |")


if __name__ == "__main__":
    main()
