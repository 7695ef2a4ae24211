"""The limit: one process on each processor in a bare loop, without HTTP, one request at a time."""

import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

from kernel import Model

from service.prediction.predictor import Job, Options

WAYS = ("bytes to bytes", "the graphs alone")


def _loop(way: str, bodies: Sequence[bytes], seconds: float, begin: Barrier) -> float:
    model = Model()
    prepared = [model.predictor.prepare(Job(body, Options())).sample for body in bodies]
    for body in bodies[:8]:
        model.answer(body)
    begin.wait()
    count, end = 0, time.perf_counter() + seconds
    began = time.perf_counter()
    while time.perf_counter() < end:
        if way == WAYS[0]:
            model.answer(bodies[count % len(bodies)])
        else:
            model.engine.run([prepared[count % len(bodies)]])
        count += 1
    return count / (time.perf_counter() - began)


def rate(way: str, bodies: Sequence[bytes], processes: int, seconds: float) -> float:
    """Requests in a second, of all processes together."""
    context = get_context("spawn")
    with context.Manager() as manager, context.Pool(processes) as pool:
        begin = manager.Barrier(processes)
        found = [pool.apply_async(_loop, (way, bodies, seconds, begin)) for _ in range(processes)]
        return sum(one.get() for one in found)
