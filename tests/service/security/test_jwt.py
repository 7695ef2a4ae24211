"""A token is accepted once, if it is signed by a known key for the called URL."""

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from service.errors import CallerNotChecked, Unauthorized
from service.security.jwt import JwtVerifier, KeyFileError, read_issuers
from service.security.used_tokens import UsedTokensInMemory
from tests.support.inputs.signed_tokens import (
    ISSUER,
    JKU,
    Token,
    private_key,
    public_jwk,
    write_keys,
)

URL = "https://m3h.example/cds-services/m3h-patient-view"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return write_keys(path, public_jwk("ES384"), public_jwk("RS384", "key-2"))


@pytest.fixture(scope="module")
def verifier(keys):
    return JwtVerifier(read_issuers(keys), UsedTokensInMemory())


def refusal(verifier, authorization):
    with pytest.raises(Unauthorized) as refused:
        verifier.verify(authorization, URL)
    return refused.value.rule


@pytest.mark.parametrize(
    "token",
    [
        Token(URL),
        Token(URL, "RS384", key=private_key("RS384", "key-2"), header={"kid": "key-2"}),
        Token([URL]),
        Token(["https://other.example", URL]),
        Token(URL, header={"jku": JKU}),
        Token(URL, claims={"tenant": "2ddd6c3a"}),
    ],
    ids=["ES384", "RS384", "array", "two audiences", "jku", "tenant"],
)
def test_a_token_of_a_known_key_is_accepted(verifier, token):
    assert verifier.verify(token.authorization(), URL) == ISSUER


def test_a_token_is_accepted_once(verifier):
    token = Token(URL).authorization()
    verifier.verify(token, URL)
    assert refusal(verifier, token) == "replay"
    # A new token with the same jti is the same token.
    first, second = (Token(URL, claims={"jti": "again"}).authorization() for _ in range(2))
    verifier.verify(first, URL)
    assert refusal(verifier, second) == "replay"


def seconds(offset):
    return int(time.time()) + offset


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"claims": {"iss": "https://other.example"}}, "iss"),
        ({"claims": {"iss": None}}, "iss"),
        ({"claims": {"aud": "https://m3h.example/cds-services"}}, "aud"),
        ({"claims": {"aud": URL + "/feedback"}}, "aud"),
        ({"claims": {"aud": []}}, "claims"),
        ({"claims": {"aud": None}}, "claims"),
        ({"claims": {"exp": None}}, "claims"),
        ({"claims": {"iat": None}}, "claims"),
        ({"claims": {"jti": None}}, "claims"),
        ({"claims": {"jti": ""}}, "jti"),
        ({"claims": {"jti": "x" * 257}}, "jti"),
        ({"claims": {"exp": seconds(-600), "iat": seconds(-900)}}, "exp"),
        ({"claims": {"iat": seconds(6000), "exp": seconds(7000)}}, "iat"),
        ({"claims": {"exp": seconds(40_000)}}, "lifetime"),
        ({"claims": {"nbf": seconds(6000)}}, "iat"),
        ({"header": {"kid": "key-3"}}, "kid"),
        ({"header": {"kid": None}}, "kid"),
        ({"header": {"kid": "key-2"}}, "alg"),
        ({"header": {"typ": "at+jwt"}}, "typ"),
        ({"header": {"jku": "https://other.example/jwks.json"}}, "jku"),
        ({"key": ec.generate_private_key(ec.SECP384R1())}, "signature"),
    ],
)
def test_a_token_that_violates_a_rule_is_refused(verifier, changes, rule):
    assert refusal(verifier, Token(URL, **changes).authorization()) == rule


@pytest.mark.parametrize("algorithm", ["HS384", "HS256"])
def test_a_symmetric_signature_is_refused(verifier, algorithm):
    token = Token(URL, algorithm, key="the public key, as a shared secret of many characters")
    assert refusal(verifier, token.authorization()) == "alg"


def test_an_unsigned_token_is_refused(verifier):
    token = jwt.encode(
        {"iss": ISSUER, "aud": URL}, None, algorithm="none", headers={"kid": "key-1"}
    )
    assert refusal(verifier, f"Bearer {token}") == "alg"


@pytest.mark.parametrize("algorithm", ["ES256", "PS384", "RS256"])
def test_another_algorithm_is_refused(verifier, algorithm):
    kind = ec.generate_private_key(ec.SECP256R1()) if algorithm[0] == "E" else private_key("RS384")
    assert refusal(verifier, Token(URL, algorithm, key=kind).authorization()) == "alg"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz"])
def test_a_request_without_a_token_is_refused(verifier, header):
    assert refusal(verifier, header) == ""


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


DEEP = base64.urlsafe_b64encode(b"[" * 2500).decode()


@pytest.mark.parametrize(
    "token",
    ["x", "a.b.c", f"{encoded({'alg': 'ES384'})}.e30.", f"{DEEP}.{DEEP}.x", "x" * 9000, "é.é.é"],
)
def test_a_malformed_token_is_refused(verifier, token):
    assert refusal(verifier, f"Bearer {token}") in ("malformed", "max_length", "typ", "iss")


@given(st.data())
def test_any_changed_character_is_refused(verifier, data):
    token = Token(URL).signed()
    i = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("AZaz09-_."))
    changed = token[:i] + other + token[i + 1 :]
    if same_bytes(token, changed):
        return
    assert refusal(verifier, f"Bearer {changed}")


def same_bytes(first, second):
    """Whether two tokens differ only in bits that base64 ignores."""

    def read(token):
        return [base64.urlsafe_b64decode(p + "=" * (-len(p) % 4)) for p in token.split(".")]

    try:
        return read(first) == read(second)
    except ValueError:
        return False


def test_a_refusal_does_not_quote_the_token(verifier):
    claims = {"iss": "https://quillfeather.example"}
    with pytest.raises(Unauthorized) as refused:
        verifier.verify(Token(URL, claims=claims).authorization(), URL)
    assert "quillfeather" not in refused.value.detail


def test_a_full_memory_refuses_new_tokens_until_others_expire():
    used = UsedTokensInMemory(max_entries=2)
    assert used.claim(b"a", 60) is True
    assert used.claim(b"b", -1) is True
    assert used.claim(b"c", 60) is True  # b has expired
    assert used.claim(b"d", 60) is None
    assert used.claim(b"a", 60) is False


def test_an_unavailable_memory_of_tokens_is_no_acceptance(keys):
    class Unavailable:
        def claim(self, key: bytes, seconds: int) -> bool | None:
            return None

    with pytest.raises(CallerNotChecked):
        JwtVerifier(read_issuers(keys), Unavailable()).verify(Token(URL).authorization(), URL)


# ------------------------------------------------------------------------------------ key files


def small_rsa():
    kind = jwt.get_algorithm_by_name("RS384")
    made = json.loads(kind.to_jwk(rsa.generate_private_key(65537, 1024).public_key()))
    made.pop("key_ops", None)
    return made | {"kid": "key-1", "alg": "RS384"}


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        (public_jwk("ES384", kid=""), "needs a kid"),
        (public_jwk("ES384", alg="ES256"), "alg: must be one of"),
        (public_jwk("ES384", alg="HS384"), "alg: must be one of"),
        (public_jwk("ES384", use="enc"), "use: must be sig"),
        (public_jwk("ES384", d="c2VjcmV0"), "private key"),
        (public_jwk("ES384", x="AA"), "not a public key"),
        (public_jwk("RS384", alg="ES384"), "not a public key|needs the curve"),
        (small_rsa(), "needs 2048 bits"),
    ],
)
def test_an_unsuitable_key_is_refused_when_the_service_starts(tmp_path, key, fault):
    with pytest.raises(KeyFileError, match=fault) as refused:
        read_issuers(write_keys(tmp_path / "keys.json", key))
    assert "c2VjcmV0" not in str(refused.value)


def test_a_repeated_key_or_issuer_is_refused(tmp_path):
    path = write_keys(tmp_path / "keys.json", public_jwk("ES384"), public_jwk("ES384"))
    with pytest.raises(KeyFileError, match="not unique"):
        read_issuers(path)
    (issuer,) = json.loads(path.read_text())["issuers"]
    issuer["keys"] = issuer["keys"][:1]
    path.write_text(json.dumps({"issuers": [issuer, issuer]}))
    with pytest.raises(KeyFileError, match="more than once"):
        read_issuers(path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is not JSON"),
        ("[]", "dict"),
        ("{}", "issuers"),
        ('{"issuers": []}', "issuers"),
        ('{"issuers": [{"iss": "x", "keys": []}]}', "keys"),
    ],
)
def test_an_invalid_file_is_refused(tmp_path, text, fault):
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=fault):
        read_issuers(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_issuers(tmp_path / "missing.json")
