"""Benchmark of the graphs of two bundles, side by side."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np

from schemas.features import Array, extract_features
from schemas.payload import as_payload
from schemas.response import Modality
from service.runtime.engine import FUSION, Engine

MIN_ROUNDS, MIN_SECONDS = 5, 0.3
ALL = "all"


def benchmark_graphs(old: Engine, new: Engine, batch: int) -> dict[str, tuple[float, float, float]]:
    """For each graph, and for `all` together: seconds of the old, of the new, and their ratio.

    Medians over rounds. Both engines run `batch` golden requests of the old bundle in turn, so that
    other load of the machine affects both.
    """
    lines = map(json.loads, old.bundle.golden.splitlines())
    spec = old.bundle.manifest.spec
    golden = [extract_features(as_payload(line["request"]), spec).arrays for line in lines]
    old_steps, new_steps = (_graph_steps(engine, golden, batch) for engine in (old, new))
    times = {}
    for name in old_steps:
        seconds: list[tuple[float, float]] = []
        began = time.perf_counter()
        while len(seconds) < MIN_ROUNDS or time.perf_counter() - began < MIN_SECONDS:
            seconds.append((_seconds(old_steps[name]), _seconds(new_steps[name])))
        before, after = np.array(seconds).T
        ratio = float(np.median(after / before))
        times[name] = float(np.median(before)), float(np.median(after)), ratio
    return times


def _graph_steps(
    engine: Engine, golden: Sequence[Mapping[Modality, dict[str, Array]]], batch: int
) -> dict[str, Callable[[], object]]:
    """A function for each graph that runs `batch` golden requests. Each is warmed up once."""
    requests = list(islice(cycle(golden), batch))
    steps: dict[str, Callable[[], object]] = {}
    for modality in engine.bundle.encoders:
        inputs = [arrays[modality] for arrays in golden if modality in arrays]
        if inputs:
            steps[modality] = partial(engine.embed, modality, list(islice(cycle(inputs), batch)))
    embedded = [
        {m: engine.embed(m, [inputs])[0] for m, inputs in arrays.items()} for arrays in requests
    ]
    steps |= {FUSION: partial(engine.run, embedded), ALL: partial(engine.run, requests)}
    for step in steps.values():
        step()
    return steps


def _seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
