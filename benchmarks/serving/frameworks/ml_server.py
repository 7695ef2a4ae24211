"""MLServer, with a custom endpoint like that of its MLflow runtime."""

import asyncio
import sys
import tempfile
from typing import Any

import uvloop
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from reference_model import Model
from starlette.responses import Response

uvloop.install()  # as MLServer's command does
asyncio.set_event_loop(
    uvloop.new_event_loop()
)  # the workers need an event loop, which older uvloops created


class Runtime(MLModel):
    async def load(self) -> bool:
        self.model = Model()
        return True

    @custom_handler(rest_path="/predict")
    async def answer(self, payload: dict[str, Any]) -> Response:
        return Response(self.model.answer(payload), media_type="application/json")


async def main(port: int, workers: int) -> None:
    folder = tempfile.mkdtemp()  # otherwise MLServer creates folders in the working directory
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,
        metrics_endpoint=None,
        gzip_enabled=False,
        parallel_workers=workers if workers > 1 else 0,  # 0: the model runs in the server's process
        environments_dir=folder,
        metrics_dir=folder,
        debug=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="m3h", implementation=Runtime)])


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
