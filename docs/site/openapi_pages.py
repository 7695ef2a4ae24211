"""The page of the HTTP API, generated from the service's OpenAPI document."""

from pathlib import Path
from typing import Any

from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings

ROOT = Path(__file__).parents[2]


def http_api() -> str:
    """Return the Markdown text of all endpoints and schemas."""
    bundle = Bundle.load(ROOT / "bundles" / "m3h-open", "cpu")
    document = create_app(Engine(bundle), Settings()).openapi()
    page = [
        "# HTTP API",
        "This page is generated from the document at `GET /openapi.json`.",
        "[Predict](predict.md) explains the most important endpoint.",
        "## Endpoints",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            page += _operation(method, path, operation)
    page.append("## Schemas")
    for name, schema in sorted(document["components"]["schemas"].items()):
        page += _schema(name, schema)
    return "\n\n".join(page) + "\n"


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    page = [f"### {method.upper()} {path}", operation.get("summary", "") + "."]
    page.append(operation.get("description", ""))
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            f"| `{p['name']}` | {p['in']} | {_type(p['schema'])} "
            f"| {_cell(p.get('description', ''))} |"
            for p in parameters
        ]
        page.append("\n".join(["| parameter | in | type | meaning |", "|---|---|---|---|", *rows]))
    rows = [
        f"| {status} | {_cell(response['description'])} | {_content(response)} |"
        for status, response in operation["responses"].items()
    ]
    page.append("\n".join(["| status | meaning | body |", "|---|---|---|", *rows]))
    return [part for part in page if part.strip(" .")]


def _content(response: dict[str, Any]) -> str:
    kinds = []
    for media_type, content in response.get("content", {}).items():
        schema = content.get("schema", {})
        kinds.append(_type(schema) if "$ref" in schema else f"`{media_type}`")
    return ", ".join(kinds)


def _schema(name: str, schema: dict[str, Any]) -> list[str]:
    page = [f"### {name}", schema.get("description", "")]
    required = schema.get("required", [])
    rows = [
        f"| `{field}` | {_type(value)} | {'yes' if field in required else 'no'} "
        f"| {_cell(value.get('description', ''))} |"
        for field, value in schema.get("properties", {}).items()
    ]
    if rows:
        page.append(
            "\n".join(["| field | type | required | meaning |", "|---|---|---|---|", *rows])
        )
    return [part for part in page if part]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[key]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
