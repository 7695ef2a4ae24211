"""Accuracy of explanations on synthetic patients, whose true risks are known.

The true risk of a disease, given a patient's observations, is computed without a model
(`synthetic_risks.py`). The true effect of a variable is the change of this risk without the
variable; that of a modality is its Shapley value, as in the explanation.

A network is trained on other patients of the graph, exported, and asked for explanations. A case is
a patient, a disease, and a variable or modality with a true effect of .1 or more. A variable is
named if it is among the five of `explain=full`, with the right sign. A modality is named if its
value has the right sign and is one of the two largest by amount. A treatment that was not given has
an effect, too, but it is not in the request and cannot be named: it is no case.

The strict rule has one case for each patient and disease: the modality with the largest true
effect, if at least .1. It is named if its value is the largest and has the right sign. The first
rule is the better measure, since it counts all modalities with an effect. Both are printed.

    python benchmarks/explanations_synthetic.py --work runs/explanations

Training takes an hour on two cores and is not repeated if its result exists. The rest takes ten
minutes.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_json
from synthetic_risks import NAMES, Floats, Observations, observed, true_effects

from export.bundle import export_bundle
from model.cohorts import Record, labels, synthetic
from model.cohorts.store import Cohort, write
from model.cohorts.synthetic import DISEASES
from model.network.config import NetConfig
from model.training.config import TrainConfig
from model.training.preparation import PreparedTraining
from model.training.trainer import Trainer
from schemas.features import FeatureSpec, no_time_limit
from schemas.response import MODALITIES
from service.cache.embedding_cache import EmbeddingCache
from service.prediction.jobs import Job, Options
from service.prediction.predictor import Predictor
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.telemetry.metrics import Metrics

LEARN, LEARN_SEED = 40_000, 144
MIN_EFFECT = 0.1


def trained_bundle(work: Path) -> Path:
    """The bundle of a network that was trained on synthetic patients."""
    bundle, cohort = work / "bundle", work / "cohort"
    if not (bundle / "manifest.json").is_file():
        spec = FeatureSpec.default()
        facts: dict[str, Any] = {"name": "synthetic", "source": synthetic.SOURCE}
        if not (cohort / "cohort.json").is_file():
            records = synthetic.patients(LEARN, LEARN_SEED)
            for done in write(records, cohort, made_by=(synthetic, labels), spec=spec, **facts):
                print(f"{done} patients", flush=True)
        # The synthetic diseases have other signs than the expected effects.
        config = TrainConfig(members=2, net=NetConfig(clinical_effects=False))
        trainer = Trainer(PreparedTraining([Cohort.load(cohort)], config))
        for epoch in trainer.run(work / "run"):
            print(epoch, flush=True)
        golden = synthetic.examples()
        export_bundle(
            trainer.checkpoint(),
            bundle,
            name="synthetic",
            version="1",
            golden=golden,
            evaluation={},
        )
    return bundle


class Explained:
    """The service's explanation of one patient."""

    def __init__(self, predictor: Predictor, record: Record) -> None:
        self._predictor = predictor
        self._body = to_json(record.payload)
        self._modalities = self._explain(explain="default")["modalities"]

    def _explain(self, **options: Any) -> Mapping[str, Any]:
        parsed = self._predictor.parse(Job(self._body, Options(**options)))
        prepared = self._predictor.prepare(parsed, no_time_limit)
        answer = json.loads(self._predictor.run([prepared])[0])
        explanation: Mapping[str, Any] = answer["explanation"]
        return explanation

    def modalities(self, disease: str) -> Floats:
        """[4] Shapley values."""
        return np.array([self._modalities[disease][m] for m in MODALITIES])

    def named(self, disease: str) -> dict[str, float]:
        """The contributions of the variables that are named for a disease."""
        (explanation,) = self._explain(explain="full", task=disease)["variables"]
        names = {"sex": "female"}
        return {names.get(p["name"], p["name"]): p["contribution"] for p in explanation["because"]}


def cases(
    patient: Observations, explained: Explained, draw: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """The kind of each case, and whether it was named."""
    variables, modalities = true_effects(patient, draw)
    for d, disease in enumerate(NAMES):
        own = {sign[1:] for sign in DISEASES[disease].signs.split()}
        moved = {name: move[d] for name, move in variables.items() if abs(move[d]) >= MIN_EFFECT}
        named = explained.named(disease) if moved else {}
        for name, move in moved.items():
            right = named.get(name, 0.0) * move > 0
            yield "variable: any", right
            if name in own:
                yield "variable: a sign of the disease itself", right
        true, shown = modalities[:, d], explained.modalities(disease)
        order = np.argsort(-np.abs(shown), kind="stable")
        for i in np.flatnonzero(np.abs(true) >= MIN_EFFECT):
            right = shown[i] * true[i] > 0 and i in order[:2]
            yield "modality: any", right
            yield f"modality: {MODALITIES[i]}", right
            if MODALITIES[i] == "notes":
                excluded = disease in patient.excluded
                yield f"modality: notes, {'' if excluded else 'not '}excluding the disease", right
        first = np.abs(true).argmax()
        if abs(true[first]) >= MIN_EFFECT:
            right = shown[first] * true[first] > 0 and first == order[0]
            yield "modality, strictly: any", right
            yield f"modality, strictly: {MODALITIES[first]}", right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/explanations"))
    arguments = parser.parse_args()
    engine = Engine(Bundle.load(trained_bundle(arguments.work), "cpu", threads=2))
    metrics = Metrics()
    predictor = Predictor(engine, EmbeddingCache(0, None, metrics), metrics)
    draw = np.random.default_rng(0)
    hits: dict[str, list[bool]] = defaultdict(list)
    for patient in observed():
        for kind, named in cases(patient, Explained(predictor, patient.record), draw):
            hits[kind].append(named)
    print("| named | cases | share |", "|---|---|---|", sep="\n")
    for kind, named in sorted(hits.items()):
        print(f"| {kind} | {len(named)} | {np.mean(named):.3f} |")


if __name__ == "__main__":
    main()
