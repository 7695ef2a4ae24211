"""What the platform team may ask of a running service, on a port of its own."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from service import problems
from service.worker import Told


class Reload(BaseModel):
    """`bundle`: the folder of the bundle to serve; without it, the one that is served, anew."""

    model_config = ConfigDict(extra="forbid")

    bundle: Path | None = None


class Reloaded(BaseModel):
    """What all workers serve now."""

    model: str
    digest: str


def create_admin(reload: Callable[[Path | None], Awaitable[Told]]) -> FastAPI:
    """`reload` has all workers serve another bundle."""
    app = FastAPI(title="M3H administration", openapi_url=None)
    problems.install(app)

    @app.post("/admin/reload")
    async def post_reload(asked: Reload | None = None) -> Reloaded:
        """Loads and verifies a bundle beside the one that is served, then serves it.

        One that fails is refused, and the old one goes on.
        """
        told = await reload(None if asked is None else asked.bundle)
        if told.fault:
            raise problems.bundle_refused(told.fault)
        return Reloaded(model=told.model, digest=told.digest)

    return app
