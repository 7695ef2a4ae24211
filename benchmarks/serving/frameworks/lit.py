"""LitServe."""

import sys

import litserve
from fastapi import Response
from reference_model import Model


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        self.model = Model()

    def decode_request(self, request: dict) -> dict:
        return request

    def predict(self, x: dict) -> bytes:
        return self.model.answer(x)

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    server = litserve.LitServer(
        Api(api_path="/predict"),
        accelerator="cpu",
        workers_per_device=workers,
        timeout=60,
        fast_queue=True,
    )
    server.run("127.0.0.1", port, generate_client_file=False, log_level="error", access_log=False)
