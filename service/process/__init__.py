"""Processes of the service: supervisor, workers, hot reload."""
