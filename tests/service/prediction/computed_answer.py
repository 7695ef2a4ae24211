"""The features and outputs of one patient, for tests that change one of them."""

from dataclasses import dataclass, replace
from typing import Any

import orjson

from schemas.features import Features
from schemas.manifest import Manifest
from schemas.response import Prediction, Receipt
from service.prediction.abstention import Basis
from service.prediction.receipt import complete_receipt, with_unusual_scores
from service.prediction.response import (
    build_abstentions,
    build_predictions,
    build_task_fields,
)
from service.runtime.engine import Outputs


@dataclass
class Computed:
    """The features and outputs of one patient, from which answers with changes are built."""

    features: Features
    outputs: Outputs
    manifest: Manifest

    def answer(self, outputs: Outputs | None = None, **changed: Any) -> dict[str, Prediction]:
        """The predictions by task. `changed`: fields of all tasks in the manifest."""
        tasks = tuple(facts.model_copy(update=changed) for facts in self.manifest.tasks)
        manifest = self.manifest.model_copy(update={"tasks": tasks})
        basis = Basis.of(self.features, manifest)
        task_fields = build_task_fields(manifest, basis)
        abstentions = build_abstentions(manifest, basis)
        built = build_predictions(outputs or self.outputs, manifest, task_fields, {}, abstentions)
        predictions = [Prediction.model_validate_json(orjson.dumps(fields)) for fields in built]
        return {prediction.task: prediction for prediction in predictions}

    def unusual(self, **scores: float) -> Receipt:
        """The receipt for other unusual scores."""
        receipt = complete_receipt(self.features, self.manifest)
        return with_unusual_scores(receipt, replace(self.outputs, unusual=scores))
