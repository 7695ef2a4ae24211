"""Host names that are allowed in the Host header."""

import pytest

from service.http.allowed_hosts import AllowedHosts
from service.settings import Settings


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_on_loopback_the_default_is_the_names_of_the_machine(address):
    hosts = AllowedHosts(None, address)
    for host in (
        b"localhost",
        b"localhost:8000",
        b"127.0.0.1:8000",
        b"[::1]:8000",
        b"m3h.localhost",
    ):
        assert hosts.allows(host)
    for host in (b"", b"evil.example", b"10.0.0.1", b"localhost.evil.example", b"[::2]"):
        assert not hosts.allows(host)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.7"])
def test_on_other_addresses_the_default_is_all_names(address):
    """The kubelet's probes use the address of the pod."""
    for host in (b"10.1.2.3:8000", b"m3h.hospital.example", b"[fd00::1]:8000", b""):
        assert AllowedHosts(None, address).allows(host)


@pytest.mark.parametrize(
    ("allowed", "host", "answer"),
    [
        ("m3h.hospital.example", b"m3h.hospital.example", True),
        ("m3h.hospital.example", b"M3H.Hospital.Example:443", True),
        ("m3h.hospital.example", b"m3h.hospital.example.", True),
        ("m3h.hospital.example", b"hospital.example", False),
        ("m3h.hospital.example", b"localhost", False),
        ("*.hospital.example", b"m3h.hospital.example", True),
        ("*.hospital.example", b"a.b.hospital.example", True),
        ("*.hospital.example", b"hospital.example", False),
        ("*.hospital.example", b"evilhospital.example", False),
        ("fd00::1", b"[fd00::1]:8000", True),
        ("[fd00::1]", b"[FD00::1]", True),
        ("*", b"anything", True),
    ],
)
def test_the_setting_decides_which_names_are_allowed(allowed, host, answer):
    assert AllowedHosts([allowed], "127.0.0.1").allows(host) is answer


@pytest.mark.parametrize("host", [b"a b", b"a,b", b"a@b", b"a/b", b"[::1", b"a:b", b"a\x80"])
def test_an_invalid_host_raises(host):
    with pytest.raises(ValueError, match="not a host"):
        AllowedHosts(["*"], "0.0.0.0").allows(host)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.example", ["a.example"]),
        ("a.example, b.example", ["a.example", "b.example"]),
        ('["a.example", "b.example"]', ["a.example", "b.example"]),
        ("[::1],localhost", ["[::1]", "localhost"]),
        ("", []),
    ],
)
def test_a_list_setting_is_json_or_separated_by_commas(text, names, monkeypatch):
    monkeypatch.setenv("M3H_ALLOWED_HOSTS", text)
    assert Settings().allowed_hosts == names


def test_an_origin_has_no_path(monkeypatch):
    for text in ("ehr.example", "https://ehr.example/", "https://ehr.example/path", "null"):
        monkeypatch.setenv("M3H_CORS_ORIGINS", text)
        with pytest.raises(ValueError, match="cors_origins"):
            Settings()
    monkeypatch.setenv("M3H_CORS_ORIGINS", "https://ehr.example, http://localhost:3000")
    assert Settings().cors_origins == ["https://ehr.example", "http://localhost:3000"]
