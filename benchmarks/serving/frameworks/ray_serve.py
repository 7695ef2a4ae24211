"""Ray Serve."""

import sys

import ray
from ray import serve
from reference_model import Model
from starlette.requests import Request
from starlette.responses import Response


class M3H:
    def __init__(self) -> None:
        self.model = Model()

    async def __call__(self, request: Request) -> Response:
        return Response(self.model.answer(await request.body()), media_type="application/json")


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    ray.init(num_cpus=max(workers, 2), include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(
        num_replicas=workers,
        max_ongoing_requests=256,
        ray_actor_options={"num_cpus": 1},
        logging_config={"enable_access_log": False},
    )(M3H)
    serve.run(deployment.bind(), route_prefix="/predict", blocking=True)
