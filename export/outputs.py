"""The outputs of a bundle for all samples of a cohort."""

import numpy as np
import numpy.typing as npt

from model.cohorts.samples import Samples
from schemas.response import MODALITIES
from service.runtime.bundle import ATTENTION, UNUSUAL, Bundle
from service.runtime.engine import Engine

CHUNK = 64


def run_samples(bundle: Bundle, samples: Samples) -> dict[str, npt.NDArray[np.float64]]:
    """Each output of the samples, [n, …], without the attention.

    `unusual` is [n, 4], NaN where a modality is absent.
    """
    engine = Engine(bundle)
    chunks = np.array_split(np.arange(len(samples)), -(-len(samples) // CHUNK))
    results = [
        result for rows in chunks for result in engine.run([samples.arrays(row) for row in rows])
    ]
    names = results[0].fusion.keys() - {ATTENTION}
    outputs = {name: np.stack([result.fusion[name] for result in results]) for name in names}
    outputs[UNUSUAL] = np.array([[r.unusual.get(m, np.nan) for m in MODALITIES] for r in results])
    return {name: values.astype(np.float64) for name, values in outputs.items()}
