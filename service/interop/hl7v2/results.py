"""Predictions as OBR and OBX segments (HL7 v2.5.1, chapter 7.4)."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.interop.hl7v2.acknowledgement import SYSTEM
from service.interop.hl7v2.er7 import escaped
from service.interop.hl7v2.record import Record

_TIME = "%Y%m%d%H%M%S%z"
_NO_UNIT = "1^no units^UCUM"
_MAX_NOTES = 100


def result_segments(answer: Mapping[str, Any], record: Record) -> Iterator[str]:
    """The results of an answer: an OBR, comments, and OBX segments for each task.

    OBX-4 (sub-id) distinguishes the parts of a task: the number, the interval, each outcome.
    """
    time = record.as_of.strftime(_TIME)
    model = answer["model"]
    method = "^".join((escaped(model["name"]), f"{escaped(model['name'])} {model['version']}"))
    method = f"{method}^{SYSTEM}"
    service = f"predictions^Predictions by a statistical model^{SYSTEM}"
    yield f"OBR|1|||{service}|||{time}||||||||||||||||||P"
    for number, text in enumerate(_comments(answer, record), 1):
        yield f"NTE|{number}|L|{escaped(text)}"
    number = 0
    for prediction in answer["predictions"]:
        code = f"{escaped(prediction['task'])}^{escaped(prediction['display'])}^{SYSTEM}"
        for kind, part, value, unit, status in _parts(prediction):
            number += 1
            yield (
                f"OBX|{number}|{kind}|{code}|{escaped(part)}|{value}|{unit}|||||{status}|||{time}"
                f"|||{method}"
            )
        if "abstained" in prediction:
            yield f"NTE|1|L|{escaped(prediction['abstained']['reason'])}"


def _parts(prediction: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Value type, sub-id, value, unit and status of each OBX of a task.

    P: preliminary, since no one has confirmed the result. X: no result can be obtained.
    """
    if "abstained" in prediction:
        yield "", "", "", "", "X"
        return
    unit = escaped(prediction["unit"]) if prediction.get("unit") else _NO_UNIT
    for name in ("probability", "value", "cluster"):
        if name in prediction:
            yield "NM", name, _number(prediction[name]), unit, "P"
    for outcome, probability in (prediction.get("probabilities") or {}).items():
        yield "NM", f"probability {outcome}", _number(probability), _NO_UNIT, "P"
    interval = prediction.get("interval")
    if interval is not None:
        ends = f"^{_number(interval['low'])}^-^{_number(interval['high'])}"
        yield "SN", "interval", ends, unit, "P"


def _number(value: float) -> str:
    """A number without an exponent, as NM demands (chapter 2.A.47)."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def _comments(answer: Mapping[str, Any], record: Record) -> Iterator[str]:
    """The receipt as comments: warnings, assumptions, and parts that were not used."""
    receipt = answer["receipt"]
    yield from receipt["warnings"]
    for detail, places in record.assumed.items():
        yield f"{_list(places)}: {detail}"
    for (reason, detail), places in record.not_read.items():
        yield f"{_list(places)}: not read ({reason}): {detail}"
    for entry in receipt["ignored"][:_MAX_NOTES]:
        places = record.places(entry["pointer"])
        yield f"{_list(places)}: not used ({entry['reason']}): {entry['detail']}"


def _list(places: list[str]) -> str:
    """The first locations in the usual short form: OBX[3]-5."""
    parts = (place.split("^") for place in places[:5])
    shown = ", ".join(f"{name}[{number}]{'-'.join(['', *field])}" for name, number, *field in parts)
    return shown if len(places) <= 5 else f"{shown} and {len(places) - 5} more"


def receipt_with_locations(answer: dict[str, Any], record: Record) -> dict[str, Any]:
    """The native answer with locations of the message instead of JSON Pointers.

    `not_read` and `assumed` of the receipt list what the payload does not hold.
    """
    receipt = answer["receipt"]
    for name in ("converted", "read_as", "merged", "ignored"):
        for entry in receipt[name]:
            if "pointer" in entry:
                pointers = [entry["pointer"], *entry.get("pointers", ())]
                entry["pointer"] = _first(record.places(entry["pointer"]))
            else:
                pointers = entry["pointers"]
            if len(pointers) > 1 or "pointers" in entry:
                places = (place for pointer in pointers for place in record.places(pointer))
                entry["pointers"] = [*dict.fromkeys(places)][:_MAX_NOTES]
    receipt["not_read"] = [
        {"pointer": places[0], "pointers": places[:_MAX_NOTES], "reason": reason, "detail": detail}
        for (reason, detail), places in record.not_read.items()
    ]
    receipt["assumed"] = [
        {"pointer": places[0], "pointers": places[:_MAX_NOTES], "detail": detail}
        for detail, places in record.assumed.items()
    ]
    return answer


def _first(places: list[str]) -> str:
    return places[0] if places else "MSH^1"
