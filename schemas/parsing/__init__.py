"""Parsing and validation of requests: JSON text, times, measured values."""
