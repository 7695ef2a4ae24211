"""CDS Hooks 2.0.1: discovery, calls and feedback under `/cds-services`."""

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
import orjson
from fastapi import FastAPI, Request, Response

from schemas.fhir.reader import FhirReader
from service.cache.shown_cards import ShownCards
from service.http import problems
from service.http.cds_hooks import openapi_entries
from service.http.cds_hooks.authentication import CdsAuthentication
from service.http.request_parsing import reject_repeated
from service.http.routes.admission import PredictionBatcher, RequestAdmission
from service.http.static_response import StaticResponse, json_response
from service.interop.cds_hooks.call import HookCall
from service.interop.cds_hooks.feedback import record_feedback
from service.interop.cds_hooks.models import Discovery
from service.interop.cds_hooks.operating_points import operating_points
from service.interop.cds_hooks.responder import CardResponder
from service.interop.cds_hooks.services import CdsService, cds_services
from service.prediction.jobs import Job, Options
from service.runtime.bundle import Bundle
from service.settings import Settings
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.cache.redis_cache import RedisCache

PATH = "/cds-services"
_OPTIONS = Options(explain="none")


class CdsHooksRoutes:
    """The CDS Services of one bundle. None if no task has an operating point."""

    def __init__(
        self,
        admission: RequestAdmission,
        batcher: PredictionBatcher,
        bundle: Bundle,
        settings: Settings,
        metrics: Metrics,
        authentication: CdsAuthentication,
        redis: "RedisCache | None",
    ) -> None:
        self._admission, self._batcher, self._metrics = admission, batcher, metrics
        self._authentication = authentication
        manifest = bundle.manifest
        self._reader = FhirReader(manifest.spec)
        points = operating_points(manifest, settings.cds_point)
        secret = settings.redis_secret
        self._responder = CardResponder(
            manifest,
            bundle.digest,
            points,
            _shown_cards(settings, redis),
            max_cards=settings.cds_cards,
            secret="" if secret is None else secret.get_secret_value(),
            url=settings.cds_url,
        )
        names = ", ".join(t.task.display for t in manifest.tasks if t.task.name in points)
        description = f"Predicts from the record of one patient, with the model {manifest.name} "
        description += f"{manifest.version}, and shows cards for: {names}."
        self._services = cds_services(settings.cds_prefetch, description) if points else {}
        described = tuple(service.describe() for service in self._services.values())
        self._discovery = StaticResponse.from_model(Discovery(services=described))

    def add_to(self, app: FastAPI) -> None:
        app.get(PATH, **openapi_entries.discovery())(self.discover)
        app.post(PATH + "/{service_id}", **openapi_entries.call())(self.call)
        app.post(PATH + "/{service_id}/feedback", **openapi_entries.feedback())(self.feedback)

    async def discover(self, request: Request) -> Response:
        """The CDS Services with their hooks and prefetch templates."""
        reject_repeated(request)
        await self._authentication.check(request, PATH)
        return self._discovery.response(request)

    async def call(self, request: Request) -> Response:
        """Call a service when its hook occurs. The answer has cards for tasks with a high risk.

        Every prefetch key must be sent, with null if the record has no such data; otherwise the
        answer is 412. An empty list of cards means that the tasks were predicted, and that none is
        above its operating point and not yet shown; `extension` lists what became of each task.
        """
        reject_repeated(request)
        service = await self._find(request)
        received = datetime.now(UTC)
        with self._admission.admit(request, "urgent") as admitted:
            span = self._admission.request_span(request, _OPTIONS, admitted)
            body = await self._admission.read(request, admitted)
            call = HookCall(service, self._reader, body, received)
            job = Job.queued(call, _OPTIONS, span)
            (answer,) = await self._batcher.answer(admitted, [job], request.receive)
        if isinstance(answer, Exception):
            raise answer
        # In a thread, because Redis may have to be asked which cards were shown.
        respond = partial(
            self._responder.respond, orjson.loads(answer), call, self._metrics.count_card
        )
        response = await anyio.to_thread.run_sync(respond)
        return await json_response(request, response.json_bytes())

    async def feedback(self, request: Request) -> Response:
        """Report which cards were accepted or overridden. Comments of users are not read."""
        reject_repeated(request)
        await self._find(request, "/feedback")
        with self._admission.admit(request, "urgent") as admitted:
            body = await self._admission.read(request, admitted)
            receipt = record_feedback(body, self._responder.ids, self._metrics.count_card)
        return await json_response(request, receipt.model_dump_json(exclude_none=True).encode())

    async def _find(self, request: Request, below: str = "") -> CdsService:
        """The service of a path. Raises Unauthorized, and ProblemError (404)."""
        service_id = request.path_params["service_id"]
        await self._authentication.check(request, f"{PATH}/{service_id}{below}")
        if service_id not in self._services:
            raise problems.unknown_cds_service()
        return self._services[service_id]


def _shown_cards(settings: Settings, redis: "RedisCache | None") -> ShownCards:
    seconds = 60 * settings.cds_repeat_minutes
    if redis is None:
        return ShownCards(seconds, None)
    from service.cache.redis_marks import RedisMarks  # noqa: PLC0415 - imports redis

    return ShownCards(seconds, RedisMarks(redis, b"card"))
