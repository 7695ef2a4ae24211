"""Verifies JSON Web Tokens (RFC 7519) of known issuers, each token once.

Signatures are asymmetric, by keys of a file (RFC 7517): the service fetches no key over the
network. Source of the required header and claims: CDS Hooks 2.0.1, "Trusting CDS Clients".
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import CallerNotChecked, Unauthorized
from service.security.used_tokens import UsedTokens

ALGORITHMS = ("ES384", "RS384")
MAX_LIFETIME = 3600  # seconds from iat to exp
_CLOCK_SKEW = 30  # seconds
_MIN_RSA_BITS = 2048
_MAX_TOKEN, _MAX_JTI = 8192, 256  # characters
_CLAIMS = ["iss", "aud", "exp", "iat", "jti"]
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "k")


class KeyFileError(ValueError):
    """The file of trusted keys cannot be used. Its text holds no key."""


class _Issuer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    iss: str = Field(min_length=1)
    jku: str | None = None
    keys: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    issuers: Annotated[tuple[_Issuer, ...], Field(min_length=1)]


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer: its public keys by `kid`, and the only URL of keys that its tokens may name."""

    keys: Mapping[str, jwt.PyJWK]
    jku: str | None


def read_issuers(path: Path) -> dict[str, TrustedIssuer]:
    """Reads the trusted issuers of a file: `{"issuers": [{"iss", "jku", "keys": [JWK, …]}, …]}`.

    Raises KeyFileError: the file cannot be read, or a key is not a public key with a `kid` for one
    of ALGORITHMS.
    """
    try:
        parsed = _KeyFile.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise KeyFileError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    except ValueError:
        raise KeyFileError("is not JSON") from None
    issuers: dict[str, TrustedIssuer] = {}
    for i, issuer in enumerate(parsed.issuers):
        if issuer.iss in issuers:
            raise KeyFileError(f"issuers.{i}.iss: is in the file more than once")
        keys: dict[str, jwt.PyJWK] = {}
        for j, fields in enumerate(issuer.keys):
            kid, key = _read_key(fields, f"issuers.{i}.keys.{j}")
            if kid in keys:
                raise KeyFileError(f"issuers.{i}.keys.{j}.kid: is not unique")
            keys[kid] = key
        issuers[issuer.iss] = TrustedIssuer(keys, issuer.jku)
    return issuers


def _read_key(fields: dict[str, Any], place: str) -> tuple[str, jwt.PyJWK]:
    kid, algorithm = fields.get("kid"), fields.get("alg")
    if not isinstance(kid, str) or not kid:
        raise KeyFileError(f"{place}: needs a kid")
    if any(name in fields for name in _PRIVATE):
        raise KeyFileError(f"{place}: is a private key; write only the public part")
    if algorithm not in ALGORITHMS:
        raise KeyFileError(f"{place}.alg: must be one of {', '.join(ALGORITHMS)}")
    if fields.get("use", "sig") != "sig":
        raise KeyFileError(f"{place}.use: must be sig")
    try:
        key = jwt.PyJWK(fields)
    except jwt.PyJWTError:
        raise KeyFileError(f"{place}: is not a public key of {algorithm}") from None
    size = getattr(key.key, "key_size", 0)
    curve = getattr(getattr(key.key, "curve", None), "name", "")
    if algorithm == "RS384" and size < _MIN_RSA_BITS:
        raise KeyFileError(f"{place}: an RSA key needs {_MIN_RSA_BITS} bits or more")
    if algorithm == "ES384" and curve != "secp384r1":
        raise KeyFileError(f"{place}: ES384 needs the curve P-384")
    return kid, key


class JwtVerifier:
    """Verifies tokens of trusted issuers. `used`: remembers them; none is accepted twice."""

    def __init__(self, issuers: Mapping[str, TrustedIssuer], used: UsedTokens) -> None:
        self._issuers, self._used = issuers, used

    def verify(self, authorization: str | None, audience: str) -> str:
        """Returns the issuer of a bearer token in an Authorization header (RFC 6750).

        `audience`: the URL that is called. Raises Unauthorized: no token, or one that violates a
        rule. Raises CallerNotChecked: whether the token was used before cannot be known now.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("", "needs a JSON Web Token: Authorization: Bearer TOKEN")
        if len(token) > _MAX_TOKEN:
            raise Unauthorized("max_length", f"must have at most {_MAX_TOKEN} characters")
        claims = self._decode(token.strip(), audience)
        self._claim(claims)
        return str(claims["iss"])

    def _decode(self, token: str, audience: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            stated = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, RecursionError, ValueError):
            raise Unauthorized("malformed", "is not a signed JSON Web Token") from None
        key = self._find_key(header, stated)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[str(key.algorithm_name)],
                audience=audience,
                issuer=stated["iss"],
                leeway=_CLOCK_SKEW,
                options={"require": _CLAIMS},
            )
        except (jwt.PyJWTError, OverflowError) as error:
            raise Unauthorized(*_fault(error)) from None
        if int(claims["exp"]) - int(claims["iat"]) > MAX_LIFETIME:
            detail = f"exp must be at most {MAX_LIFETIME} seconds after iat"
            raise Unauthorized("lifetime", detail)
        if not claims["jti"] or len(claims["jti"]) > _MAX_JTI:
            raise Unauthorized("jti", f"jti must have 1 to {_MAX_JTI} characters")
        return claims

    def _find_key(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> jwt.PyJWK:
        """The key that the token names. Raises Unauthorized."""
        if header.get("alg") not in ALGORITHMS:
            raise Unauthorized("alg", f"alg must be one of {', '.join(ALGORITHMS)}")
        if str(header.get("typ", "")).upper() != "JWT":
            raise Unauthorized("typ", "typ must be JWT")
        iss = claims.get("iss")
        issuer = self._issuers.get(iss) if isinstance(iss, str) else None
        if issuer is None:
            raise Unauthorized("iss", "the issuer is not trusted")
        if "jku" in header and header["jku"] != issuer.jku:
            raise Unauthorized("jku", "jku is not the URL that is known for this issuer")
        kid = header.get("kid")
        key = issuer.keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise Unauthorized("kid", "the key is not known for this issuer")
        if key.algorithm_name != header["alg"]:
            raise Unauthorized("alg", "alg is not that of the key")
        return key

    def _claim(self, claims: Mapping[str, Any]) -> None:
        """Raises Unauthorized if the token was used before."""
        identity = json.dumps([claims["iss"], claims["jti"]]).encode()
        seconds = max(1, int(int(claims["exp"]) - time.time())) + 2 * _CLOCK_SKEW
        is_first = self._used.claim(hashlib.blake2b(identity, digest_size=32).digest(), seconds)
        if is_first is None:
            raise CallerNotChecked("whether the token was used before cannot be checked now")
        if not is_first:
            raise Unauthorized("replay", "the token was used before; send a new jti")


_FAULTS: tuple[tuple[type[jwt.PyJWTError], str, str], ...] = (
    (jwt.ExpiredSignatureError, "exp", "the token has expired"),
    (jwt.ImmatureSignatureError, "iat", "the token is not valid yet"),
    (jwt.InvalidIssuedAtError, "iat", "iat must be a number of seconds"),
    (jwt.InvalidAudienceError, "aud", "aud must be the URL that is called"),
    (jwt.InvalidIssuerError, "iss", "the issuer is not trusted"),
    (jwt.MissingRequiredClaimError, "claims", f"needs the claims {', '.join(_CLAIMS)}"),
    (jwt.InvalidSignatureError, "signature", "the signature is not that of the key"),
)


def _fault(error: Exception) -> tuple[str, str]:
    """The violated rule and its text, without a part of the token."""
    for kind, rule, detail in _FAULTS:
        if isinstance(error, kind):
            return rule, detail
    return "malformed", "is not a valid JSON Web Token"
