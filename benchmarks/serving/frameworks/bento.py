"""BentoML."""

import os
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from pydantic import BaseModel
from reference_model import Model


class Body(BaseModel, extra="allow"):
    """Any JSON object. For `dict` or `bytes`, BentoML would build a schema in each request."""


@bentoml.service(
    workers=int(os.environ["WORKERS"]),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class M3H:
    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(route="/predict")
    async def predict(self, body: Body, /) -> Annotated[bytes, ContentType("application/json")]:
        return self.model.answer(body.model_extra)
