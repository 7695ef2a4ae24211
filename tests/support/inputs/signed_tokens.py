"""Key pairs, key files and signed tokens of a CDS Hooks client."""

import json
import time
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER, JKU = "https://ehr.example", "https://ehr.example/jwks.json"


def private_key(algorithm: str, kid: str = "key-1") -> Any:
    return _key(algorithm, kid)


@cache
def _key(algorithm: str, kid: str) -> Any:
    if algorithm.startswith("ES"):
        return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(algorithm: str, kid: str = "key-1", **fields: Any) -> dict[str, Any]:
    kind = jwt.get_algorithm_by_name(algorithm)
    made = json.loads(kind.to_jwk(private_key(algorithm, kid).public_key()))
    return (
        {key: value for key, value in made.items() if key != "key_ops"}
        | {
            "kid": kid,
            "alg": algorithm,
            "use": "sig",
        }
        | fields
    )


def write_keys(path: Path, *keys: dict[str, Any], jku: str | None = JKU) -> Path:
    issuer: dict[str, Any] = {"iss": ISSUER, "keys": keys}
    if jku is not None:
        issuer["jku"] = jku
    path.write_text(json.dumps({"issuers": [issuer]}))
    return path


@dataclass
class Token:
    """A token to sign. `claims`, `header`: changes; a value of None removes the entry."""

    audience: Any
    algorithm: str = "ES384"
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    key: Any = None

    def signed(self) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": self.audience,
            "exp": now + 300,
            "iat": now,
            "jti": str(uuid.uuid4()),
        } | self.claims
        header = {"kid": "key-1", "typ": "JWT"} | self.header
        return jwt.encode(
            {name: value for name, value in claims.items() if value is not None},
            self.key or private_key(self.algorithm),
            algorithm=self.algorithm,
            headers={name: value for name, value in header.items() if value is not None},
        )

    def authorization(self) -> str:
        return f"Bearer {self.signed()}"
