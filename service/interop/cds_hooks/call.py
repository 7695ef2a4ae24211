"""A call of a CDS Service as the source of a payload."""

from datetime import datetime

import orjson
from pydantic_core import PydanticCustomError

from schemas.fhir.reader import FhirReader
from schemas.parsing.times import read_time
from schemas.payload import Payload
from schemas.request_errors import InvalidPayload
from service.interop.cds_hooks.documents import parse_document, refuse, validate
from service.interop.cds_hooks.models import HookRequest
from service.interop.cds_hooks.prefetch import join_prefetch, located
from service.interop.cds_hooks.services import CdsService
from service.interop.fhir.request import FhirRequest
from service.prediction.jobs import PayloadSource

AS_OF = "urn:m3h:as-of"
_CLINICIANS = ("Practitioner/", "PractitionerRole/")


class HookCall(PayloadSource):
    """The body of a call, which is read when its turn comes.

    `received`: the time of the call, which is that of the prediction unless the extension
    `urn:m3h:as-of` states another. After `to_payload`, `request` holds the call, `as_of` the time
    of the prediction, and `incomplete` the prefetch keys with further pages.
    """

    request: HookRequest
    as_of: datetime
    incomplete: tuple[str, ...]

    def __init__(
        self, service: CdsService, reader: FhirReader, body: bytes, received: datetime
    ) -> None:
        self._service, self._reader = service, reader
        self._body, self._received = body, received

    def to_payload(self) -> Payload:
        """Reads the call.

        Raises InvalidPayload: the pointer of each error is a JSON Pointer into the body. Raises
        PreconditionFailed: data are missing without which nothing can be predicted.
        """
        document = parse_document(self._body)
        self._body = b""
        self.request = validate(HookRequest, document)
        self._check_call()
        self.as_of = self._read_as_of()
        joined = join_prefetch(
            self.request.prefetch, self._service, self.request.context, self.as_of
        )
        self.incomplete = joined.incomplete
        try:
            content = orjson.dumps(joined.bundle)
        except orjson.JSONEncodeError:  # deeper than orjson writes, or half a character
            refuse("/prefetch", "json", "arrays and objects are nested too deeply")
        try:
            return FhirRequest(self._reader, content, self.as_of, strict=False).to_payload()
        except InvalidPayload as error:
            raise located(error, joined) from None

    def _check_call(self) -> None:
        """The hook is that of the service, with its context, for a clinician."""
        service, context = self._service, self.request.context
        if self.request.hook != service.hook:
            refuse("/hook", "hook", f"must be {service.hook}, the hook of this service")
        if service.needs_encounter and not context.encounterId:
            refuse("/context/encounterId", "required", "is required")
        if not context.userId.startswith(_CLINICIANS):
            detail = "must be a Practitioner or PractitionerRole; the cards are for clinicians"
            refuse("/context/userId", "clinician", detail)

    def _read_as_of(self) -> datetime:
        if AS_OF not in self.request.extension:
            return self._received
        try:
            return read_time(self.request.extension[AS_OF])
        except PydanticCustomError as error:
            refuse(f"/extension/{AS_OF}", error.type, error.message())
