"""The Bundle that answers a request: outcomes, Device, Provenance, model card and receipt."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.manifest import Manifest
from schemas.response import MODALITIES, Modality
from service.interop.fhir.answer import labels
from service.interop.fhir.answer.outcomes import Context, Fields, TaskCodes, outcome_resource
from service.interop.fhir.answer.receipt import PlacedReceipt
from service.interop.fhir.operation_outcome import operation_outcome
from service.interop.fhir.request import FhirRequest

MAX_BASIS = 50  # references of one resource; more are in a List that it references
_CARD_TYPE = {"system": labels.AI_INPUTS, "code": "AIModelCard", "display": "AI Model-Card"}
_CARD_FORMAT = {
    "system": labels.AI_INPUTS,
    "code": "AIModelCardMarkdownFormat",
    "display": "Markdown Format",
}


class AnswerBuilder:
    """Builds the Bundles of one model.

    `card_url`: where the service publishes the model card. `card`: its content; None without one.
    """

    def __init__(self, manifest: Manifest, card: bytes | None, card_url: str) -> None:
        self._tasks = [TaskCodes.of(served.task) for served in manifest.tasks]
        self._card = None if card is None else _model_card(card, card_url)

    def build(self, answer: Mapping[str, Any], request: FhirRequest) -> Fields:
        """The Bundle for an answer (`schemas.response.Answer` as a dictionary)."""
        urls = _Urls(answer["id"])
        receipt = PlacedReceipt(answer["receipt"], request.record)
        inputs = _Inputs(receipt, request, urls)
        context = _context(answer, request, urls, inputs)
        outcomes = [
            (urls.of(codes.task.name), outcome_resource(prediction, codes, context))
            for prediction, codes in zip(answer["predictions"], self._tasks, strict=True)
        ]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entries = [
            *outcomes,
            (urls.of("device"), self._device(answer["model"], urls)),
            (urls.of("provenance"), self._provenance(outcomes, urls, inputs, now)),
            (urls.of("receipt"), operation_outcome(receipt.issues())),
            *inputs.lists(context.subject, now),
        ]
        if self._card is not None:
            entries.append((urls.of("model-card"), self._card))
        return {
            "resourceType": "Bundle",
            "id": answer["id"],
            "meta": labels.AI_META,
            "type": "collection",
            "timestamp": now,
            "entry": [{"fullUrl": url, "resource": resource} for url, resource in entries],
        }

    def _device(self, model: Mapping[str, str], urls: "_Urls") -> Fields:
        """The model as a Device (FHIR R4, section 8.9)."""
        kind = {"system": labels.AI_DEVICE_TYPES, "code": "Machine-Learning-Models"}
        extensions: list[Fields] = [
            {
                "url": labels.AI_KIND,
                "valueCodeableConcept": {"coding": [kind]},
            }
        ]
        if self._card is not None:
            extensions.append(
                {
                    "url": labels.MODEL_CARD,
                    "valueReference": urls.reference("model-card"),
                }
            )
        device: Fields = {
            "resourceType": "Device",
            "extension": extensions,
            "identifier": [{"system": labels.DIGEST, "value": model["digest"]}],
            "status": "active",
            "deviceName": [{"name": model["name"], "type": "model-name"}],
            "type": {"coding": [labels.ARTIFICIAL_INTELLIGENCE]},
            "version": [{"value": model["version"]}],
        }
        if "recalibrated_by" in model:
            device["note"] = [{"text": f"recalibrated by {model['recalibrated_by']}"}]
        return device

    def _provenance(
        self,
        outcomes: Sequence[tuple[str, Fields]],
        urls: "_Urls",
        inputs: "_Inputs",
        now: str,
    ) -> Fields:
        """The Provenance of all outcomes (FHIR R4, section 6.3)."""
        entities = [{"role": "source", "what": what} for what in inputs.all()]
        if self._card is not None:
            entities.append({"role": "derivation", "what": urls.reference("model-card")})
        provenance: Fields = {
            "resourceType": "Provenance",
            "meta": labels.AI_META,
            "target": [{"reference": url} for url, _ in outcomes],
            "recorded": now,
            "reason": [{"coding": [labels.AIAST]}],
            "agent": [
                {
                    "type": {
                        "coding": [
                            {
                                "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                                "code": "author",
                            }
                        ]
                    },
                    "role": [{"coding": [labels.ARTIFICIAL_INTELLIGENCE]}],
                    "who": urls.reference("device"),
                }
            ],
        }
        if entities:
            provenance["entity"] = entities
        return provenance


class _Urls:
    """The fullUrl of each resource of an answer: its UUID with a number as the last group."""

    def __init__(self, answer_id: str) -> None:
        self._head = f"urn:uuid:{answer_id[:-12]}"  # its last group has 12 digits
        self._numbers: dict[str, int] = {}

    def of(self, name: str) -> str:
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        return f"{self._head}{number:012x}"

    def reference(self, name: str) -> Fields:
        return {"reference": self.of(name)}


class _Inputs:
    """The references to the used resources, for each set of modalities."""

    def __init__(self, receipt: PlacedReceipt, request: FhirRequest, urls: _Urls) -> None:
        self._entries, self._used, self._urls = request.entries, receipt.used_entries(), urls
        self._references: dict[tuple[Modality, ...], list[Fields]] = {}
        self._lists: dict[tuple[Modality, ...], list[Fields]] = {}

    def of(self, modalities: Sequence[Modality]) -> list[Fields]:
        """The inputs of some modalities; a reference to a List of them if they are many."""
        present = tuple(m for m in modalities if self._used[m])
        if present not in self._references:
            distinct = dict.fromkeys(i for m in present for i in self._used[m])
            references = [*map(self._entries.reference_of, distinct)]
            if len(references) > MAX_BASIS:
                self._lists[present] = references
                references = [self._urls.reference(f"inputs {' '.join(present)}")]
            self._references[present] = references
        return self._references[present]

    def all(self) -> list[Fields]:
        return self.of(MODALITIES)

    def lists(self, subject: Fields, now: str) -> Iterator[tuple[str, Fields]]:
        """The Lists that other resources reference (FHIR R4, section 4.1)."""
        for modalities, references in self._lists.items():
            yield (
                self._urls.of(f"inputs {' '.join(modalities)}"),
                {
                    "resourceType": "List",
                    "status": "current",
                    "mode": "snapshot",
                    "title": f"Inputs of the prediction: {', '.join(modalities)}",
                    "subject": subject,
                    "date": now,
                    "entry": [{"item": reference} for reference in references],
                },
            )


def _context(
    answer: Mapping[str, Any], request: FhirRequest, urls: _Urls, inputs: _Inputs
) -> Context:
    record, entries, model = request.record, request.entries, answer["model"]
    stay = record.stay
    distinct = dict.fromkeys(tuple(part["based_on"]) for part in answer["predictions"])
    return Context(
        subject=entries.patient_reference(),
        encounter=None if stay is None else entries.reference_of(stay[0]),
        device=urls.reference("device"),
        method=f"{model['name']} {model['version']}",
        as_of=record.as_of.isoformat(),
        stay_start=(record.as_of if stay is None else stay[1]).isoformat(),
        basis={modalities: inputs.of(modalities) for modalities in distinct},
    )


def _model_card(card: bytes, url: str) -> Fields:
    """The model card as a DocumentReference with a link, its size and its SHA-1 (section 2.42)."""
    digest = hashlib.sha1(card, usedforsecurity=False).digest()
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "type": {"coding": [_CARD_TYPE]},
        "category": [{"coding": [_CARD_FORMAT]}],
        "content": [
            {
                "attachment": {
                    "contentType": "text/markdown",
                    "url": url,
                    "size": len(card),
                    "hash": base64.b64encode(digest).decode(),
                    "title": "Model card",
                }
            }
        ],
    }
