"""Evaluation: metrics, baselines, the study of all models, and the report."""
