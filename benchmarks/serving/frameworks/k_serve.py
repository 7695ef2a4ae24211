"""KServe's Python server, version 1 of its protocol."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import kserve
from reference_model import Model

logging.basicConfig(
    level=logging.ERROR
)  # otherwise KServe configures logging and logs each request


class M3H(kserve.Model):
    def __init__(self) -> None:
        super().__init__("m3h", return_response_headers=True)
        self.ready = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Loads the model in each worker, which receives this object by pickle."""
        self.__dict__ = state
        self.load()

    def load(self) -> bool:
        self.model = Model()
        return True

    async def predict(
        self,
        payload: dict[str, Any],
        headers: Mapping[str, str],  # noqa: ARG002 - KServe passes it by name
        response_headers: dict[str, str],
    ) -> bytes:
        response_headers["content-type"] = "application/json"
        return self.model.answer(payload)


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    model = M3H()
    if workers == 1:
        model.load()
    kserve.ModelServer(
        http_port=port, workers=workers, enable_grpc=False, enable_latency_logging=False
    ).start([model])
