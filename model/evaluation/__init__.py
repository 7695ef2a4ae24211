"""Evaluation: metrics, baselines, the study of many models, and its report."""
