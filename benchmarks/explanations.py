"""Cost and faithfulness of explanations, for patients of the MIMIC-IV demo.

Cost: median time from request bytes to response bytes on one thread, without cache. The kind
`again` uses the cache: notes and X-ray stay the same, a vital sign changes. The levels of
explanation alternate for each request.

Faithfulness: the change of a prediction after the removal of all parts that `explain=full` names,
compared with the removal of as many random parts. Patients at 24 h, unseen by the model; 95 %
intervals of 2,000 paired bootstraps over patients.

    python benchmarks/explanations.py --data ../shared/data
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic_core import to_json

sys.path.insert(0, str(Path(__file__).parent / "serving"))
import payloads
from reference_model import Model

from model.cohorts import mimic_iv
from schemas.features import extract_features
from schemas.payload import Payload, Tabular
from service.runtime.bundle import Bundle

KINDS = ("vitals", "series", "notes", "all", "again")
REQUESTS, ROUNDS = 48, 3
RANDOM_DRAWS = 10  # per task and patient
LEVELS = ("none", "default", "full")


# ---- cost ----------------------------------------------------------------------------------------


def cost(bundle: Bundle, data: Path) -> Iterable[str]:
    """Yields the lines of a table."""
    yield "| request | no explanation | default explanation | full explanation |"
    yield "|---|---|---|---|"
    with TemporaryDirectory() as folder:
        payloads.write(data, Path(folder))
        for kind in KINDS:
            bodies = [p.read_bytes() for p in sorted((Path(folder) / kind).iterdir())[:REQUESTS]]
            model = Model(bundle, cache_bytes=2**28 if kind == "again" else 0)
            seconds: dict[str, list[float]] = defaultdict(list)
            for number in range(ROUNDS * len(bodies)):
                body = bodies[number % len(bodies)]
                for turn in range(len(LEVELS)):
                    explain = LEVELS[(number + turn) % len(LEVELS)]
                    digits = b"%05d" % ((number * len(LEVELS) + turn) % 100_000)
                    content = body.replace(payloads.CHANGING, digits) if kind == "again" else body
                    start = time.perf_counter()
                    model.answer(content, explain)
                    seconds[explain].append(time.perf_counter() - start)
            base, *others = (1000 * statistics.median(seconds[level]) for level in LEVELS)
            ratios = " | ".join(f"{ms:.1f} ms, {ms / base:.2f} times" for ms in others)
            yield f"| {kind} | {base:.1f} ms | {ratios} |"


# ---- faithfulness --------------------------------------------------------------------------------


def remove_parts(payload: Payload, parts: Sequence[Mapping[str, Any]]) -> Payload:
    """Returns the payload without the parts of an explanation."""
    tabular = {name: value for name, value in payload.tabular or Tabular() if value is not None}
    removed: dict[str, set[int]] = defaultdict(set)
    for part in parts:
        for pointer in part["pointers"]:
            field, name = pointer.split("/")[1:3]
            if field == "tabular":
                tabular.pop(name)
            else:
                removed[field].add(int(name))
    remaining: dict[str, Any] = {
        field: [item for i, item in enumerate(getattr(payload, field)) if i not in removed[field]]
        for field in ("series", "treatments", "images")
    }
    remaining["tabular"] = Tabular.model_construct(**tabular) if tabular else None
    return payload.model_copy(update=remaining)


class Patients:
    """The MIMIC-IV patients at 24 h, and the changes of their predictions."""

    def __init__(self, model: Model, data: Path) -> None:
        self.model = model
        self.payloads: dict[str, Payload] = {}
        for record in mimic_iv.read(data):
            if record.landmark_hours == 24:
                self.payloads.setdefault(record.patient, record.payload)

    def probability(self, payload: Payload, task: str) -> float:
        manifest = self.model.engine.bundle.manifest
        arrays = extract_features(payload, manifest.spec).arrays
        facts = next(facts for facts in manifest.tasks if facts.task.name == task)
        return float(self.model.engine.run([arrays])[0].fusion[facts.output][facts.column])

    def changes(self, payload: Payload, draw: np.random.Generator) -> np.ndarray:
        """Returns the mean change after the removal of named and of random parts, shape [2]."""
        content = to_json(payload)
        prepared = self.model.prepare(content, "full")
        parts = [ablation.part for ablation in prepared.ablations]
        answer = json.loads(self.model.answer(content, "full"))
        changes = []
        for explained in answer["explanation"]["variables"]:
            task, named = explained["task"], explained["because"]
            complete = self.probability(payload, task)
            random = (
                [parts[i] for i in draw.choice(len(parts), len(named), replace=False)]
                for _ in range(RANDOM_DRAWS)
            )
            change, *random_changes = (
                abs(complete - self.probability(remove_parts(payload, removed), task))
                for removed in chain([named], random)
            )
            changes.append((change, np.mean(random_changes)))
        return np.mean(changes, axis=0)


def faithfulness(bundle: Bundle, data: Path) -> Iterable[str]:
    """Yields lines with the mean changes and their difference."""
    draw = np.random.default_rng(0)
    patients = Patients(Model(bundle), data)
    pairs = np.array([patients.changes(payload, draw) for payload in patients.payloads.values()])
    difference = pairs[:, 0] - pairs[:, 1]
    boots = [difference[draw.integers(len(pairs), size=len(pairs))].mean() for _ in range(2000)]
    low, high = np.quantile(boots, [0.025, 0.975])
    yield f"{len(pairs)} patients, three tasks each, up to five parts per task."
    yield f"Mean change of a probability without the named parts: {pairs[:, 0].mean():.4f};"
    yield f"without as many random parts: {pairs[:, 1].mean():.4f};"
    yield f"difference {difference.mean():.4f} [{low:.4f}, {high:.4f}],"
    yield f"positive for {(difference > 0).mean():.3f} of the patients."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle, "cpu", threads=1)
    for line in (*cost(bundle, arguments.data), "", *faithfulness(bundle, arguments.data)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
