"""KServe's Python server, version 1 of its protocol."""

import sys
from collections.abc import Mapping
from typing import Any

import kserve
from kernel import Model


class M3H(kserve.Model):
    def __init__(self) -> None:
        super().__init__("m3h")
        self.load()

    def load(self) -> bool:
        self.model = Model()
        self.ready = True
        return True

    async def predict(
        self,
        payload: dict[str, Any],
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - as it is called
        response_headers: Mapping[str, str] | None = None,  # noqa: ARG002 - as it is called
    ) -> bytes:
        return self.model.answer(payload)


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    kserve.ModelServer(
        http_port=port, workers=workers, enable_grpc=False, access_log_format=None
    ).start([M3H()])
