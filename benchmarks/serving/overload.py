"""Throughput, latency and rejections at up to five times the capacity; clients use the same CPUs.

python benchmarks/serving/overload.py --data ../shared/data
"""

import argparse
import os
import tempfile
from pathlib import Path

import open_loop
import payloads
from run import SERVERS, load, megabytes, running


def quantiles(result: open_loop.OpenLoopResult, status: int, digits: int) -> str:
    """Formats p50 and p99 of the latency in ms."""
    return ", ".join(f"{1000 * result.quantile(status, q):.{digits}f}" for q in (0.5, 0.99))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--kind", choices=payloads.KINDS, default="all")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--times", type=float, nargs="+", default=(0.5, 1, 2, 5))
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        payloads.write(options.data, Path(scratch))
        folder = Path(scratch) / options.kind
        bodies = [path.read_bytes() for path in sorted(folder.glob("*.json"))]
        with running(SERVERS[0], options.workers, options.bundle, Path()) as (url, leader):
            load(url, folder, 8, 3)
            capacity = max(load(url, folder, count, options.seconds).rate for count in (16, 64))
            print(f"{options.kind}: capacity {capacity:.0f}/s (wrk); {megabytes(leader):.0f} MB")
            print(
                "| load / capacity | answered/s (of capacity) | p50, p99 ms | rejected | ", end=""
            )
            print("p50, p99 ms | without Retry-After | other, unanswered | MB |")
            print("|---|---|---|---|---|---|---|---|")
            for times in options.times:
                result = open_loop.load(url, bodies, times * capacity, options.seconds)
                # Answers after the last arrival are not counted: the overload has ended by then.
                answered = result.in_time / options.seconds
                rejected = len(result.seconds.get(503, ()))
                other = sum(len(v) for k, v in result.seconds.items() if k not in (200, 503))
                cells = [
                    f"{times:g}",
                    f"{answered:.0f} ({answered / capacity:.2f})",
                    quantiles(result, 200, digits=0),
                    f"{rejected / result.sent:.0%}",
                    quantiles(result, 503, digits=1),
                    f"{result.without_retry_after}",
                    f"{other}, {result.unanswered}",
                    f"{megabytes(leader):.0f}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
