"""Predictions: admission, batching, computation, explanation and answer."""
