"""Feature extraction: from a payload to arrays, in training and in serving.

`extract_features(payload, spec)` is a pure function. The spec comes from the bundle in serving and
from the cohort in training, so that both compute the same features.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from schemas.features.images.image_features import CHEST_XRAY, image_features, select_image
from schemas.features.input_report import InputReport
from schemas.features.notes.encoding import EncodedNote, encode_note, split_phrases
from schemas.features.notes.note_features import note_features, notes_in_window
from schemas.features.notes.plain_text import PlainText, to_plain_text
from schemas.features.receipt import build_receipt
from schemas.features.series import series_features
from schemas.features.spec import (
    NUMERIC_TABULAR,
    STATISTICS,
    TREATMENT_FEATURES,
    Array,
    FeatureSpec,
    Floats,
)
from schemas.features.tabular import tabular_features
from schemas.features.time_limit import no_time_limit
from schemas.payload import InvalidPayload, Payload
from schemas.response import MODALITIES, Modality, ModalityUse, Receipt

__all__ = [
    "CHEST_XRAY",
    "NUMERIC_TABULAR",
    "STATISTICS",
    "TREATMENT_FEATURES",
    "Array",
    "EncodedNote",
    "FeatureSpec",
    "Features",
    "Floats",
    "PlainText",
    "collate",
    "encode_note",
    "extract_features",
    "no_time_limit",
    "notes_in_window",
    "select_image",
    "split_phrases",
    "to_plain_text",
]


@dataclass(frozen=True)
class Features:
    """The arrays of each present modality, by input name of its graph, and the receipt."""

    arrays: dict[Modality, dict[str, Array]]
    receipt: Receipt


def extract_features(
    payload: Payload,
    spec: FeatureSpec,
    known: Container[Modality] = (),
    *,
    check: Callable[[], None] = no_time_limit,
    encode: Callable[[str], EncodedNote] | None = None,
) -> Features:
    """Computes the arrays and the receipt of a payload.

    `known`: modalities (notes, image) whose embeddings the caller has cached. They have no arrays,
    but the receipt is the same. `check` is called between steps; an exception that it raises ends
    the extraction. `encode` replaces `encode_note`, for callers that cache its results.

    Raises InvalidPayload: an image cannot be decoded, an image is too large, or the notes are too
    long.
    """
    encode = encode or partial(encode_note, spec=spec, check=check)
    report = InputReport()
    arrays: dict[Modality, dict[str, Array]] = {}
    extractors: dict[Modality, Callable[..., dict[str, Array] | None]] = {
        "tabular": tabular_features,
        "series": series_features,
        "notes": partial(note_features, read="notes" not in known, encode=encode),
        "image": partial(image_features, read="image" not in known),
    }
    for modality in MODALITIES:
        check()
        extracted = extractors[modality](payload, spec, report)
        if extracted is not None:
            arrays[modality] = extracted
    if report.errors:
        raise InvalidPayload(report.errors)
    uses = {m: ModalityUse(status="used" if m in arrays else "absent") for m in MODALITIES}
    unusual = {m: warning for m, warning in report.out_of_distribution.items() if m in arrays}
    uses |= {m: ModalityUse(status="used", unusual=1.0) for m in unusual}
    report.warnings += unusual.values()
    return Features(arrays, build_receipt(report, uses))


def collate(samples: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Stacks the arrays of one modality to [batch, ...]. Tokens are padded with 0 at the end."""
    batch: dict[str, Array] = {}
    for name in samples[0]:
        rows = [sample[name] for sample in samples]
        if name == "tokens":
            width = max(map(len, rows))
            rows = [np.pad(row, (0, width - len(row))) for row in rows]
        batch[name] = np.stack(rows)
    return batch
