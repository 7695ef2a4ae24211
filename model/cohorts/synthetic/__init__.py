"""Synthetic patients with all modalities, all labelled tasks and a known graph between tasks.

They serve tests, and users without data. No patient's data went into them, and nothing learned from
them is medicine. Every disease has a liability (Falconer 1965): the sum of latent factors, shared
with other diseases, and a part of its own. A patient whose liability is above the threshold has the
disease. Factors and liabilities shift measurements, treatments, notes and X-rays. Two tasks that
share a factor are an edge of the graph, which a TIM score should find.

Measured 2026-11-23 on PATIENTS of SEED by `benchmarks/synthetic_cohort.py` (tabular and series, 5
random folds by patient), and frozen before any model was tuned on them. AUROC of a logistic
regression for each binary task: mean .747, .715 to .778, all 41 within .70 to .78. A small network
for each task alone: .727; with one trunk for all: .742, so a multitask gain of .015, each at the
best of nine settings. The signs were balanced on this seed; on seed 45 the regression's mean is
.738, .679 to .802, 35 of 41 within.
"""

from model.cohorts.synthetic.example_payloads import examples, write_examples
from model.cohorts.synthetic.generator import PATIENTS, SEED, patients, read
from model.cohorts.synthetic.graph import CausalGraph, causal_graph
from model.cohorts.synthetic.parameters import (
    DISEASES,
    FACTORS,
    JITTER,
    MEASUREMENTS,
    MENTION_RATES,
    OBSERVABLES,
    SIGN_RATES,
    TASKS,
    TREATMENTS,
    X_RAY_SIGNS,
    shared_factors,
)
from model.cohorts.synthetic.x_ray import chest_xray

__all__ = [
    "DISEASES",
    "FACTORS",
    "JITTER",
    "MEASUREMENTS",
    "MENTION_RATES",
    "OBSERVABLES",
    "PATIENTS",
    "SEED",
    "SIGN_RATES",
    "SOURCE",
    "TASKS",
    "TREATMENTS",
    "X_RAY_SIGNS",
    "CausalGraph",
    "causal_graph",
    "chest_xray",
    "examples",
    "patients",
    "read",
    "shared_factors",
    "write_examples",
]

SOURCE = "synthetic patients, drawn by model.cohorts.synthetic"
