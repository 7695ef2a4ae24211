"""How long the graphs of two bundles take, side by side."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np

from schemas.features import Array, features
from schemas.payload import as_payload
from schemas.response import Modality
from service.runtime.engine import FUSION, Engine

ROUNDS, SECONDS = 5, 0.3  # at least
ALL = "all"


def paced(old: Engine, new: Engine, batch: int) -> dict[str, tuple[float, float, float]]:
    """Of each graph, and of `all` together: seconds of the old, of the new, and their ratio.

    Both run the old bundle's golden requests, so many at once, in turn, so that what else the
    machine does weighs on both; medians.
    """
    lines = map(json.loads, old.bundle.golden.splitlines())
    spec = old.bundle.manifest.spec
    golden = [features(as_payload(one["request"]), spec).arrays for one in lines]
    of_both = [_steps(engine, golden, batch) for engine in (old, new)]
    found = {}
    for name in of_both[0]:
        took: list[list[float]] = []
        began = time.perf_counter()
        while len(took) < ROUNDS or time.perf_counter() - began < SECONDS:
            took.append([_seconds(steps[name]) for steps in of_both])
        before, after = np.array(took).T
        ratio = float(np.median(after / before))
        found[name] = float(np.median(before)), float(np.median(after)), ratio
    return found


def _steps(
    engine: Engine, golden: Sequence[Mapping[Modality, dict[str, Array]]], batch: int
) -> dict[str, Callable[[], object]]:
    """What each graph does with so many golden requests; each has run once."""
    every = list(islice(cycle(golden), batch))
    steps: dict[str, Callable[[], object]] = {}
    for modality in engine.bundle.encoders:
        mine = [sample[modality] for sample in golden if modality in sample]
        if mine:
            steps[modality] = partial(engine.embed, modality, list(islice(cycle(mine), batch)))
    embedded = [{m: engine.embed(m, [one])[0] for m, one in sample.items()} for sample in every]
    steps |= {FUSION: partial(engine.run, embedded), ALL: partial(engine.run, every)}
    for step in steps.values():
        step()
    return steps


def _seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
