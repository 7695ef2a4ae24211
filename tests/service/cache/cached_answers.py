"""What the tests of the caches share: answers compared, and origins of embeddings counted."""

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
    found: list[float] = []
    for one in answer["predictions"]:
        found += [one[name] for name in ("probability", "value") if name in one]
        found += one.get("probabilities", {}).values()
    return found


def assert_same_answer(one: dict[str, Any], other: dict[str, Any]) -> None:
    np.testing.assert_allclose(numbers(one), numbers(other), atol=1e-5)
    for modality, use in one["receipt"]["modalities"].items():
        also = other["receipt"]["modalities"][modality]
        assert use | {"unusual": None} == also | {"unusual": None}
        assert use.get("unusual") == pytest.approx(also.get("unusual"), abs=1e-5)
    for field in ("used", "ignored", "converted", "merged", "treatments"):
        assert one["receipt"][field] == other["receipt"][field]
