"""The end of making a bundle: model card, golden answers, the digest of each file, its place."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.model_card import model_card
from schemas.features import features
from schemas.manifest import GOLDEN, MANIFEST, Manifest, sha256, write_manifest
from schemas.payload import Payload
from schemas.tim import TIM, Tim
from service.runtime.bundle import MODEL_CARD, Bundle
from service.runtime.engine import Engine


def seal(made: Path, manifest: Manifest, golden: Mapping[str, Payload] | None, folder: Path) -> str:
    """Completes the bundle in `made`, moves it to `folder`, and returns its digest.

    Golden requests are answered by the engine that serves, so that each start proves that the
    bundle still says what it said; without any, the answers in `made` stay. What was at `folder` is
    there until all is written.
    """
    tim = made / TIM
    found = Tim.model_validate_json(tim.read_bytes()) if tim.is_file() else None
    (made / MODEL_CARD).write_text(model_card(manifest, found), encoding="utf-8")
    if golden is not None:
        (made / GOLDEN).unlink(missing_ok=True)
        state(made, manifest)
        _write_golden(made, golden)
    digest = state(made, manifest)
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
    return digest


def state(made: Path, manifest: Manifest) -> str:
    """Writes the manifest with the digests of the files that are there; returns its own."""
    files = {p.name: sha256(p.read_bytes()) for p in sorted(made.iterdir())}
    files.pop(MANIFEST, None)
    return write_manifest(made, manifest.model_copy(update={"files": files}))


def _write_golden(bundle: Path, requests: Mapping[str, Payload]) -> None:
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
