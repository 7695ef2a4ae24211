"""The OpenAPI document of bodies that are read by hand."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Lifespan

from schemas.manifest import Manifest
from schemas.payload import Payload
from schemas.response import Answer
from service.http.problems import MEDIA_TYPE, Problem

_REFERENCE = "#/components/schemas/{model}"

_MEANING = {
    400: "The body is no JSON",
    404: "Not in this bundle",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "A rule is not kept; `errors` says where and which",
    500: "An error of the service",
    503: "Not ready, or too busy; `Retry-After` says when to try again",
    504: "It cannot be answered in time",
}


class Batch(BaseModel):
    """Several patients."""

    items: list[Payload]


class BatchAnswer(BaseModel):
    """Answers in the order of the items. Pointers are relative to an item."""

    items: tuple[Answer | Problem, ...]


class Direct(APIRoute):
    """A route whose endpoint takes a Request and gives a Response, with nothing in between."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


class Documented(FastAPI):
    """A FastAPI app whose OpenAPI document has the request bodies and the problems.

    Its own routes are Direct.
    """

    def __init__(
        self,
        manifest: Manifest,
        lifespan: Lifespan[FastAPI],
        max_batch: int,
        root_path: str | None = None,
    ) -> None:
        self._max_batch = max_batch
        super().__init__(
            lifespan=lifespan,
            title=f"M3H: {manifest.name}",
            version=manifest.version,
            servers=[{"url": root_path}] if root_path else None,
            # Both are routes like the others (service.http.app), so that they are counted by name.
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            # FastAPI's own traces and logs hold query strings and messages of exceptions.
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        self.router.route_class = Direct

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for model in (Batch, Problem):
                schema = model.model_json_schema(ref_template=_REFERENCE)
                schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
            schemas["Batch"]["properties"]["items"] |= {"minItems": 1, "maxItems": self._max_batch}
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            self.openapi_schema = document
        return self.openapi_schema


def body(model: str) -> dict[str, Any]:
    """A request body by the name of its schema."""
    schema = {"$ref": _REFERENCE.format(model=model)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def parameters(**models: type[BaseModel]) -> dict[str, Any]:
    """The parameters in a query or in headers, by the fields of a model."""
    found = []
    for place, model in models.items():
        for name, schema in model.model_json_schema(by_alias=True)["properties"].items():
            description = schema.pop("description", "")
            found.append(
                {"name": name, "in": place, "required": False, "schema": schema}
                | ({"description": description} if description else {})
            )
    return {"parameters": found}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses that are problem documents."""
    schema = {"$ref": _REFERENCE.format(model="Problem")}
    return {
        status: {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """A successful response that is served as it lies in the bundle."""
    return {200: {"description": "As the bundle has it", "content": {media_type: {}}}}
