"""The OpenAPI document, with the bodies and problems that FastAPI cannot derive itself."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Lifespan

from schemas.manifest import Manifest
from schemas.payload import Payload
from schemas.response import Answer
from service.http import openapi_examples
from service.http.negotiation import JSON
from service.http.problems import MEDIA_TYPE, Problem
from service.interop.cds_hooks.models import Feedback, HookRequest

_REFERENCE = "#/components/schemas/{model}"

DESCRIPTIONS = {
    400: "The body is not JSON",
    401: "The request needs a valid JSON Web Token",
    404: "The served bundle does not have it",
    406: "The client accepts no format of the response",
    408: "The body did not arrive in time",
    412: "Data are missing without which nothing can be predicted; `errors` lists them",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "The request breaks a rule; `errors` lists each location and rule",
    500: "Internal error",
    503: "Not ready or too busy; retry after the seconds in `Retry-After`",
    504: "The deadline cannot be met",
}


class Batch(BaseModel):
    """The payloads of several patients."""

    items: list[Payload]


class BatchAnswer(BaseModel):
    """Answers in the order of the items. Pointers are relative to an item."""

    items: tuple[Answer | Problem, ...]


class RawRoute(APIRoute):
    """A route that passes the Request to its endpoint and returns its Response unchanged."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


class OpenAPIApp(FastAPI):
    """A FastAPI app that adds request bodies and problems to its OpenAPI document.

    Routes that are added to the app itself are RawRoutes.
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
            # service.http.routes.openapi and .pages have these routes, so that metrics count them.
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            # FastAPI's own traces and logs contain query strings and exception messages.
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        self.router.route_class = RawRoute

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for model in (Batch, Problem, HookRequest, Feedback):
                schema = model.model_json_schema(ref_template=_REFERENCE)
                schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
            schemas["Batch"]["properties"]["items"] |= {"minItems": 1, "maxItems": self._max_batch}
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            self.openapi_schema = document
        return self.openapi_schema


def body(model: str, example: dict[str, Any]) -> dict[str, Any]:
    """A required JSON body. `model`: name of its schema."""
    media = {"schema": {"$ref": _REFERENCE.format(model=model)}, "example": example}
    return {"requestBody": {"required": True, "content": {JSON: media}}}


def parameters(**models: type[BaseModel]) -> dict[str, Any]:
    """Parameters from the fields of models, by location: `query` or `header`."""
    entries = []
    for location, model in models.items():
        for name, schema in model.model_json_schema(by_alias=True)["properties"].items():
            description = schema.pop("description", "")
            entries.append(
                {"name": name, "in": location, "required": False, "schema": schema}
                | ({"description": description} if description else {})
            )
    return {"parameters": entries}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses that are problem documents."""
    schema = {"$ref": _REFERENCE.format(model="Problem")}
    return {
        status: {
            "description": DESCRIPTIONS[status],
            "content": {
                MEDIA_TYPE: {
                    "schema": schema,
                    "example": openapi_examples.PROBLEMS[status].model_dump(exclude_defaults=True),
                }
            },
        }
        for status in statuses
    }


def example(value: dict[str, Any] | BaseModel) -> dict[int | str, dict[str, Any]]:
    """An example of the JSON response with status 200."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True)
    return {200: {"content": {JSON: {"example": value}}}}


def text(media_type: str, example: str) -> dict[int | str, dict[str, Any]]:
    """A text response with status 200."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}, "example": example}}}}


def merge(*responses: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """All responses. Those of one status differ in their media types."""
    merged: dict[int | str, dict[str, Any]] = {}
    for by_status in responses:
        for status, entry in by_status.items():
            content = merged.get(status, {}).get("content", {}) | entry["content"]
            merged[status] = merged.get(status, {}) | entry | {"content": content}
    return merged
