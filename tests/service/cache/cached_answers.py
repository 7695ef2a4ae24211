"""Compares answers and counts the origins of embeddings, for the tests of both caches."""

from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from schemas.response import Modality
from tests.service.conftest import Service
from tests.support.servers.prometheus import scraped

CACHED: tuple[Modality, ...] = ("series", "notes", "image")
SECRET = "of these tests alone"
REDIS = {"redis_secret": SecretStr(SECRET), "redis_ms": 200}


def counts(service: Service, origin: str) -> dict[str, int]:
    """Embeddings of each modality that came from `origin`."""
    text = service.client.get("/metrics").text
    name = 'm3h_embeddings_total{{modality="{}",origin="{}"}}'
    return {m: int(scraped(text, name.format(m, origin))) for m in CACHED}


def numbers(answer: dict[str, Any]) -> list[float]:
    values: list[float] = []
    for prediction in answer["predictions"]:
        values += [prediction[name] for name in ("probability", "value") if name in prediction]
        values += prediction.get("probabilities", {}).values()
    return values


def assert_same_answer(first: dict[str, Any], second: dict[str, Any]) -> None:
    np.testing.assert_allclose(numbers(first), numbers(second), atol=1e-5)
    for modality, use in first["receipt"]["modalities"].items():
        other_use = second["receipt"]["modalities"][modality]
        assert use | {"unusual": None} == other_use | {"unusual": None}
        assert use.get("unusual") == pytest.approx(other_use.get("unusual"), abs=1e-5)
    for field in ("used", "ignored", "converted", "merged", "treatments"):
        assert first["receipt"][field] == second["receipt"][field]
