"""The engine runs the graphs of a bundle on batches of samples."""

import math
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from schemas.bundle_files import BundleError, single_line
from schemas.features import Array, Floats, collate, no_time_limit
from schemas.manifest import GOLDEN
from schemas.response import MODALITIES, Modality
from service.errors import DeadlineExceeded
from service.runtime.bundle import EMBEDDING, PRESENT, UNUSUAL, Bundle
from service.runtime.coalitions import coalitions
from service.runtime.cost_estimate import UnitCost
from service.runtime.golden import GoldenAnswer
from service.telemetry.spans import BATCH_ROWS, Span

# Limit of the notes encoder's batch, with padding: a BERT needs 0.1 MB of memory for each token.
MAX_BATCH_TOKENS = 16_384
FUSION = "fusion"


@dataclass(frozen=True)
class Embedding:
    """The output of an encoder for one sample: vector [D].

    `unusual`: the share of the training patients whose input was more ordinary, 0 to 1.
    """

    vector: Floats
    unusual: float


# One patient: for each present modality its features, without a batch axis, or its embedding.
Sample = Mapping[Modality, dict[str, Array] | Embedding]


@dataclass(frozen=True)
class Outputs:
    """The outputs of the graphs for one sample, without a batch axis.

    `fusion`: the fusion graph's outputs by name. `unusual`: the score of each present modality
    that has an encoder. `coalitions`: if requested, the fusion's outputs for each coalition of
    these modalities, [coalitions, ...] in the order of `service.runtime.coalitions`.
    """

    fusion: dict[str, Floats]
    unusual: dict[Modality, float]
    coalitions: dict[str, Floats] = field(default_factory=dict)


class Engine:
    """Runs the graphs of a bundle. Safe to call from several threads.

    `verified`: every golden request that was replayed gave its golden answer. `failing`: the
    latest run raised an exception. `hanging`: the latest canary got no answer in time.
    `difference`: distance of the latest golden request from its golden answer (`max_difference`);
    infinite if it is unknown.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.verified = False
        self.failing = False
        self.hanging = False
        self.difference = math.inf
        # The time of a row; for notes, of a token.
        self._costs: dict[str, UnitCost] = {name: UnitCost() for name in (FUSION, *MODALITIES)}
        self._costs["notes"] = UnitCost(significant=MAX_BATCH_TOKENS, overhead=0.001)
        inputs = {tensor.name: tensor for tensor in bundle.manifest.fusion.inputs}
        self.embedding_dims: dict[Modality, int] = {
            modality: int(inputs[modality].axes[-1])
            for modality in MODALITIES
            if modality in inputs
        }

    # ---- run -------------------------------------------------------------------------------------

    def run(
        self,
        samples: Sequence[Sample],
        explained: Container[int] = (),
        batch: Span | None = None,
        check: Callable[[], None] = no_time_limit,
    ) -> list[Outputs]:
        """Computes the outputs of each sample, in order.

        `explained`: indices of the samples whose coalitions are computed. `batch`: span that gets
        a child for each run of a graph. `check` is called before each run of an encoder; an
        exception that it raises ends the computation.
        """
        if not samples:
            return []
        with self._track_failure():
            inputs, unusual = self._fusion_inputs(samples, batch, check)
            present = inputs[PRESENT]
            # For a sample that is explained, all coalitions but the empty one. Its last row is the
            # sample as it is.
            subsets = [
                coalitions(tuple(row))[1:] if i in explained and any(row) else present[i : i + 1]
                for i, row in enumerate(present.tolist())
            ]
            counts = [len(rows) for rows in subsets]
            ends = np.cumsum(counts)
            if ends[-1] > len(samples):
                repeated = np.repeat(np.arange(len(samples)), counts)
                inputs = {name: rows[repeated] for name, rows in inputs.items()}
                inputs[PRESENT] = np.concatenate(subsets)
            with self._timed(FUSION, int(ends[-1]), batch):
                outputs = self.bundle.fusion.run(inputs)
        return [
            Outputs(
                {name: rows[end - 1] for name, rows in outputs.items()},
                scores,
                self._coalition_outputs(outputs, end - count if scores else end, end)
                if i in explained
                else {},
            )
            for i, (scores, count, end) in enumerate(
                zip(unusual, counts, ends.tolist(), strict=True)
            )
        ]

    def _coalition_outputs(
        self, outputs: dict[str, Floats], start: int, stop: int
    ) -> dict[str, Floats]:
        """The outputs of the empty coalition, followed by the rows [start, stop)."""
        return {
            name: np.concatenate([baseline, outputs[name][start:stop]])
            for name, baseline in self._baseline_outputs.items()
        }

    @cached_property
    def _baseline_outputs(self) -> dict[str, Floats]:
        """The fusion's outputs without any modality, [1, ...]: the same for all patients."""
        return self.bundle.fusion.run(self._fusion_inputs([{}])[0])

    def _fusion_inputs(
        self,
        samples: Sequence[Sample],
        batch: Span | None = None,
        check: Callable[[], None] = no_time_limit,
    ) -> tuple[dict[str, Array], list[dict[Modality, float]]]:
        """The inputs of the fusion graph, and the unusual scores of each sample.

        The inputs are the embeddings [batch, D] of each modality, and `present` [batch, M].
        """
        unusual: list[dict[Modality, float]] = [{} for _ in samples]
        present = np.zeros((len(samples), len(MODALITIES)), dtype=np.bool_)
        inputs: dict[str, Array] = {PRESENT: present}
        for column, modality in enumerate(MODALITIES):
            dim = self.embedding_dims[modality]
            inputs[modality] = np.zeros((len(samples), dim), dtype=np.float32)
            if modality not in self.bundle.encoders:
                continue
            for i, embedding in self._embeddings(modality, samples, batch, check):
                present[i, column] = True
                inputs[modality][i] = embedding.vector
                unusual[i][modality] = embedding.unusual
        return inputs, unusual

    # ---- encoders --------------------------------------------------------------------------------

    def _embeddings(
        self,
        modality: Modality,
        samples: Sequence[Sample],
        batch: Span | None,
        check: Callable[[], None],
    ) -> Iterator[tuple[int, Embedding]]:
        """The index and the embedding of each sample that has the modality."""
        values = [(i, sample[modality]) for i, sample in enumerate(samples) if modality in sample]
        yield from ((i, value) for i, value in values if isinstance(value, Embedding))
        arrays = [(i, value) for i, value in values if not isinstance(value, Embedding)]
        if arrays:
            embeddings = self.embed(modality, [value for _, value in arrays], batch, check)
            yield from zip((i for i, _ in arrays), embeddings, strict=True)

    def embed(
        self,
        modality: Modality,
        rows: Sequence[dict[str, Array]],
        batch: Span | None = None,
        check: Callable[[], None] = no_time_limit,
    ) -> list[Embedding]:
        """Computes the embedding of each row, in order. `batch` and `check`: as for `run`."""
        embeddings: dict[int, Embedding] = {}
        encoder = self.bundle.encoders[modality]
        with self._track_failure():
            for chunk in _chunk_by_tokens(rows) if modality == "notes" else [range(len(rows))]:
                check()
                inputs = collate([rows[i] for i in chunk])
                count = inputs["tokens"].size if modality == "notes" else len(chunk)
                with self._timed(modality, count, batch, len(chunk)):
                    outputs = encoder.run(inputs)
                scores = outputs[UNUSUAL].tolist()
                for i, vector, score in zip(chunk, outputs[EMBEDDING], scores, strict=True):
                    # A copy, because a row would keep the arrays of the whole batch in memory.
                    embeddings[i] = Embedding(vector.copy(), score)
        return [embeddings[i] for i in range(len(rows))]

    # ---- failures and times ----------------------------------------------------------------------

    @contextmanager
    def _track_failure(self) -> Iterator[None]:
        """Sets `failing` if an exception is raised, and clears it otherwise."""
        try:
            yield
        except DeadlineExceeded:  # not a failure of the graphs
            raise
        except Exception:
            self.failing = True
            raise
        self.failing = False

    def estimate_seconds(self, fusion_rows: int, encoder_rows: Mapping[Modality, int]) -> float:
        """Estimates the time of a run, in seconds. `encoder_rows` of notes are tokens."""
        return self._costs[FUSION].estimate(fusion_rows) + sum(
            self._costs[modality].estimate(count)
            for modality, count in encoder_rows.items()
            if modality in self.bundle.encoders
        )

    @contextmanager
    def _timed(
        self, name: str, count: int, batch: Span | None, rows: int | None = None
    ) -> Iterator[None]:
        """Measures a run of `count` units. `rows`: their number, if a row is not the unit."""
        started = time.perf_counter()
        yield
        ended = time.perf_counter()
        self._costs[name].update(count, ended - started)
        if batch is not None:
            graph = name if name == FUSION else f"encoder {name}"
            batch.children.append(Span(graph, started, ended, {BATCH_ROWS: rows or count}))

    # ---- golden answers --------------------------------------------------------------------------

    @cached_property
    def _golden_lines(self) -> list[bytes]:
        return [line for line in self.bundle.golden.splitlines() if line.strip()]

    def replay_golden(self) -> None:
        """Replays all golden requests of the bundle and sets `verified`.

        Raises BundleError if there is none, or if an answer is not within the tolerance.
        """
        if not self._golden_lines:
            raise BundleError(f"{GOLDEN} holds no answer, or the manifest has no digest of it")
        try:
            for index in range(len(self._golden_lines)):
                self.replay(index)
        except BundleError:
            self.verified = False
            raise
        self.verified = True

    def replay(self, index: int) -> None:
        """Replays one golden request; the index wraps around.

        Raises BundleError and clears `verified` if the answer is not within the tolerance.
        """
        index %= len(self._golden_lines)
        self.difference = math.inf
        golden = GoldenAnswer.parse(self._golden_lines[index], index + 1, self.bundle.manifest.spec)
        try:
            outputs = self.run([golden.arrays])[0].fusion
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
            raise BundleError(f"{golden.where}: does not run: {single_line(str(error))}") from None
        try:
            name, difference = golden.worst_output(outputs)
        except BundleError:
            self.verified = False
            raise
        self.difference = math.inf if math.isnan(difference) else difference
        tolerance = self.bundle.manifest.golden_tolerance
        if not difference <= tolerance:  # also if it is NaN
            self.verified = False
            raise BundleError(
                f"{golden.where}: {name} differs from the golden answer by "
                f"{difference:.2g}, more than {tolerance:.2g}"
            )


def _chunk_by_tokens(notes: Sequence[dict[str, Array]]) -> Iterator[list[int]]:
    """Divides notes into chunks of similar length with at most MAX_BATCH_TOKENS tokens.

    Yields the indices of each chunk. A longer note is alone.
    """
    lengths = [len(note["tokens"]) for note in notes]
    chunk: list[int] = []
    for i in sorted(range(len(notes)), key=lengths.__getitem__):
        if chunk and (len(chunk) + 1) * lengths[i] > MAX_BATCH_TOKENS:
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk
