"""The last steps of a bundle: model card, golden answers, digests of the files, move into place."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.behaviour import BehaviourGate
from export.card.model_card import model_card
from model.evaluation.behaviour.summary import shortened
from schemas.features import extract_features
from schemas.manifest import GOLDEN, MANIFEST, Manifest, sha256, write_manifest
from schemas.payload import Payload
from schemas.tim import TIM, Tim
from service.runtime.bundle import MODEL_CARD, Bundle
from service.runtime.engine import Engine

MANIFEST_ROWS = 25  # the worst expectations, in the manifest and in the model card


def finalize(
    partial: Path,
    manifest: Manifest,
    golden: Mapping[str, Payload] | None,
    folder: Path,
    gate: BehaviourGate | None = None,
) -> str:
    """Completes the bundle in `partial`, moves it to `folder`, and returns its digest.

    The serving engine computes the answers of the golden requests, so that each start can prove
    that the bundle still gives them. With `golden` None, the answers in `partial` stay. With a
    `gate`, the manifest gets the behaviour of the bundle; without one, nothing is judged. The old
    content of `folder` is replaced only when the new bundle is complete.

    Raises BehaviourError if the bundle does not pass the gate.
    """
    if gate is not None:
        write_digests(partial, manifest)
        behaviour = shortened(gate.judge(partial), MANIFEST_ROWS)
        evaluation = {**manifest.evaluation, "behaviour": behaviour}
        manifest = manifest.model_copy(update={"evaluation": evaluation})
    tim_file = partial / TIM
    tim = Tim.model_validate_json(tim_file.read_bytes()) if tim_file.is_file() else None
    (partial / MODEL_CARD).write_text(model_card(manifest, tim), encoding="utf-8")
    if golden is not None:
        (partial / GOLDEN).unlink(missing_ok=True)
        write_digests(partial, manifest)
        _write_golden(partial, golden)
    digest = write_digests(partial, manifest)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return digest


def write_digests(bundle: Path, manifest: Manifest) -> str:
    """Writes the manifest with the digests of the bundle's files; returns the manifest's digest."""
    files = {p.name: sha256(p.read_bytes()) for p in sorted(bundle.iterdir())}
    files.pop(MANIFEST, None)
    return write_manifest(bundle, manifest.model_copy(update={"files": files}))


def _write_golden(bundle: Path, requests: Mapping[str, Payload]) -> None:
    """Writes golden.jsonl: requests with the outputs of the fusion graph.

    `unusual` is not included: it only triggers a warning, and the parity check compares it.
    """
    loaded = Bundle.load(bundle)
    engine = Engine(loaded)
    lines = []
    for name, payload in requests.items():
        (outputs,) = engine.run([extract_features(payload, loaded.manifest.spec).arrays])
        line = {
            "name": name,
            "request": payload.model_dump(mode="json", exclude_unset=True),
            "outputs": {key: np.asarray(value).tolist() for key, value in outputs.fusion.items()},
        }
        lines.append(json.dumps(line, separators=(",", ":")) + "\n")
    (bundle / GOLDEN).write_text("".join(lines), encoding="utf-8")
