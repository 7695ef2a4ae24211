"""Golden answers: requests with the outputs that the graphs must reproduce for them."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic_core import from_json, to_json

from schemas.bundle_files import BundleError
from schemas.features import Array, FeatureSpec, Floats, extract_features
from schemas.manifest import GOLDEN
from schemas.payload import parse_payload
from schemas.response import Modality


@dataclass(frozen=True)
class GoldenAnswer:
    """The features of a golden request, and the outputs that are expected for it.

    `where`: its file and line number, for messages.
    """

    where: str
    arrays: dict[Modality, dict[str, Array]]
    outputs: dict[str, Floats]

    @classmethod
    def parse(cls, line: bytes, number: int, spec: FeatureSpec) -> Self:
        """Parses line `number` of the file. Raises BundleError if it is not a golden answer."""
        where = f"{GOLDEN}, line {number}"
        try:
            golden = from_json(line)
            outputs = {
                name: np.asarray(values, dtype=np.float32)
                for name, values in golden["outputs"].items()
            }
            payload = parse_payload(to_json(golden["request"]))
            return cls(where, extract_features(payload, spec).arrays, outputs)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            raise BundleError(f"{where}: not a request with its outputs") from None

    def worst_output(self, outputs: dict[str, Floats]) -> tuple[str, float]:
        """The output that differs most from the golden one, and by how much (`max_difference`).

        Raises BundleError if names or shapes differ.
        """
        if outputs.keys() != self.outputs.keys():
            differ = ", ".join(sorted(outputs.keys() ^ self.outputs.keys()))
            raise BundleError(f"{self.where}: the outputs are not those of the graph: {differ}")
        differences = {}
        for name, golden in self.outputs.items():
            values = outputs[name]
            if values.shape != golden.shape:
                raise BundleError(
                    f"{self.where}: {name} has shape {values.shape}, not {golden.shape}"
                )
            differences[name] = max_difference(values, golden)
        return max(differences.items(), key=lambda entry: (math.isnan(entry[1]), entry[1]))


def max_difference(values: Floats, golden: Floats) -> float:
    """The largest absolute difference, relative for values above 1 (days). NaN if one is NaN."""
    return float((np.abs(values - golden) / np.maximum(1.0, np.abs(golden))).max(initial=0.0))
