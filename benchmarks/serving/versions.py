"""Compare this version with another one: throughput, latency and answers, in one run.

`--before` is a checkout of the other version with an environment of its own (`make .venv/serve`).
The two take turns, several rounds each, under the same load; the ratios are of neighbouring turns.

    git worktree add /tmp/before v0.1.0 && make -C /tmp/before .venv/serve
    python benchmarks/serving/versions.py --before /tmp/before --data ../shared/data
"""

import argparse
import json
import os
import statistics
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import payloads
from run import SERVERS, Measured, load, megabytes, running

SAME = 1e-6  # answers that differ by no more are equal
NOW, BEFORE = "this version", "before"


def numbers(answer: dict) -> dict[str, float]:
    """Every number of an answer's predictions, by its path."""
    found = {}
    for one in answer["predictions"]:
        task = one["task"]
        for name in ("probability", "value"):
            if name in one:
                found[f"{task} {name}"] = one[name]
        for name in ("probabilities", "interval"):
            for part, number in one.get(name, {}).items():
                found[f"{task} {name} {part}"] = number
    return found


def answers(url: str, bodies: Sequence[bytes]) -> list[dict[str, float]]:
    found = []
    for body in bodies:
        asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            found.append(numbers(json.load(answer)))
    return found


def furthest(now: Sequence[dict[str, float]], before: Sequence[dict[str, float]]) -> float:
    """The largest difference of any number; infinite if one has a number that the other has not."""
    if any(a.keys() != b.keys() for a, b in zip(now, before, strict=True)):
        return float("inf")
    return max(abs(a[k] - b[k]) for a, b in zip(now, before, strict=True) for k in a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--kinds", nargs="+", default=("vitals", "notes", "all"))
    parser.add_argument("--connections", type=int, nargs="+", default=(1, 16, 64))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    other = options.before.resolve() / ".venv" / "bin"
    command = SERVERS[0].command.replace("{bin}", str(other))
    servers = {
        NOW: SERVERS[0],
        BEFORE: replace(SERVERS[0], command=command, python=other / "python"),
    }
    with tempfile.TemporaryDirectory() as made:
        bodies = Path(made)
        payloads.make(options.data, bodies)
        print("| kind | connections | requests/s | ratio (rounds) | p50 | p99 | MB | answers |")
        print("|---|---|---|---|---|---|---|---|")
        for kind in options.kinds:
            compare(servers, bodies / kind, options)


def compare(servers: dict, bodies: Path, options: argparse.Namespace) -> None:
    content = [path.read_bytes() for path in sorted(bodies.glob("*.json"))]
    found: dict[tuple[str, int], list[Measured]] = {}
    said: dict[str, list[dict[str, float]]] = {}
    memory: dict[str, float] = {}
    for number in range(options.rounds):
        # Who comes second meets a machine that the first has warmed: they take turns.
        for name in (NOW, BEFORE) if number % 2 else (BEFORE, NOW):
            with running(servers[name], options.workers, options.bundle, Path()) as (url, leader):
                said[name] = answers(url, content)
                load(url, bodies, 4, 1)
                for count in options.connections:
                    one = load(url, bodies, count, options.seconds)
                    found.setdefault((name, count), []).append(one)
                memory[name] = megabytes(leader)
    difference = furthest(said[NOW], said[BEFORE])
    equal = f"equal to {SAME:g}" if difference <= SAME else f"differ by {difference:.2g}"
    for count in options.connections:
        now, before = found[NOW, count], found[BEFORE, count]
        ratios = [a.rate / b.rate for a, b in zip(now, before, strict=True)]
        rate = statistics.median(one.rate for one in now)
        middle = {
            name: statistics.median(
                getattr(a, name) / getattr(b, name) for a, b in zip(now, before, strict=True)
            )
            for name in ("p50", "p99")
        }
        cells = [
            bodies.name,
            str(count),
            f"{rate:.0f}",
            f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{middle['p50']:.2f}",
            f"{middle['p99']:.2f}",
            f"{memory[NOW]:.0f}, before {memory[BEFORE]:.0f}",
            equal,
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
