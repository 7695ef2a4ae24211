"""Authentication of CDS Hooks clients by JSON Web Tokens, if M3H_CDS_JWT_KEYS is set."""

from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import Request

from service.security.used_tokens import UsedTokens
from service.settings import Settings

if TYPE_CHECKING:
    from service.security.jwt import JwtVerifier


class CdsAuthentication:
    """Checks the token of each request. `url`: M3H_CDS_URL, with which `aud` starts."""

    def __init__(self, verifier: "JwtVerifier | None", url: str) -> None:
        self._verifier, self._url = verifier, url

    @classmethod
    def of(cls, settings: Settings, used: UsedTokens) -> "CdsAuthentication":
        """The authentication that the settings define. Raises KeyFileError."""
        return cls(_verifier(settings, used), settings.cds_url or "")

    async def check(self, request: Request, path: str) -> None:
        """`path`: of the endpoint, below the URL of the service.

        Raises Unauthorized: no valid token. Raises CallerNotChecked: the memory of used tokens is
        not available.
        """
        if self._verifier is None:
            return
        header = request.headers.get("authorization")
        # In a thread, because Redis may have to be asked whether the token was used before.
        await anyio.to_thread.run_sync(self._verifier.verify, header, f"{self._url}{path}")


def check_key_file(settings: Settings) -> str | None:
    """Why the trusted keys of the settings cannot be used; None if they can."""
    if settings.cds_jwt_keys is None:
        return None
    if settings.cds_url is None:
        return "M3H_CDS_JWT_KEYS needs M3H_CDS_URL, the start of aud in tokens"
    if settings.redis_url is None and settings.workers != 1:
        return (
            "M3H_CDS_JWT_KEYS needs M3H_REDIS_URL or M3H_WORKERS=1: otherwise each worker accepts "
            "a token once"
        )
    from service.security.jwt import KeyFileError, read_issuers  # noqa: PLC0415 - only if used

    try:
        read_issuers(Path(settings.cds_jwt_keys))
    except KeyFileError as error:
        return f"the file of M3H_CDS_JWT_KEYS {error}"
    return None


def _verifier(settings: Settings, used: UsedTokens) -> "JwtVerifier | None":
    if settings.cds_jwt_keys is None:
        return None
    # The import takes a twentieth of a second.
    from service.security.jwt import JwtVerifier, read_issuers  # noqa: PLC0415 - only if used

    return JwtVerifier(read_issuers(Path(settings.cds_jwt_keys)), used)
