"""Scheduling: admission control, lanes, and pauses of the garbage collector."""
