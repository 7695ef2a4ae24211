"""The parts of a request that occlusion removes."""

from functools import partial
from typing import Any

from schemas.features import encode_note, extract_features
from schemas.payload import as_payload
from service.prediction.explanation.occlusion import Ablation, ablations
from service.runtime.bundle import Bundle


def find_parts(payload: dict[str, Any], bundle: Bundle) -> tuple[list[Ablation], Any]:
    read = as_payload(payload)
    arrays = extract_features(read, bundle.manifest.spec).arrays
    spec = bundle.manifest.spec
    return ablations(read, arrays, spec, partial(encode_note, spec=spec)), arrays


def remove_part(payload: dict[str, Any], part: Ablation) -> dict[str, Any]:
    """The request without the part."""
    payload = {**payload}
    fields = part.part
    if fields["kind"] == "note":
        number = int(fields["pointers"][0].split("/")[2])
        text = payload["notes"][number]["text"]
        text = text[: fields["start"]] + text[fields["end"] :]
        rest = [{**payload["notes"][number], "text": text}] if text.strip() else []
        payload["notes"] = payload["notes"][:number] + rest + payload["notes"][number + 1 :]
        return payload
    for pointer in fields["pointers"]:
        _, field, name = pointer.split("/")
        if field == "tabular":
            payload["tabular"] = {k: v for k, v in payload["tabular"].items() if k != name}
    removed = {int(p.split("/")[2]) for p in fields["pointers"] if not p.startswith("/tabular")}
    if removed:
        field = fields["pointers"][0].split("/")[1]
        payload[field] = [entry for i, entry in enumerate(payload[field]) if i not in removed]
    return payload
