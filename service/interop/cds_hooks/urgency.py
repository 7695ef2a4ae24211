"""How urgent a card is, from the list of tasks in urgency.toml."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files

from service.interop.cds_hooks.models import Indicator

INDICATORS: tuple[Indicator, ...] = ("info", "warning", "critical")
_LISTED = tomllib.loads((files(__package__ or "") / "urgency.toml").read_text(encoding="utf-8"))
_CRITICAL, _INFO = frozenset(_LISTED["critical"]), frozenset(_LISTED["info"])
_LIKELY = 0.5


def urgency(task: str, probability: float) -> Indicator:
    """The indicator of one task above its operating point."""
    if task in _CRITICAL and probability >= _LIKELY:
        return "critical"
    return "info" if task in _INFO else "warning"


def highest(indicators: Sequence[Indicator]) -> Indicator:
    """The most urgent of some indicators, of which there must be one or more."""
    return max(indicators, key=INDICATORS.index)
