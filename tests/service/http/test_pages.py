"""How the pages are served. tests/web tests their content."""

import gzip

import pytest

FILES = {
    "/": "text/html",
    "/page/app.js": "text/javascript",
    "/page/app.css": "text/css",
    "/page/examples/septic_shock.json": "application/json",
    "/page/licenses.txt": "text/plain",
}
DOCS_FILES = {
    "/docs": "text/html",
    "/page/docs.js": "text/javascript",
    "/page/swagger-ui-bundle.js": "text/javascript",
    "/page/swagger-ui.css": "text/css",
}


@pytest.mark.parametrize(("path", "media_type"), (FILES | DOCS_FILES).items())
def test_a_file_has_its_media_type_and_an_etag(service, path, media_type):
    first = service.client.get(path)
    assert first.status_code == 200
    assert first.headers["content-type"].partition(";")[0] == media_type
    tag = first.headers["etag"]
    assert service.client.get(path, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("path", FILES | DOCS_FILES)
def test_the_policy_allows_no_external_content_and_no_inline_code(service, path):
    headers = service.client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_is_less_than_500_kb_compressed(service):
    sent = 0
    for path in FILES:
        packed = service.client.get(path, headers={"Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        sent += int(packed.headers["content-length"])
        plain = service.client.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == packed.content
        assert plain.headers["etag"] != packed.headers["etag"]
        assert len(gzip.compress(plain.content, mtime=0)) == int(packed.headers["content-length"])
    assert sent < 500_000


def test_an_unknown_path_is_a_problem(service):
    for path in ("/page", "/page/", "/page/app.json", "/page/../app.py", "/page/examples"):
        answer = service.client.get(path)
        assert answer.status_code == 404
        assert answer.json()["title"] == "Not found"
