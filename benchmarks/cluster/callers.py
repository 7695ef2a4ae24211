"""Callers who come at a rate, whatever becomes of the last, and know what the right answer is."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from model.cohorts import synthetic
from schemas.payload import Payload

PATIENTS = 50
# A patient comes again with another vital sign: notes, X-ray and the rest are as they were.
VERSIONS = (1.0, 0.9, 1.1)
TOLERANCE = 1e-6
# A rank among patients: where these are dense, the last bits of a batch move it.
LOOSER = {"unusual": 1e-4}
SECONDS = 30  # that a caller waits

Answer = dict[str, Any]


def bodies(examples: Path) -> list[bytes]:
    """Requests of all kinds: the examples, and synthetic patients in several versions."""
    found = [path.read_bytes() for path in sorted(examples.glob("*.json"))]
    for record in synthetic.patients(PATIENTS, seed=7):
        for times in VERSIONS if record.payload.series else VERSIONS[:1]:
            changed = _changed(record.payload, times)
            text = changed.model_dump_json(exclude_none=True, exclude_defaults=True)
            found.append(text.encode())
    return found


def _changed(patient: Payload, times: float) -> Payload:
    if times == 1:
        return patient
    first, *others = patient.series
    *earlier, last = first.values
    changed = first.model_copy(update={"values": [*earlier, last * times]})
    return patient.model_copy(update={"series": [changed, *others]})


@dataclass
class Asked:
    """One request. `due` by the monotonic clock, `seconds` from then to the answer's last byte.

    `fault`: why there is no answer; `wrong`: where the answer is not the right one.
    """

    id: str
    due: float
    seconds: float = 0.0
    fault: str = ""
    wrong: str = ""


class Callers:
    """`right`: the answers to the bodies, in order, by the digest of each bundle that is served.

    `window`: the requests that are sent from now on; whoever counts them puts another in its place.
    """

    def __init__(
        self, url: str, bodies: Sequence[bytes], right: dict[str, list[Answer]], rate: float
    ) -> None:
        self.right = right
        self.window: list[asyncio.Task[Asked]] = []
        self.rate = rate
        self._url, self._bodies = url, bodies
        self._ids: set[str] = set()

    async def come(self) -> None:
        """Until cancelled; Poisson arrivals."""
        draw = np.random.default_rng(0)
        # Each over a connection of its own: HAProxy would expect those who reuse one to try again.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        due = time.monotonic()
        async with httpx.AsyncClient(
            base_url=self._url, timeout=SECONDS, limits=limits, trust_env=False
        ) as client:
            for number in itertools.count():
                due += draw.exponential(1 / self.rate)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                which = int(draw.integers(len(self._bodies)))
                asked = Asked(f"caller-{number}", due)
                self.window.append(asyncio.create_task(self._ask(client, which, asked)))

    async def _ask(self, client: httpx.AsyncClient, which: int, asked: Asked) -> Asked:
        headers = {"Content-Type": "application/json", "X-Request-ID": asked.id}
        try:
            response = await client.post("/predict", content=self._bodies[which], headers=headers)
        except httpx.HTTPError as error:
            asked.fault = type(error).__name__
            return asked
        finally:
            asked.seconds = time.monotonic() - asked.due
        if response.status_code != 200:
            asked.fault = f"{response.status_code} {' '.join(response.text.split())[:100]}"
        elif response.headers["x-request-id"] != asked.id:
            asked.wrong = "the answer to another request: X-Request-ID"
        else:
            asked.wrong = self._wrong(which, orjson.loads(response.content))
        return asked

    def _wrong(self, which: int, answer: Answer) -> str:
        if answer["id"] in self._ids:
            return "an answer that was given before: /id"
        self._ids.add(answer["id"])
        right = self.right.get(answer["model"]["digest"])
        if right is None:
            return "from a bundle that is not served: /model/digest"
        return next(differences(lasting(answer), right[which]), "")


def lasting(answer: Answer) -> Answer:
    """What is the same whenever the request is answered."""
    return {name: part for name, part in answer.items() if name not in ("id", "timing_ms")}


def differences(one: Any, other: Any, at: str = "", tolerance: float = TOLERANCE) -> Iterator[str]:
    """Pointers to where they differ; numbers by more than the tolerance (above 1: of them)."""
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            looser = LOOSER.get(name, tolerance)
            yield from differences(one[name], other[name], f"{at}/{name}", looser)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{at}/{place}", tolerance)
    elif isinstance(one, float) and isinstance(other, float):
        if not abs(one - other) <= tolerance * max(1.0, abs(other)):
            yield f"{at}: {one} is not {other}"
    else:
        yield at
