"""Behaviour: what moves a model's predictions, compared with what a clinician expects.

An expectation is data (`expectations/*.toml`): one change of a patient, and the expected change of
the log-odds of tasks. Each is applied to several base patients (`patients.toml`, or real ones). A
predictor answers for the patient before and after the change. The same code judges a checkpoint and
a bundle. Only `checkpoint_predictor` imports torch, and only `real_patients` imports polars.

    expectations + patients → pairs → predictor → verdicts → summary
"""
