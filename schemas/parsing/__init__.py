"""Parsing and validation of a request: JSON text, times, measured values."""
