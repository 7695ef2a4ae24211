"""The text of figures, lists and tables in a model card."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
Rows = list[list[Any]]

NOT_MEASURED = "not measured"


def number(value: float | None, sign: str = "", digits: int = 3) -> str:
    return NOT_MEASURED if value is None else f"{value:{sign}.{digits}f}"


def interval(figures: Sequence[float | None], sign: str = "") -> str:
    value, low, high = figures
    if low is None or high is None:
        return number(value, sign)
    return f"{number(value, sign)} [{number(low, sign)}, {number(high, sign)}]"


def interval_of(results: Results, name: str, sign: str = "") -> str:
    """A figure with its interval; "too few" if too few patients were left to measure it."""
    return interval(results[name], sign) if name in results else "too few"


def join_words(words: Iterable[str]) -> str:
    """Joins words without repetitions: "a, b and c"."""
    words = list(dict.fromkeys(words))
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def table(head: Sequence[str], rows: Rows) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])
