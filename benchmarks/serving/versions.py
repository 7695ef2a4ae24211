"""Compare this version with another one: throughput, latency and answers, in one run.

`--before` is a checkout of the other version with an environment of its own (`make .venv/serve`).
Both run at the same time and take turns under the same load, a second each; a ratio is that of two
neighbouring turns, and the table shows the median and the middle half. A body that either version
refuses is sent to neither.

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
from run import SERVERS, Measured, Server, load, megabytes, running

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


def answer_of(url: str, body: bytes) -> dict[str, float] | None:
    """The numbers of the answer; None if the body is refused."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return numbers(json.load(answer))
    except urllib.error.HTTPError as error:
        if error.code != 422:
            raise
        return None


def keep_accepted(bodies: Path, urls: dict[str, str]) -> str:
    """Removes the bodies that either version refuses. Returns how the other answers compare."""
    paths = sorted(bodies.glob("*.json"))
    given = {
        name: [answer_of(url, path.read_bytes()) for path in paths] for name, url in urls.items()
    }
    differences = []
    for path, now, before in zip(paths, given[NOW], given[BEFORE], strict=True):
        if now is None or before is None:
            path.unlink()
        elif now.keys() == before.keys():
            differences.append(max(abs(now[k] - before[k]) for k in now))
        else:
            differences.append(math.inf)
    equal = sum(difference <= SAME for difference in differences)
    return (
        f"{equal} of {len(differences)} equal to {SAME:g}, the furthest differs by "
        f"{max(differences):.2g}; {len(paths) - len(differences)} refused by one version"
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
    with tempfile.TemporaryDirectory() as made:
        bodies = Path(made)
        payloads.make(options.data, bodies)
        print(
            "| kind | connections | requests/s | ratio (middle half) | p50 | p99 | MB | answers |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for kind in options.kinds:
            compare(servers, bodies / kind, options)


def compare(servers: dict[str, Server], bodies: Path, options: argparse.Namespace) -> None:
    measured: dict[tuple[str, int], list[Measured]] = {}
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(running(server, options.workers, options.bundle, Path()))
            for name, server in servers.items()
        }
        urls = {name: url for name, (url, _) in started.items()}
        equal = keep_accepted(bodies, urls)
        for url in urls.values():
            load(url, bodies, 4, 2)
        for number in range(options.rounds):
            for count in options.connections:
                for name in (NOW, BEFORE) if number % 2 else (BEFORE, NOW):
                    turn = load(urls[name], bodies, count, options.seconds)
                    measured.setdefault((name, count), []).append(turn)
        memory = {name: megabytes(leader) for name, (_, leader) in started.items()}
    for count in options.connections:
        now, before = measured[NOW, count], measured[BEFORE, count]
        ratios = [a.rate / b.rate for a, b in zip(now, before, strict=True)]
        low, middle_ratio, high = statistics.quantiles(ratios, n=4)
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
            f"{middle_ratio:.3f} ({low:.2f} to {high:.2f})",
            f"{middle['p50']:.2f}",
            f"{middle['p99']:.2f}",
            f"{memory[NOW]:.0f}, before {memory[BEFORE]:.0f}",
            equal,
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
