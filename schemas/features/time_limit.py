"""The time limit of a long computation: a function that is called between its steps."""


def no_time_limit() -> None:
    """The `check` of callers without a time limit. It never raises."""
