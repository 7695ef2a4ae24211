"""BentoML."""

import os
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from kernel import Model


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 60})
class M3H:
    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(route="/predict")
    def predict(
        self, payload: dict[str, Any], /
    ) -> Annotated[bytes, ContentType("application/json")]:
        return self.model.answer(payload)
