"""Reads samples from metrics in the Prometheus text format."""

import re


def scraped(text: str, name: str) -> float:
    """The value of a sample by its name and labels; 0 if it is missing."""
    match = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(match.group(1)) if match else 0.0
