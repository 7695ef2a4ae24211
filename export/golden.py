"""Golden requests: what a bundle answers, kept in it, so that each start proves it still does."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from schemas.features import features
from schemas.manifest import GOLDEN
from schemas.payload import Payload
from service.bundle import Bundle
from service.engine import Engine


def write_golden(bundle: Path, requests: Mapping[str, Payload]) -> None:
    """Lines of golden.jsonl: a request, and the fusion's outputs as the engine runs it.

    How unusual the input is stays out: it decides of a warning alone, and is compared in `parity`.
    """
    loaded = Bundle.load(bundle)
    engine = Engine(loaded)
    lines = []
    for name, payload in requests.items():
        (outputs,) = engine.run([features(payload, loaded.manifest.spec).arrays])
        line = {
            "name": name,
            "request": payload.model_dump(mode="json", exclude_unset=True),
            "outputs": {key: np.asarray(value).tolist() for key, value in outputs.fusion.items()},
        }
        lines.append(json.dumps(line, separators=(",", ":")) + "\n")
    (bundle / GOLDEN).write_text("".join(lines), encoding="utf-8")
