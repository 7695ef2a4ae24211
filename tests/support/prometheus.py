"""What Prometheus would read."""

import re


def scraped(text: str, name: str) -> float:
    """The value of a sample by its name and labels; 0 if it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0
