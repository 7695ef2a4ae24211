"""HTTP methods (RFC 9110): HEAD, OPTIONS and methods that a path does not have."""

import pytest

from tests.support.servers.http_client import (
    GET,
    JSON,
    POST,
    connected,
    request,
)


@pytest.mark.parametrize("path", GET)
def test_head_has_the_headers_of_get_and_no_content(running, path):
    """Uses a socket, to check that the next response follows the head directly."""
    for encoding in ("identity", "gzip"):
        accept = f"Accept-Encoding: {encoding}"
        with connected(running) as client:
            head = client.send(request(f"HEAD {path}", accept)).receive("HEAD")
            got = client.send(request(f"GET {path}", accept)).receive()
        assert head.status == got.status == 200
        given = ("x-request-id", "traceparent", "date")
        if path in ("/metrics", "/usage"):
            given = (*given, "content-length")  # metrics count their own requests
        assert {k: v for k, v in head.headers.items() if k not in given} == {
            k: v for k, v in got.headers.items() if k not in given
        }
        assert int(head.headers["content-length"]) > 0


def test_head_is_404_for_unknown_paths_and_405_for_post_paths(service):
    for path, status in (("/nowhere", 404), *((path, 405) for path in POST)):
        answer = service.client.head(path)
        assert (answer.status_code, answer.content) == (status, b"")


def test_head_is_counted_as_its_route(service):
    service.client.head("/tasks")
    assert '"route":"/tasks","status":200' in service.log.getvalue()


def test_head_supports_if_none_match(service):
    tag = service.client.head("/tasks").headers["etag"]
    assert service.client.head("/tasks", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("path", [*GET, *POST])
def test_options_lists_the_methods_of_a_path(service, path):
    answer = service.client.options(path)
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = set(answer.headers["allow"].split(", "))
    assert allowed == ({"GET", "HEAD"} if path in GET else {"POST"}) | {"OPTIONS"}
    assert "access-control-allow-origin" not in answer.headers


def test_options_of_the_service_and_of_an_unknown_path(running, service):
    with connected(running) as client:
        answer = client.send(request("OPTIONS *")).receive()
    assert answer.status == 204
    assert answer.headers["allow"] == "get, head, post, options"
    assert service.client.options("/nowhere").status_code == 404


@pytest.mark.parametrize("path", GET)
def test_405_lists_the_allowed_methods(service, path):
    answer = service.client.post(path, content=b"{}", headers=JSON)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    kind = "fhir+json" if path.startswith("/fhir/") else "problem+json"
    assert answer.headers["content-type"] == f"application/{kind}"
