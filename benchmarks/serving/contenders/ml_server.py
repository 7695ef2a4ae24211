"""MLServer: a runtime with an endpoint of its own, as its MLflow runtime has."""

import asyncio
import sys
from typing import Any

from kernel import Model
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from starlette.responses import Response


class Runtime(MLModel):
    async def load(self) -> bool:
        self.model = Model()
        return True

    @custom_handler(rest_path="/predict")
    async def answer(self, payload: dict[str, Any]) -> Response:
        return Response(self.model.answer(payload), media_type="application/json")


async def main(port: int, workers: int) -> None:
    settings = Settings(
        http_port=port,
        grpc_port=port + 1,
        metrics_port=port + 2,
        parallel_workers=workers,
        debug=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="m3h", implementation=Runtime)])


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
