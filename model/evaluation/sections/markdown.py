"""Markdown: paragraphs, tables, and numbers with intervals."""

import textwrap
from collections.abc import Sequence


def paragraph(text: str) -> str:
    """Wraps a paragraph or a list item at 100 characters."""
    indent = "  " if text.lstrip().startswith("- ") else ""
    return textwrap.fill(
        " ".join(text.split()),
        100,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def details(summary: str, block: str) -> str:
    """A block that the reader can unfold."""
    return f"<details><summary>{summary}</summary>\n\n{block}\n\n</details>"


def decimal(value: float | None, sign: str = "", digits: int = 3) -> str:
    """A number; "" for a missing number. `sign`: "+" for a difference."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def with_interval(figures: Sequence[float | None], sign: str = "", digits: int = 3) -> str:
    """A number with the ends of its interval: "0.812 [0.790, 0.833]"."""
    value, low, high = (decimal(f, sign, digits) for f in figures)
    return f"{value} [{low}, {high}]" if low else value


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def percent_interval(figures: Sequence[float]) -> str:
    """A relative difference with its interval, in percent."""
    value, low, high = (f"{100 * f:+.1f}" for f in figures)
    return f"{value} % [{low}, {high}]"


def excludes_zero(figures: Sequence[float]) -> bool:
    """Whether the interval of a difference excludes zero."""
    return figures[1] > 0 or figures[2] < 0


def join_words(words: Sequence[str]) -> str:
    """Joins words: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
