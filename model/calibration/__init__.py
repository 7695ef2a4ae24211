"""Calibration of probabilities, intervals and conformal sets."""
