"""Compares two versions of the service: throughput, latency and answers.

`--before` is a checkout of the other version with its own environment (`make .venv/serve`). Both
versions run at the same time and get the same load in turn, for one second each. A ratio compares
two adjacent turns; the table shows the median and the interquartile range. Bodies that either
version rejects are left out.

    git worktree add /tmp/before v0.1.0 && make -C /tmp/before .venv/serve
    python benchmarks/serving/versions.py --before /tmp/before --data ../shared/data
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import payloads
from run import SERVERS, LoadResult, Server, load, megabytes, running

TOLERANCE = 1e-6  # largest difference of equal answers
NOW, BEFORE = "this version", "before"


def numbers(answer: dict) -> dict[str, float]:
    """Returns the numbers of an answer's predictions, by task and field."""
    result = {}
    for prediction in answer["predictions"]:
        task = prediction["task"]
        for name in ("probability", "value"):
            if name in prediction:
                result[f"{task} {name}"] = prediction[name]
        for name in ("probabilities", "interval"):
            for part, number in prediction.get(name, {}).items():
                result[f"{task} {name} {part}"] = number
    return result


def answer_of(url: str, body: bytes) -> dict[str, float] | None:
    """Returns the numbers of the answer, or None if the body is rejected."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return numbers(json.load(answer))
    except urllib.error.HTTPError as error:
        if error.code != 422:
            raise
        return None


def keep_accepted(bodies: Path, urls: dict[str, str]) -> str:
    """Deletes the bodies that either version rejects. Returns a comparison of the other answers."""
    paths = sorted(bodies.glob("*.json"))
    answers = {
        name: [answer_of(url, path.read_bytes()) for path in paths] for name, url in urls.items()
    }
    differences = []
    for path, now, before in zip(paths, answers[NOW], answers[BEFORE], strict=True):
        if now is None or before is None:
            path.unlink()
        elif now.keys() == before.keys():
            differences.append(max(abs(now[k] - before[k]) for k in now))
        else:
            differences.append(math.inf)
    equal = sum(difference <= TOLERANCE for difference in differences)
    return (
        f"{equal} of {len(differences)} equal within {TOLERANCE:g}, largest difference "
        f"{max(differences):.2g}; {len(paths) - len(differences)} rejected by a version"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--kinds", nargs="+", default=("vitals", "notes", "all"))
    parser.add_argument("--connections", type=int, nargs="+", default=(1, 16, 64))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    other = options.before.resolve() / ".venv" / "bin"
    command = SERVERS[0].command.replace("{bin}", str(other))
    servers = {
        NOW: SERVERS[0],
        BEFORE: replace(SERVERS[0], command=command, python=other / "python"),
    }
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder)
        payloads.write(options.data, bodies)
        print(
            "| kind | connections | requests/s | ratio (interquartile range) | p50 | p99 ", end=""
        )
        print("| MB | answers |")
        print("|---|---|---|---|---|---|---|---|")
        for kind in options.kinds:
            compare(servers, bodies / kind, options)


def compare(servers: dict[str, Server], bodies: Path, options: argparse.Namespace) -> None:
    loads: dict[tuple[str, int], list[LoadResult]] = {}
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(running(server, options.workers, options.bundle, Path()))
            for name, server in servers.items()
        }
        urls = {name: url for name, (url, _) in started.items()}
        comparison = keep_accepted(bodies, urls)
        for url in urls.values():
            load(url, bodies, 4, 2)
        for number in range(options.rounds):
            for count in options.connections:
                for name in (NOW, BEFORE) if number % 2 else (BEFORE, NOW):
                    turn = load(urls[name], bodies, count, options.seconds)
                    loads.setdefault((name, count), []).append(turn)
        memory = {name: megabytes(leader) for name, (_, leader) in started.items()}
    for count in options.connections:
        now, before = loads[NOW, count], loads[BEFORE, count]
        ratios = [a.rate / b.rate for a, b in zip(now, before, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        rate = statistics.median(result.rate for result in now)
        latency = {
            name: statistics.median(
                getattr(a, name) / getattr(b, name) for a, b in zip(now, before, strict=True)
            )
            for name in ("p50", "p99")
        }
        cells = [
            bodies.name,
            str(count),
            f"{rate:.0f}",
            f"{median:.3f} ({low:.2f} to {high:.2f})",
            f"{latency['p50']:.2f}",
            f"{latency['p99']:.2f}",
            f"{memory[NOW]:.0f}, before {memory[BEFORE]:.0f}",
            comparison,
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
