"""Figures in words, paragraphs and tables of Markdown."""

import textwrap
from collections.abc import Sequence


def prose(text: str) -> str:
    """One paragraph, or one point of a list, however its lines were broken."""
    hang = "  " if text.lstrip().startswith("- ") else ""
    return textwrap.fill(
        " ".join(text.split()),
        100,
        subsequent_indent=hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def folded(summary: str, block: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{block}\n\n</details>"


def figure(value: float | None, sign: str = "", digits: int = 3) -> str:
    """`sign` "+" for a difference. What could not be measured is left empty."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def with_interval(figures: Sequence[float | None], sign: str = "", digits: int = 3) -> str:
    value, low, high = (figure(f, sign, digits) for f in figures)
    return f"{value} [{low}, {high}]" if low else value


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def percents(figures: Sequence[float]) -> str:
    value, low, high = (f"{100 * f:+.1f}" for f in figures)
    return f"{value} % [{low}, {high}]"


def certain(figures: Sequence[float]) -> bool:
    """Whether the interval of a difference excludes zero."""
    return figures[1] > 0 or figures[2] < 0


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
