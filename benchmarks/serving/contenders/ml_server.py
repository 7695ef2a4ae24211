"""MLServer: a runtime with an endpoint of its own, as its MLflow runtime has."""

import asyncio
import sys
import tempfile
from typing import Any

import uvloop
from kernel import Model
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from starlette.responses import Response

uvloop.install()  # as its command does
asyncio.set_event_loop(uvloop.new_event_loop())  # its workers ask for one that older uvloops made


class Runtime(MLModel):
    async def load(self) -> bool:
        self.model = Model()
        return True

    @custom_handler(rest_path="/predict")
    async def answer(self, payload: dict[str, Any]) -> Response:
        return Response(self.model.answer(payload), media_type="application/json")


async def main(port: int, workers: int) -> None:
    folder = tempfile.mkdtemp()  # else it makes folders of its own here
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,
        metrics_endpoint=None,
        gzip_enabled=False,
        parallel_workers=workers if workers > 1 else 0,  # one is in the process of the server
        environments_dir=folder,
        metrics_dir=folder,
        debug=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="m3h", implementation=Runtime)])


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
