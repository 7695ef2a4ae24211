"""What an explanation costs, and whether it is faithful. Patients of the MIMIC-IV demo.

Cost: one thread, from the bytes of a request to those of its answer, nothing kept (`again`: notes
and X-ray are kept, a vital sign is another each time); medians, the three in turn for each request.
Faithful: what `explain=full` names is left out of the request, all of it together, and so is as
much that was drawn at random; by how much the number moves, over patients at 24 h. The model never
learned from them. In brackets 95 % intervals of 2,000 bootstraps over patients, paired.

    python benchmarks/explanations.py --data ../shared/data
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic_core import to_json

sys.path.insert(0, str(Path(__file__).parent / "serving"))
import payloads

from model.cohorts import mimic_iv
from schemas.features import features
from schemas.payload import Payload, Tabular
from service.cache.embedding_cache import Cache
from service.prediction import occlusion
from service.prediction.predictor import Job, Options, Predictor
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.telemetry.metrics import Metrics

KINDS = ("vitals", "series", "notes", "all", "again")
REQUESTS, ROUNDS = 48, 3
RANDOM = 10  # draws for each task of each patient
EXPLAIN = ("none", "default", "full")


@dataclass(frozen=True)
class Service:
    """The service without HTTP."""

    engine: Engine
    predictor: Predictor

    @classmethod
    def of(cls, bundle: Bundle, cache_bytes: int) -> "Service":
        engine, metrics = Engine(bundle), Metrics()
        return cls(engine, Predictor(engine, Cache(cache_bytes, None, metrics), metrics))

    def answer(self, body: bytes, explain: Any) -> bytes:
        prepared = [self.predictor.prepare(Job(body, Options(explain=explain)))]
        (answer,) = self.predictor.run(prepared)
        self.predictor.count(prepared)
        return answer


# ---- cost ----------------------------------------------------------------------------------------


def cost(bundle: Bundle, data: Path) -> Iterable[str]:
    """Lines of a table."""
    yield "| request | prediction alone | with the default explanation | with the full one |"
    yield "|---|---|---|---|"
    with TemporaryDirectory() as folder:
        payloads.make(data, Path(folder))
        for kind in KINDS:
            bodies = [p.read_bytes() for p in sorted((Path(folder) / kind).iterdir())[:REQUESTS]]
            service = Service.of(bundle, 0 if kind != "again" else 2**28)
            took: dict[str, list[float]] = defaultdict(list)
            for number in range(ROUNDS * len(bodies)):
                body = bodies[number % len(bodies)]
                for turn in range(len(EXPLAIN)):
                    explain = EXPLAIN[(number + turn) % len(EXPLAIN)]
                    changed = b"%05d" % ((number * len(EXPLAIN) + turn) % 100_000)
                    sent = body.replace(payloads.CHANGING, changed) if kind == "again" else body
                    began = time.perf_counter()
                    service.answer(sent, explain)
                    took[explain].append(time.perf_counter() - began)
            alone, *others = (statistics.median(took[explain]) * 1000 for explain in EXPLAIN)
            ratios = " | ".join(f"{one:.1f} ms, {one / alone:.2f} times" for one in others)
            yield f"| {kind} | {alone:.1f} ms | {ratios} |"


# ---- faithful ------------------------------------------------------------------------------------


def without(payload: Payload, parts: Sequence[Mapping[str, Any]]) -> Payload:
    """The request as it would be if nobody knew these parts."""
    tabular = {name: value for name, value in payload.tabular or Tabular() if value is not None}
    gone: dict[str, set[int]] = defaultdict(set)
    for part in parts:
        for pointer in part["pointers"]:
            field, name = pointer.split("/")[1:3]
            if field == "tabular":
                tabular.pop(name)
            else:
                gone[field].add(int(name))
    kept: dict[str, Any] = {
        field: [one for i, one in enumerate(getattr(payload, field)) if i not in gone[field]]
        for field in ("series", "treatments", "images")
    }
    kept["tabular"] = Tabular.model_construct(**tabular) if tabular else None
    return payload.model_copy(update=kept)


def faithful(bundle: Bundle, data: Path) -> Iterable[str]:
    """Lines that tell by how much numbers move."""
    service, draw = Service.of(bundle, 0), np.random.default_rng(0)
    patients: dict[str, tuple[Payload, Any]] = {}
    for record in mimic_iv.read(data):
        if record.landmark_hours == 24 and record.patient not in patients:
            patients[record.patient] = (
                record.payload,
                json.loads(service.answer(to_json(record.payload), "full")),
            )

    def probability(payload: Payload, task: str) -> float:
        arrays = features(payload, bundle.manifest.spec).arrays
        facts = next(facts for facts in bundle.manifest.tasks if facts.task.name == task)
        return float(service.engine.run([arrays])[0].fusion[facts.output][facts.column])

    moved = []
    for payload, answer in patients.values():
        arrays = features(payload, bundle.manifest.spec).arrays
        every = [part.fields for part in occlusion.parts(payload, arrays, bundle.manifest.spec)]
        of_patient = []
        for told in answer["explanation"]["variables"]:
            task, count = told["task"], len(told["because"])
            whole = probability(payload, task)
            named = abs(whole - probability(without(payload, told["because"]), task))
            at_random = [
                abs(whole - probability(without(payload, some), task))
                for some in (
                    [every[i] for i in draw.choice(len(every), count, replace=False)]
                    for _ in range(RANDOM)
                )
            ]
            of_patient.append((named, float(np.mean(at_random))))
        moved.append(np.mean(of_patient, axis=0))
    pairs = np.array(moved)
    difference = pairs[:, 0] - pairs[:, 1]
    boots = [difference[draw.integers(len(pairs), size=len(pairs))].mean() for _ in range(2000)]
    low, high = np.quantile(boots, [0.025, 0.975])
    yield f"{len(pairs)} patients, three tasks each, up to five parts for each:"
    yield f"without what was named a probability moves by {pairs[:, 0].mean():.4f},"
    yield f"without as much at random by {pairs[:, 1].mean():.4f};"
    yield f"the difference is {difference.mean():.4f} [{low:.4f}, {high:.4f}],"
    yield f"above 0 in {(difference > 0).mean():.3f} of the patients."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle, "cpu", threads=1)
    for line in (*cost(bundle, arguments.data), "", *faithful(bundle, arguments.data)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
