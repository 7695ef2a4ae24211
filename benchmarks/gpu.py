"""What of a device's speed the service keeps: bare sessions, and all that is put around them.

For each graph and size of a batch: rows a second by `session.run`; by IO binding with the inputs
copied to the device; by IO binding with the inputs there already, which is the limit; and by the
engine. One after the other in each round; what is told are medians, and ratios to `session.run`.

    python benchmarks/gpu.py                    # on CUDA
    python benchmarks/gpu.py --device cpu       # on any machine, to see that it runs
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from model.cohorts.synthetic import patients
from schemas.features import Array, features, stack
from schemas.manifest import BundleError
from schemas.response import MODALITIES
from service.runtime.bundle import EMBEDDING, PRESENT, Bundle, LocalGraph
from service.runtime.engine import Engine

ROUNDS, SECONDS = 5, 0.3


def rows_per_second(run: Callable[[], object], rows: int) -> float:
    end = time.perf_counter() + SECONDS
    count, began = 0, time.perf_counter()
    while time.perf_counter() < end:
        run()
        count += rows
    return count / (time.perf_counter() - began)


def ways(
    session: LocalGraph, inputs: dict[str, Array], device: str
) -> dict[str, Callable[[], object]]:
    """How a session may be run, by name."""
    onnx = session.onnx
    names = [tensor.name for tensor in session.graph.outputs]
    feeds = {tensor.name: inputs[tensor.name] for tensor in session.graph.inputs}

    def bound(*, there: bool) -> onnxruntime.IOBinding:
        binding = onnx.io_binding()
        for name, array in feeds.items():
            if there:
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, array)
        for name in names:
            binding.bind_output(name, device)
        return binding

    def copied() -> None:
        binding = bound(there=False)
        onnx.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()

    resident = bound(there=True)
    return {
        "session.run": partial(onnx.run, names, feeds),
        "IO binding, copied": copied,
        "IO binding, on the device": partial(onnx.run_with_iobinding, resident),
    }


def table(title: str, rows: int, runs: dict[str, Callable[[], object]]) -> None:
    for run in runs.values():
        for _ in range(3):
            run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            found[name].append(rows_per_second(run, rows))
    first = next(iter(found.values()))
    cells = [
        f"{statistics.median(rates):.0f} "
        f"({statistics.median(a / b for a, b in zip(rates, first, strict=True)):.2f})"
        for rates in found.values()
    ]
    print(f"| {title} | {rows} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 8, 32, 128))
    options = parser.parse_args()
    try:
        bundle = Bundle.load(options.bundle, options.device)
    except BundleError as error:
        raise SystemExit(f"gpu.py: {error}") from None
    engine = Engine(bundle)
    engine.replay_golden()
    payloads = (record.payload for record in patients(2000, seed=1))
    every = (features(payload, bundle.manifest.spec).arrays for payload in payloads)
    samples = [sample for sample in every if len(sample) == len(MODALITIES)][: max(options.batches)]
    print("| graph | batch | session.run | IO binding, copied | IO binding, on the device |")
    print("|---|---|---|---|---|")
    for count in options.batches:
        some = [samples[i % len(samples)] for i in range(count)]
        fused: dict[str, Array] = {PRESENT: np.ones((count, len(MODALITIES)), dtype=np.bool_)}
        for modality, encoder in bundle.encoders.items():
            assert isinstance(encoder, LocalGraph)
            inputs = stack([sample[modality] for sample in some])
            table(modality, count, ways(encoder, inputs, options.device))
            fused[modality] = encoder.run(inputs)[EMBEDDING]
        assert isinstance(bundle.fusion, LocalGraph)
        table("fusion", count, ways(bundle.fusion, fused, options.device))
    print("\n| | batch | all graphs, bare | engine |\n|---|---|---|---|")
    for count in options.batches:
        some = [samples[i % len(samples)] for i in range(count)]

        def bare(some: list = some) -> None:
            inputs = {PRESENT: np.ones((len(some), len(MODALITIES)), dtype=np.bool_)}
            for modality, encoder in bundle.encoders.items():
                made = encoder.run(stack([sample[modality] for sample in some]))
                inputs[modality] = made[EMBEDDING]
            bundle.fusion.run(inputs)

        table("all four", count, {"bare": bare, "engine": partial(engine.run, some)})


if __name__ == "__main__":
    main()
