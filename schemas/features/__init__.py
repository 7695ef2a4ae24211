"""From a payload to arrays: the only way, in training and in serving.

`features(payload, spec)` is pure. The spec comes from the bundle (or, in training, from the
cohort), so that a model is always fed as it was taught.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from schemas.features.images.image_features import CHEST_XRAY, film_read, image_features
from schemas.features.input_report import Ledger
from schemas.features.notes.encoding import NoteTokens, note_tokens, phrases_of, unlimited
from schemas.features.notes.note_features import note_features, notes_in_window
from schemas.features.notes.plain_text import NoteText, note_text
from schemas.features.receipt import receipt_of
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
from schemas.payload import InvalidPayload, Payload
from schemas.response import MODALITIES, Modality, ModalityUse, Receipt

__all__ = [
    "CHEST_XRAY",
    "NUMERIC_TABULAR",
    "STATISTICS",
    "TREATMENT_FEATURES",
    "Array",
    "FeatureSpec",
    "Features",
    "Floats",
    "NoteText",
    "NoteTokens",
    "features",
    "film_read",
    "note_text",
    "note_tokens",
    "notes_in_window",
    "phrases_of",
    "stack",
    "unlimited",
]


@dataclass(frozen=True)
class Features:
    """The arrays of each modality that is there, by the names of its graph's inputs."""

    arrays: dict[Modality, dict[str, Array]]
    receipt: Receipt


def features(
    payload: Payload,
    spec: FeatureSpec,
    known: Container[Modality] = (),
    *,
    check: Callable[[], None] = unlimited,
    encode: Callable[[str], NoteTokens] | None = None,
) -> Features:
    """Arrays and receipt of a payload.

    `known`: notes or images whose very content was read before. They are not read again: they have
    no arrays, and the same receipt. `check` is called now and then; what it raises ends the
    reading. `encode`: for who keeps what `note_tokens` says of a text.

    Raises InvalidPayload for a unit that cannot be converted, a rate or a series without the unit
    that it needs, and an image that cannot be read or is too large.
    """
    encode = encode or partial(note_tokens, spec=spec, check=check)
    ledger = Ledger({}, {}, [], [], [], [], [])
    arrays: dict[Modality, dict[str, Array]] = {}
    readers: dict[Modality, Callable[..., dict[str, Array] | None]] = {
        "tabular": tabular_features,
        "series": series_features,
        "notes": partial(note_features, read="notes" not in known, encode=encode),
        "image": partial(image_features, read="image" not in known),
    }
    for modality in MODALITIES:
        check()
        found = readers[modality](payload, spec, ledger)
        if found is not None:
            arrays[modality] = found
    if ledger.errors:
        raise InvalidPayload(ledger.errors)
    uses = {m: ModalityUse(status="used" if m in arrays else "absent") for m in MODALITIES}
    unlike = {m: warning for m, warning in ledger.unlike.items() if m in arrays}
    uses |= {m: ModalityUse(status="used", unusual=1.0) for m in unlike}
    ledger.warnings += unlike.values()
    return Features(arrays, receipt_of(ledger, uses))


def stack(samples: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """One batch of one modality: [batch, ...]. Token lists are padded with 0 at the end."""
    batch: dict[str, Array] = {}
    for name in samples[0]:
        rows = [sample[name] for sample in samples]
        if name == "tokens":
            width = max(map(len, rows))
            rows = [np.pad(row, (0, width - len(row))) for row in rows]
        batch[name] = np.stack(rows)
    return batch
