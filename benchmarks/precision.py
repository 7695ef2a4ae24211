"""Inference time of two bundles with different precision, for each graph.

Both run the golden requests of the first, in alternation. The table has medians, and the median of
the ratios of a round. The row `all` is a whole request without feature extraction.

    m3h-export bundles/m3h-open bundles/int8 --precision int8 --cohort runs/mimic_iv
    python benchmarks/precision.py bundles/m3h-open bundles/int8
"""

import argparse
from pathlib import Path

from export.precision.benchmark_graphs import benchmark_graphs
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    old, new = (
        Engine(Bundle.load(path, options.device, options.threads))
        for path in (options.old, options.new)
    )
    print(f"{'graph':8} {'batch':>5} {'old ms':>8} {'new ms':>8} {'new / old':>9}")
    for batch in options.batch:
        for name, (before, after, ratio) in benchmark_graphs(old, new, batch).items():
            print(f"{name:8} {batch:5} {before * 1e3:8.3f} {after * 1e3:8.3f} {ratio:9.2f}")


if __name__ == "__main__":
    main()
