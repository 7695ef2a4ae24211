"""Cards: the summary, the Markdown with the figures, and the reasons to override."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.manifest import Manifest
from service.interop.cds_hooks.card_ids import CardIds
from service.interop.cds_hooks.governance import CardContent, Finding
from service.interop.cds_hooks.models import Card, CardCoding, Link, Source, Suggestion

MAX_SUMMARY = 139  # characters: fewer than 140 (CDS Hooks, "Card Attributes")
_MAX_LISTED = 8
_REASONS_SYSTEM, _TASKS = "urn:m3h:override-reason", "urn:m3h:task"
OVERRIDE_REASONS = {
    "known": "Already known",
    "treated": "Already treated",
    "not-relevant": "Not relevant for this stay",
    "disagree": "I disagree with the estimate",
    "wrong-data": "The data are wrong or incomplete",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~-])")
_MODALITIES = {
    "tabular": "age, sex and admission",
    "series": "measurements and treatments",
    "notes": "notes",
    "image": "chest X-ray",
}
_DISCLAIMER = "An estimate of a statistical model, not a diagnosis."


@dataclass(frozen=True)
class Surroundings:
    """What all cards of a response share.

    `receipt`: of the answer. `incomplete`: prefetch keys of which one page was sent. `over_limit`:
    tasks above their point for which there was no place. `abstained`: tasks without a prediction.
    """

    receipt: Mapping[str, Any]
    incomplete: Sequence[str]
    over_limit: Sequence[str]
    abstained: Sequence[str]


class CardBuilder:
    """Builds the cards of one bundle. `url`: of the service, for links; None without links."""

    def __init__(self, manifest: Manifest, ids: CardIds, url: str | None) -> None:
        self._ids, self._url = ids, url
        self._label = f"M3H, {manifest.name} {manifest.version}"
        self._recalibration = manifest.recalibration
        self._reasons = tuple(
            CardCoding(code=code, system=_REASONS_SYSTEM, display=display)
            for code, display in OVERRIDE_REASONS.items()
        )

    def build(self, content: CardContent, surroundings: Surroundings) -> Card:
        """The card of a group."""
        url = self._url
        leading = content.group.tasks[0].task
        topic = CardCoding(code=leading.name, system=_TASKS, display=leading.display)
        link = None if url is None else Link(label="Dashboard", url=f"{url}/", type="absolute")
        return Card(
            uuid=self._ids.make(content),
            summary=summary(content.findings),
            detail="\n\n".join(self._paragraphs(content.findings, surroundings)),
            indicator=content.indicator,
            source=Source(
                label=self._label, url=None if url is None else f"{url}/model-card", topic=topic
            ),
            suggestions=(Suggestion(label="Reviewed", uuid=self._ids.make(content)),),
            selectionBehavior="at-most-one",
            overrideReasons=self._reasons,
            links=None if link is None else (link,),
        )

    def _paragraphs(self, findings: Sequence[Finding], surroundings: Surroundings) -> list[str]:
        receipt = surroundings.receipt
        paragraphs = [
            _table(findings),
            "\n".join(f"- {_escaped(f.prediction['means'])}" for f in findings),
            _thresholds(findings),
            _basis(findings, receipt),
            self._calibration(),
        ]
        if surroundings.incomplete:
            keys = ", ".join(surroundings.incomplete)
            paragraphs.append(f"Only the first page was sent of: {keys}.")
        paragraphs += [f"Caution: {_escaped(warning)}." for warning in receipt["warnings"]]
        if surroundings.over_limit:
            names = _listed(surroundings.over_limit)
            paragraphs.append(f"Also above the threshold, without a card: {names}.")
        if surroundings.abstained:
            names = _listed(surroundings.abstained)
            paragraphs.append(f"Not predicted for this patient: {names}.")
        return [*paragraphs, _DISCLAIMER]

    def _calibration(self) -> str:
        known = self._recalibration
        if known is None:
            return (
                "**Not recalibrated for this hospital:** the probabilities and thresholds are those"
                " of the training hospitals and may be too high or too low here."
            )
        cohort = _escaped(known.cohort)
        return (
            f"Recalibrated with {known.patients} patients of {cohort}. The thresholds are those of "
            "the training hospitals."
        )


def summary(findings: Sequence[Finding]) -> str:
    """One sentence of fewer than 140 characters. Findings that do not fit are counted."""
    displays = (" ".join(f.served.task.display.split()) for f in findings)
    parts = [f"{d} {_percent(f.probability)}" for d, f in zip(displays, findings, strict=True)]
    for shown in range(len(parts), 0, -1):
        more = len(parts) - shown
        tail = f" and {more} more" if more else ""
        text = f"{', '.join(parts[:shown])}{tail}: above the alert threshold"
        if len(text) <= MAX_SUMMARY:
            return text
    return f"{parts[0][: MAX_SUMMARY - 30]}…: above the alert threshold"


def _table(findings: Sequence[Finding]) -> str:
    rows = [
        "| condition | probability | interval | prevalence | threshold |",
        "|---|---|---|---|---|",
    ]
    for finding in findings:
        interval, prevalence = (finding.prediction.get(k) for k in ("interval", "prevalence"))
        cells = [
            _escaped(finding.served.task.display),
            f"**{_percent(finding.probability)}**",
            "not known"
            if interval is None
            else f"{_percent(interval['low'])} to {_percent(interval['high'])}",
            "not known" if prevalence is None else _percent(prevalence),
            _percent(finding.point.threshold),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _thresholds(findings: Sequence[Finding]) -> str:
    """The measured figures of each operating point; a conformal threshold has none."""
    lines = []
    for finding in findings:
        name, measured = _escaped(finding.served.task.display), finding.point.measured
        if measured is None:
            lines.append(
                f"- {name}: 90 % of the training patients without it score lower. Sensitivity and "
                "positive predictive value of this threshold were not measured."
            )
            continue
        figures = [
            f"sensitivity {_share(measured.sensitivity)}",
            f"positive predictive value {_share(measured.ppv)}",
            f"{_number(measured.alerts_per_100)} alerts per 100 patients",
        ]
        lines.append(f"- {name}, threshold in held-out patients: {', '.join(figures)}.")
    return "\n".join(lines)


def _basis(findings: Sequence[Finding], receipt: Mapping[str, Any]) -> str:
    """The inputs of the findings, without those that have no influence on any prediction."""
    used = {modality: None for f in findings for modality in f.prediction["based_on"]}
    text = f"Rests on: {', '.join(_MODALITIES[modality] for modality in used)}."
    not_learned = receipt.get("not_learned") or {}
    read = {
        "variables": [part["variable"] for part in receipt["used"]],
        "treatments": receipt["treatments"],
    }
    for kind, label in (("variables", "Measurements"), ("treatments", "Treatments")):
        names = [name for name in read[kind] if name not in not_learned.get(kind, ())]
        if "series" in used and names:
            text += f" {label}: {_listed(names)}."
    return text


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_escaped(name.replace("_", " ")) for name in names[:_MAX_LISTED])
    more = len(names) - _MAX_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def _percent(share: float) -> str:
    """A probability in percent: whole, or with a decimal below ten."""
    percent = 100 * share
    if percent < 0.1:
        return "below 0.1 %"
    return f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"


def _share(value: float | None) -> str:
    return "not known" if value is None else _percent(value)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _escaped(text: str) -> str:
    """The text without meaning for Markdown."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
