"""The behaviour of a bundle, judged with the serving engine, and the gate of the export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import UserError
from model.evaluation.behaviour.distinct_inputs import DistinctInputs
from model.evaluation.behaviour.expectations import Expectation, load_expectations
from model.evaluation.behaviour.judgement import Predictor, Probabilities, judge
from model.evaluation.behaviour.patients import made_patients
from model.evaluation.behaviour.summary import DECIMALS, summarize, table
from schemas.evaluation import Behaviour
from schemas.features import extract_features
from schemas.payload import Payload
from schemas.response import Modality
from service.runtime.bundle import Bundle
from service.runtime.engine import Embedding, Engine

# The share of expectations that must hold in nine of ten made patients.
GATE = 0.95
# A recalibrated or reduced bundle may be worse than its source by this share.
TOLERATED_LOSS = 0.01
WORST = 10  # rows of a refusal


class BehaviourError(UserError):
    """A bundle's predictions move as a clinician does not expect.

    The text has several lines: the figure, the worst expectations, and how to override the gate.
    """


def bundle_predictor(bundle: Bundle) -> Predictor:
    """The probabilities of the binary tasks, as the service gives them."""
    engine, spec = Engine(bundle), bundle.manifest.spec
    served = [
        (facts.task.name, facts.output, facts.column)
        for facts in bundle.manifest.tasks
        if facts.task.kind == "binary" and facts.abstains is None
    ]

    embeddings = DistinctInputs[Embedding](lambda m, inputs: engine.embed(m, [*map(dict, inputs)]))

    def predict(payloads: Sequence[Payload]) -> list[Probabilities]:
        arrays = [extract_features(payload, spec).arrays for payload in payloads]
        samples = [dict[Modality, Embedding]() for _ in arrays]
        for modality in bundle.encoders:
            rows = [i for i, sample in enumerate(arrays) if modality in sample]
            results = embeddings.results(modality, [arrays[i][modality] for i in rows])
            for i, embedding in zip(rows, results, strict=True):
                samples[i][modality] = embedding
        return [
            {name: float(result.fusion[output][column]) for name, output, column in served}
            for result in engine.run(samples)
        ]

    return predict


def judge_bundle(
    folder: Path, expectations: Sequence[Expectation], patients: Mapping[str, Payload]
) -> Behaviour:
    """The behaviour of the bundle in `folder`. The bundle may lack its golden answers."""
    predictor = bundle_predictor(Bundle.load(folder, "cpu"))
    return summarize(judge(predictor, expectations, patients))


@dataclass(frozen=True)
class BehaviourGate:
    """The gate that a new bundle must pass.

    `share`: of the expectations that must hold in nine of ten patients; 0 accepts every bundle.
    `source`: the bundle from which the new one is made. The new one may then be worse than the
    source by TOLERATED_LOSS, and `share` matters only if it is 0.
    """

    share: float = GATE
    source: Path | None = None
    expectations: Sequence[Expectation] = field(default_factory=load_expectations)
    patients: Mapping[str, Payload] = field(default_factory=made_patients)

    def judge(self, bundle: Path) -> Behaviour:
        """The behaviour of a bundle that passes the gate. Raises BehaviourError if it does not."""
        required = self._required()
        behaviour = judge_bundle(bundle, self.expectations, self.patients)
        if behaviour.reliable < required:
            raise BehaviourError(self._refusal(behaviour, required))
        return behaviour.model_copy(update={"gate": round(required, DECIMALS)})

    def _required(self) -> float:
        if self.source is None or self.share == 0:
            return self.share
        source = judge_bundle(self.source, self.expectations, self.patients)
        return max(source.reliable - TOLERATED_LOSS, 0.0)

    def _refusal(self, behaviour: Behaviour, required: float) -> str:
        compared = f" (those of {self.source} less {TOLERATED_LOSS:g})" if self.source else ""
        return (
            f"the bundle is refused: {behaviour.reliable:.1%} of {behaviour.expectations} "
            f"expectations of its behaviour hold in nine of ten patients, and {required:.1%} must"
            f"{compared}. The worst:\n{table(behaviour, WORST)}\n"
            "--behaviour-gate 0 exports it nevertheless; docs/behaviour.md explains the gate"
        )
