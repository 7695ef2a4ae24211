"""From features to the raw outputs of the graphs, many patients at once."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from pydantic_core import from_json, to_json

from schemas.features import Array, Floats, features, stack
from schemas.manifest import GOLDEN, BundleError
from schemas.payload import parse_payload
from schemas.response import MODALITIES, Modality
from service.bundle import EMBEDDING, PRESENT, UNUSUAL, Bundle

# Of notes, padding among them, that the encoder gets at once: each takes a BERT 0.1 MB of memory.
MOST_TOKENS = 16_384
FUSION = "fusion"
RECENT = 0.2  # the weight of the latest run in how long one takes

# One patient's features: [no batch axis], by modality and name.
Sample = Mapping[Modality, dict[str, Array]]


@dataclass(frozen=True)
class Outputs:
    """What the graphs say of one patient.

    `fusion`: its outputs by name, [no batch axis]. `unusual`: for each modality whose encoder ran,
    the share of the training patients whose input was more ordinary.
    """

    fusion: dict[str, Floats]
    unusual: dict[Modality, float]


class Engine:
    """Runs a bundle's graphs. Safe to call from several threads.

    `verified`: the golden answers were reproduced once. `failing`: the latest run raised.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.verified = False
        self.failing = False
        self._pace: dict[str, float] = {}  # seconds of a row; of notes, of a token
        fusion = bundle.manifest.fusion.inputs
        self._widths = {t.name: int(t.axes[-1]) for t in fusion if t.name != PRESENT}

    def run(self, samples: Sequence[Sample]) -> list[Outputs]:
        """The outputs of each sample, in order. Encoders run on the rows that have the modality."""
        if not samples:
            return []
        try:
            inputs, unusual = self._encode(samples)
            with self._paced(FUSION, len(samples)):
                outputs = self.bundle.fusion.run(inputs)
        except Exception:
            self.failing = True
            raise
        self.failing = False
        return [
            Outputs({name: rows[i] for name, rows in outputs.items()}, scores)
            for i, scores in enumerate(unusual)
        ]

    def seconds(self, sample: Sample) -> float:
        """How long a sample takes in a batch, by what the latest took."""
        found = self._pace.get(FUSION, 0.0)
        for modality, arrays in sample.items():
            count = len(arrays["tokens"]) if modality == "notes" else 1
            found += count * self._pace.get(modality, 0.0)
        return found

    @contextmanager
    def _paced(self, name: str, count: int) -> Iterator[None]:
        """Learns how long one of `count` takes."""
        started = time.perf_counter()
        yield
        each = (time.perf_counter() - started) / max(count, 1)
        self._pace[name] = each + (1 - RECENT) * (self._pace.get(name, each) - each)

    def _encode(
        self, samples: Sequence[Sample]
    ) -> tuple[dict[str, Array], list[dict[Modality, float]]]:
        """The fusion's inputs, and how unusual each sample's modalities are.

        The inputs are an embedding [batch, D] for each modality, and `present` [batch, 4].
        """
        unusual: list[dict[Modality, float]] = [{} for _ in samples]
        present = np.zeros((len(samples), len(MODALITIES)), dtype=np.bool_)
        inputs: dict[str, Array] = {PRESENT: present}
        for column, modality in enumerate(MODALITIES):
            embedding = np.zeros((len(samples), self._widths[modality]), dtype=np.float32)
            inputs[modality] = embedding
            encoder = self.bundle.encoders.get(modality)
            rows = [i for i, sample in enumerate(samples) if modality in sample]
            if encoder is None or not rows:
                continue
            present[rows, column] = True
            for some in _together(rows, samples) if modality == "notes" else [rows]:
                stacked = stack([samples[i][modality] for i in some])
                count = stacked["tokens"].size if modality == "notes" else len(some)
                with self._paced(modality, count):
                    found = encoder.run(stacked)
                embedding[some] = found[EMBEDDING]
                for i, score in zip(some, found[UNUSUAL].tolist(), strict=True):
                    unusual[i][modality] = score
        return inputs, unusual

    def replay_golden(self) -> None:
        """Runs the bundle's golden requests through all of serving.

        Raises BundleError, naming the first output that is not the golden one within the
        manifest's tolerance.
        """
        lines = [line for line in self.bundle.golden.splitlines() if line.strip()]
        if not lines:
            raise BundleError(f"{GOLDEN} holds no answer, or the manifest has no digest of it")
        for number, line in enumerate(lines, start=1):
            found, expected = self._replay(number, line)
            _compare(number, found, expected, self.bundle.manifest.golden_tolerance)
        self.verified = True

    def _replay(self, number: int, line: bytes) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """What the fusion says now and what the line says, of one golden request."""
        try:
            golden = from_json(line)
            expected = {
                name: np.asarray(values, dtype=np.float32)
                for name, values in golden["outputs"].items()
            }
            payload = parse_payload(to_json(golden["request"]))
            sample = features(payload, self.bundle.manifest.spec)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BundleError(f"{GOLDEN}, line {number}: not a request with its outputs") from None
        try:
            found = self.run([sample.arrays])[0].fusion
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
            first_line = str(error).partition("\n")[0]
            raise BundleError(f"{GOLDEN}, line {number}: does not run: {first_line}") from None
        return found, expected


def _together(rows: Sequence[int], samples: Sequence[Sample]) -> Iterator[list[int]]:
    """The rows with notes, those of like length together and no more than MOST_TOKENS at once."""
    lengths = {i: len(samples[i]["notes"]["tokens"]) for i in rows}
    some: list[int] = []
    for i in sorted(rows, key=lengths.__getitem__):
        if some and (len(some) + 1) * lengths[i] > MOST_TOKENS:
            yield some
            some = []
        some.append(i)
    if some:
        yield some


def _compare(
    number: int, found: dict[str, Floats], expected: dict[str, Floats], tolerance: float
) -> None:
    where = f"{GOLDEN}, line {number}"
    if found.keys() != expected.keys():
        differ = ", ".join(sorted(found.keys() ^ expected.keys()))
        raise BundleError(f"{where}: the outputs are not those of the graph: {differ}")
    for name, golden in expected.items():
        values = found[name]
        if values.shape != golden.shape:
            raise BundleError(f"{where}: {name} has shape {values.shape}, not {golden.shape}")
        error = float(np.abs(values - golden).max())
        if not error <= tolerance:  # also where it is NaN
            raise BundleError(
                f"{where}: {name} differs from the golden answer by {error:.2g}, "
                f"more than {tolerance:.2g}"
            )
