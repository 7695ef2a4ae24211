"""The predictor of a checkpoint: the network itself, in torch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.evaluation.behaviour.distinct_inputs import DistinctInputs, Inputs
from model.evaluation.behaviour.judgement import Predictor, Probabilities
from model.network.checkpoint import Checkpoint
from schemas.features import collate, extract_features
from schemas.payload import Payload
from schemas.response import MODALITIES, Modality


def checkpoint_predictor(checkpoint: Checkpoint) -> Predictor:
    """The probabilities of the binary tasks, calibrated and coherent as they are served.

    A task whose labelled patients all had the same outcome has no answer, as in a bundle.
    """
    net, facts = checkpoint.net(), checkpoint.facts
    encoders: Any = net.encoders
    members = [net.member(k).eval() for k in range(facts.members)]
    answered = [
        (column, name)
        for column, name in enumerate(net.calibrate.names)
        if facts.positives[name] not in {0, max(facts.labels[name].values())}
    ]

    @torch.no_grad()
    def represent(modality: Modality, inputs: Sequence[Inputs]) -> Sequence[Tensor]:
        arrays = collate([*map(dict, inputs)])
        represented: Tensor = encoders[modality].represent(
            **{name: torch.from_numpy(array) for name, array in arrays.items()}
        )
        return [*represented]

    representations = DistinctInputs[Tensor](represent)

    @torch.no_grad()
    def predict(payloads: Sequence[Payload]) -> list[Probabilities]:
        samples = [extract_features(payload, facts.spec).arrays for payload in payloads]
        present = torch.tensor([[m in arrays for m in MODALITIES] for arrays in samples])
        represented: dict[Modality, Tensor] = {}
        for modality in MODALITIES:
            inputs = [sample[modality] for sample in samples if modality in sample]
            if inputs:
                represented[modality] = torch.stack(representations.results(modality, inputs))
        outputs = [member(represented, present)[0] for member in members]
        raw = {name: torch.stack([o[name] for o in outputs]).mean(0) for name in outputs[0]}
        binary = net.calibrate(raw)["binary"].double().tolist()
        return [{name: row[column] for column, name in answered} for row in binary]

    return predict
