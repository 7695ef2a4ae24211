"""Five times what it can carry, from callers on the same processors: what becomes of them.

python benchmarks/serving/overload.py --data ../shared/data
"""

import argparse
import os
import tempfile
from pathlib import Path

import open_loop
import payloads
from run import SERVERS, load, megabytes, running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--kind", choices=payloads.KINDS, default="all")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--times", type=float, nargs="+", default=(0.5, 1, 2, 5))
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        payloads.make(options.data, Path(made))
        folder = Path(made) / options.kind
        bodies = [path.read_bytes() for path in sorted(folder.glob("*.json"))]
        with running(SERVERS[0], options.workers, options.bundle, Path()) as (url, leader):
            load(url, folder, 8, 3)
            best = max(load(url, folder, count, options.seconds).rate for count in (16, 64))
            print(f"{options.kind}: at best {best:.0f}/s by wrk; {megabytes(leader):.0f} MB")
            print("| times its best | answered/s, of its best | p50, p99 ms | refused | ", end="")
            print("p50, p99 ms | without Retry-After | other, unanswered | MB |")
            print("|---|---|---|---|---|---|---|---|")
            for times in options.times:
                found = open_loop.load(url, bodies, times * best, options.seconds)
                # What is still in the queue when no more come says nothing of the overload.
                answered = found.in_time / options.seconds
                refused = len(found.seconds.get(503, ()))
                other = sum(len(v) for k, v in found.seconds.items() if k not in (200, 503))
                cells = [
                    f"{times:g}",
                    f"{answered:.0f} ({answered / best:.2f})",
                    f"{1000 * found.within(200, 0.5):.0f}, {1000 * found.within(200, 0.99):.0f}",
                    f"{refused / found.sent:.0%}",
                    f"{1000 * found.within(503, 0.5):.1f}, {1000 * found.within(503, 0.99):.1f}",
                    f"{found.without_retry_after}",
                    f"{other}, {found.unanswered}",
                    f"{megabytes(leader):.0f}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
