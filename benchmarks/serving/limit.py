"""The upper limit of throughput: one process per CPU computes requests in a loop, without HTTP."""

import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

from reference_model import Model

MODES = ("bytes to bytes", "graphs only")


def _loop(mode: str, bodies: Sequence[bytes], seconds: float, begin: Barrier) -> float:
    model = Model()
    prepared = [model.prepare(body).sample for body in bodies]
    for body in bodies[:8]:
        model.answer(body)
    begin.wait()
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        if mode == MODES[0]:
            model.answer(bodies[count % len(bodies)])
        else:
            model.engine.run([prepared[count % len(bodies)]])
        count += 1
    return count / (time.perf_counter() - start)


def rate(mode: str, bodies: Sequence[bytes], processes: int, seconds: float) -> float:
    """Returns the requests per second of all processes together."""
    context = get_context("spawn")
    with context.Manager() as manager, context.Pool(processes) as pool:
        begin = manager.Barrier(processes)
        rates = [pool.apply_async(_loop, (mode, bodies, seconds, begin)) for _ in range(processes)]
        return sum(result.get() for result in rates)
