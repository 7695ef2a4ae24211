"""From features to the raw outputs of the graphs, many patients at once."""

import math
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json, to_json

from schemas.bundle_files import BundleError, one_line
from schemas.features import Array, Floats, features, stack, unlimited
from schemas.manifest import GOLDEN
from schemas.payload import parse_payload
from schemas.response import MODALITIES, Modality
from service.errors import DeadlineExceeded
from service.runtime.bundle import EMBEDDING, PRESENT, UNUSUAL, Bundle
from service.runtime.cost_estimate import Pace
from service.telemetry.spans import ROWS, Stage

# Of notes, padding among them, that the encoder gets at once: each takes a BERT 0.1 MB of memory.
MOST_TOKENS = 16_384
FUSION = "fusion"


@dataclass(frozen=True)
class Embedded:
    """What an encoder makes of one patient's modality. embedding [D].

    `unusual`: the share of the training patients whose input was more ordinary.
    """

    embedding: Floats
    unusual: float


# One patient: by modality the arrays of its features [no batch axis], or what was made of them.
Sample = Mapping[Modality, dict[str, Array] | Embedded]


@dataclass(frozen=True)
class Outputs:
    """What the graphs say of one patient.

    `fusion`: its outputs by name, [no batch axis]. `unusual`: of each modality that is there and
    has an encoder, as in `Embedded`. `coalitions`, if they were asked for: the outputs by name with
    each set of these modalities known alone, [sets, …] in the order of `coalitions`.
    """

    fusion: dict[str, Floats]
    unusual: dict[Modality, float]
    coalitions: dict[str, Floats] = field(default_factory=dict)


@cache
def coalitions(there: tuple[bool, ...]) -> npt.NDArray[np.bool_]:
    """[2**k, M] every set of the k modalities that are there: none in the first row, all in the
    last; row r has the i-th of the k if bit i of r is set.
    """
    columns = np.flatnonzero(there)
    sets = np.zeros((2 ** len(columns), len(there)), dtype=np.bool_)
    sets[:, columns] = np.arange(len(sets))[:, None] >> np.arange(len(columns)) & 1
    return sets


class Engine:
    """Runs a bundle's graphs. Safe to call from several threads.

    `verified`: the golden answers are reproduced, as far as was looked. `failing`: the latest run
    raised. `hanging`: a golden request was not answered in time. `difference`: how far the latest
    golden request was from its golden answer; infinite if that cannot be said.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.verified = False
        self.failing = False
        self.hanging = False
        self.difference = math.inf
        # Of a row; of notes, of a token.
        self._pace: dict[str, Pace] = {name: Pace() for name in (FUSION, *MODALITIES)}
        self._pace["notes"] = Pace(large=MOST_TOKENS, call=0.001)
        fusion = bundle.manifest.fusion.inputs
        self.widths: dict[Modality, int] = {
            modality: int(tensor.axes[-1])
            for tensor in fusion
            for modality in MODALITIES
            if tensor.name == modality
        }

    def run(
        self,
        samples: Sequence[Sample],
        explained: Container[int] = (),
        batch: Stage | None = None,
        check: Callable[[], None] = unlimited,
    ) -> list[Outputs]:
        """The outputs of each sample, in order. Encoders run on the rows that have the modality.

        `explained`: the samples, by their place, whose coalitions are asked for. `batch`: gets the
        runs of graphs as its parts, if it is traced. `check` is called before each run of an
        encoder; what it raises ends the rest.
        """
        if not samples:
            return []
        with self._watched():
            inputs, unusual = self._inputs(samples, batch, check)
            present = inputs[PRESENT]
            sets = [
                coalitions(tuple(row))[1:] if i in explained and any(row) else present[i : i + 1]
                for i, row in enumerate(present.tolist())
            ]
            ends = np.cumsum([len(some) for some in sets])
            if ends[-1] > len(samples):
                of = np.repeat(np.arange(len(samples)), [len(some) for some in sets])
                inputs = {name: rows[of] for name, rows in inputs.items()}
                inputs[PRESENT] = np.concatenate(sets)
            with self._paced(FUSION, int(ends[-1]), batch):
                outputs = self.bundle.fusion.run(inputs)
        return [
            Outputs(
                {name: rows[end - 1] for name, rows in outputs.items()},
                scores,
                self._coalitions(outputs, end - len(some) if scores else end, end)
                if i in explained
                else {},
            )
            for i, (scores, some, end) in enumerate(zip(unusual, sets, ends.tolist(), strict=True))
        ]

    def _coalitions(self, outputs: dict[str, Floats], start: int, end: int) -> dict[str, Floats]:
        """What the set of none says, and then the rows from `start` to before `end`."""
        return {
            name: np.concatenate([nothing, outputs[name][start:end]])
            for name, nothing in self._of_nothing.items()
        }

    @cached_property
    def _of_nothing(self) -> dict[str, Floats]:
        """[1, …] what fusion says with nothing known: the same of every patient."""
        return self.bundle.fusion.run(self._inputs([{}])[0])

    def embed(
        self,
        modality: Modality,
        rows: Sequence[dict[str, Array]],
        batch: Stage | None = None,
        check: Callable[[], None] = unlimited,
    ) -> list[Embedded]:
        """What the modality's encoder makes of each of the rows, in order. `batch`, `check`: as of
        `run`.
        """
        found: list[Embedded | None] = [None] * len(rows)
        encoder = self.bundle.encoders[modality]
        with self._watched():
            for some in _together(rows) if modality == "notes" else [range(len(rows))]:
                check()
                stacked = stack([rows[i] for i in some])
                count = stacked["tokens"].size if modality == "notes" else len(some)
                with self._paced(modality, count, batch, len(some)):
                    made = encoder.run(stacked)
                scores = made[UNUSUAL].tolist()
                for i, embedding, score in zip(some, made[EMBEDDING], scores, strict=True):
                    # A copy: a row of a batch would keep all of the batch in memory.
                    found[i] = Embedded(embedding.copy(), score)
        return [one for one in found if one is not None]

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Whether the latest run failed."""
        try:
            yield
        except DeadlineExceeded:  # no fault of the graphs
            raise
        except Exception:
            self.failing = True
            raise
        self.failing = False

    def expected(self, rows: int, runs: Mapping[Modality, int]) -> float:
        """How many seconds so many rows of fusion take, and encoders for so many rows or tokens."""
        return self._pace[FUSION].seconds(rows) + sum(
            self._pace[modality].seconds(count)
            for modality, count in runs.items()
            if modality in self.bundle.encoders
        )

    @contextmanager
    def _paced(
        self, name: str, count: int, batch: Stage | None, rows: int | None = None
    ) -> Iterator[None]:
        """Learns how long one of `count` takes. `rows`: if that is another number."""
        started = time.perf_counter()
        yield
        ended = time.perf_counter()
        self._pace[name].learn(count, ended - started)
        if batch is not None:
            graph = name if name == FUSION else f"encoder {name}"
            batch.inside.append(Stage(graph, started, ended, {ROWS: rows or count}))

    def _inputs(
        self,
        samples: Sequence[Sample],
        batch: Stage | None = None,
        check: Callable[[], None] = unlimited,
    ) -> tuple[dict[str, Array], list[dict[Modality, float]]]:
        """The fusion's inputs, and how unusual each sample's modalities are.

        The inputs are an embedding [batch, D] for each modality, and `present` [batch, 4].
        """
        unusual: list[dict[Modality, float]] = [{} for _ in samples]
        present = np.zeros((len(samples), len(MODALITIES)), dtype=np.bool_)
        inputs: dict[str, Array] = {PRESENT: present}
        for column, modality in enumerate(MODALITIES):
            inputs[modality] = np.zeros((len(samples), self.widths[modality]), dtype=np.float32)
            if modality not in self.bundle.encoders:
                continue
            for i, made in self._embedded(modality, samples, batch, check):
                present[i, column] = True
                inputs[modality][i] = made.embedding
                unusual[i][modality] = made.unusual
        return inputs, unusual

    def _embedded(
        self,
        modality: Modality,
        samples: Sequence[Sample],
        batch: Stage | None,
        check: Callable[[], None],
    ) -> Iterator[tuple[int, Embedded]]:
        """Of each sample that has the modality."""
        there = [(i, sample[modality]) for i, sample in enumerate(samples) if modality in sample]
        yield from ((i, one) for i, one in there if isinstance(one, Embedded))
        arrays = [(i, one) for i, one in there if not isinstance(one, Embedded)]
        if arrays:
            made = self.embed(modality, [one for _, one in arrays], batch, check)
            yield from zip((i for i, _ in arrays), made, strict=True)

    @cached_property
    def _golden(self) -> list[bytes]:
        return [line for line in self.bundle.golden.splitlines() if line.strip()]

    def replay_golden(self) -> None:
        """Runs the bundle's golden requests through all of serving.

        Raises BundleError, naming the output that is furthest from the golden one, if that is
        beyond the manifest's tolerance; `verified` is whether none is, once that is known.
        """
        if not self._golden:
            raise BundleError(f"{GOLDEN} holds no answer, or the manifest has no digest of it")
        try:
            for number in range(len(self._golden)):
                self.replay(number)
        except BundleError:
            self.verified = False
            raise
        self.verified = True

    def replay(self, number: int) -> None:
        """Runs one golden request; counts on after the last. Raises BundleError as above."""
        number %= len(self._golden)
        self.difference = math.inf
        found, expected = self._replay(number + 1, self._golden[number])
        try:
            name, worst = _furthest(number + 1, found, expected)
        except BundleError:
            self.verified = False
            raise
        self.difference = math.inf if math.isnan(worst) else worst
        tolerance = self.bundle.manifest.golden_tolerance
        if not worst <= tolerance:  # also where it is NaN
            self.verified = False
            raise BundleError(
                f"{GOLDEN}, line {number + 1}: {name} differs from the golden answer by "
                f"{worst:.2g}, more than {tolerance:.2g}"
            )

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
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            raise BundleError(f"{GOLDEN}, line {number}: not a request with its outputs") from None
        try:
            found = self.run([sample.arrays])[0].fusion
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
            reason = one_line(str(error))
            raise BundleError(f"{GOLDEN}, line {number}: does not run: {reason}") from None
        return found, expected


def _together(notes: Sequence[dict[str, Array]]) -> Iterator[list[int]]:
    """Which notes, those of like length together and no more than MOST_TOKENS at once."""
    lengths = [len(one["tokens"]) for one in notes]
    some: list[int] = []
    for i in sorted(range(len(notes)), key=lengths.__getitem__):
        if some and (len(some) + 1) * lengths[i] > MOST_TOKENS:
            yield some
            some = []
        some.append(i)
    if some:
        yield some


def difference(values: Floats, golden: Floats) -> float:
    """The largest; of what is above 1 (days), as a share of it. NaN if one is."""
    return float((np.abs(values - golden) / np.maximum(1.0, np.abs(golden))).max(initial=0.0))


def _furthest(
    number: int, found: dict[str, Floats], expected: dict[str, Floats]
) -> tuple[str, float]:
    """The output that differs most, and by how much. Raises BundleError for other outputs."""
    where = f"{GOLDEN}, line {number}"
    if found.keys() != expected.keys():
        differ = ", ".join(sorted(found.keys() ^ expected.keys()))
        raise BundleError(f"{where}: the outputs are not those of the graph: {differ}")
    off = {}
    for name, golden in expected.items():
        values = found[name]
        if values.shape != golden.shape:
            raise BundleError(f"{where}: {name} has shape {values.shape}, not {golden.shape}")
        off[name] = difference(values, golden)
    return max(off.items(), key=lambda one: (math.isnan(one[1]), one[1]))
