"""Throughput of the ONNX sessions on a device, and of the engine that runs them.

For each graph and batch size, rows per second with `session.run`, with IO binding and inputs copied
to the device, and with IO binding and inputs already on the device, which is the limit. Then all
graphs without the engine, and with it. The variants alternate in each round. The tables have
medians, and ratios to the first variant.

    python benchmarks/gpu.py                    # on CUDA
    python benchmarks/gpu.py --device cpu       # a test run on any machine
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
from schemas.features import Array, collate, extract_features
from schemas.manifest import BundleError
from schemas.response import MODALITIES
from service.runtime.bundle import EMBEDDING, PRESENT, Bundle, LocalGraph
from service.runtime.engine import Engine

ROUNDS, SECONDS = 5, 0.3


def rows_per_second(run: Callable[[], object], rows: int) -> float:
    end = time.perf_counter() + SECONDS
    count, start = 0, time.perf_counter()
    while time.perf_counter() < end:
        run()
        count += rows
    return count / (time.perf_counter() - start)


def variants(
    session: LocalGraph, inputs: dict[str, Array], device: str
) -> dict[str, Callable[[], object]]:
    """The ways to run a session, by name."""
    onnx = session.onnx
    names = [tensor.name for tensor in session.graph.outputs]
    feeds = {tensor.name: inputs[tensor.name] for tensor in session.graph.inputs}

    def bind(*, on_device: bool) -> onnxruntime.IOBinding:
        binding = onnx.io_binding()
        for name, array in feeds.items():
            if on_device:
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, array)
        for name in names:
            binding.bind_output(name, device)
        return binding

    def run_copied() -> None:
        binding = bind(on_device=False)
        onnx.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()

    resident = bind(on_device=True)
    return {
        "session.run": partial(onnx.run, names, feeds),
        "IO binding, copied": run_copied,
        "IO binding, on the device": partial(onnx.run_with_iobinding, resident),
    }


def table(title: str, rows: int, runs: dict[str, Callable[[], object]]) -> None:
    for run in runs.values():
        for _ in range(3):
            run()
    by_variant: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            by_variant[name].append(rows_per_second(run, rows))
    first = next(iter(by_variant.values()))
    cells = [
        f"{statistics.median(rates):.0f} "
        f"({statistics.median(a / b for a, b in zip(rates, first, strict=True)):.2f})"
        for rates in by_variant.values()
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
    every = (extract_features(payload, bundle.manifest.spec).arrays for payload in payloads)
    samples = [sample for sample in every if len(sample) == len(MODALITIES)][: max(options.batches)]
    print("| graph | batch | session.run | IO binding, copied | IO binding, on the device |")
    print("|---|---|---|---|---|")
    for count in options.batches:
        batch = [samples[i % len(samples)] for i in range(count)]
        fused: dict[str, Array] = {PRESENT: np.ones((count, len(MODALITIES)), dtype=np.bool_)}
        for modality, encoder in bundle.encoders.items():
            assert isinstance(encoder, LocalGraph)
            inputs = collate([sample[modality] for sample in batch])
            table(modality, count, variants(encoder, inputs, options.device))
            fused[modality] = encoder.run(inputs)[EMBEDDING]
        assert isinstance(bundle.fusion, LocalGraph)
        table("fusion", count, variants(bundle.fusion, fused, options.device))
    print("\n| | batch | all graphs, bare | engine |\n|---|---|---|---|")
    for count in options.batches:
        batch = [samples[i % len(samples)] for i in range(count)]

        def bare(batch: list = batch) -> None:
            inputs = {PRESENT: np.ones((len(batch), len(MODALITIES)), dtype=np.bool_)}
            for modality, encoder in bundle.encoders.items():
                made = encoder.run(collate([sample[modality] for sample in batch]))
                inputs[modality] = made[EMBEDDING]
            bundle.fusion.run(inputs)

        table("all four", count, {"bare": bare, "engine": partial(engine.run, batch)})


if __name__ == "__main__":
    main()
