"""The program of docs/integration/hapi-fhir.md reads every page of a FHIR server."""

import gzip
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.docs.blocks import blocks_of

(PROGRAM,) = [b.body for b in blocks_of("docs/integration/hapi-fhir.md") if b.language == "python"]
FOLDER = "synthea-fhir-r4"
PAGE = 15  # resources


@pytest.fixture
def resources(open_data):
    """The resources of a synthetic patient by type, with the references of a server."""
    path = min((open_data(FOLDER) / FOLDER).glob("*.json.gz"))
    entries = json.loads(gzip.decompress(path.read_bytes()))["entry"]
    text = json.dumps([entry["resource"] for entry in entries])
    for entry in entries:
        resource = entry["resource"]
        text = text.replace(entry["fullUrl"], f"{resource['resourceType']}/{resource['id']}")
    by_type = {}
    for resource in json.loads(text):
        by_type.setdefault(resource["resourceType"], []).append(resource)
    return by_type


@pytest.fixture
def server(resources):
    """A FHIR server that answers reads, and searches in pages; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            parts, query = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
            kind, _, identifier = parts.path.removeprefix("/fhir/").partition("/")
            found = resources.get(kind, [])
            if identifier:
                content = next(r for r in found if r["id"] == identifier)
            else:
                start = int(query.get("start", ["0"])[0])
                content = self.page(kind, found, start)
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/fhir+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def page(self, kind, found, start):
            base = f"http://127.0.0.1:{self.server.server_port}/fhir"
            shown = found[start : start + PAGE]
            following = start + PAGE
            links = [{"relation": "self", "url": base}]
            if following < len(found):
                links.append({"relation": "next", "url": f"{base}/{kind}?start={following}"})
            entries = [{"fullUrl": f"{base}/{kind}/{r['id']}", "resource": r} for r in shown]
            return {
                "resourceType": "Bundle",
                "type": "searchset",
                "link": links,
                **({"entry": entries} if entries else {}),
            }

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/fhir"
        running.shutdown()


def run(program, *arguments):
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_the_program_predicts_from_all_pages(resources, server, urls):
    assert len(resources["Observation"]) > 2 * PAGE
    (patient,) = resources["Patient"]
    stay = max(resources["Encounter"], key=lambda e: e["period"]["end"])
    program = PROGRAM
    for documented, actual in urls.items():
        program = program.replace(documented, actual)
    lines = run(program, server, patient["id"], stay["period"]["end"])
    assert len(lines) >= 41
    assert any("Sepsis" in line for line in lines)
    first_page = program.replace('url = links.get("next")', "url = None")
    assert run(first_page, server, patient["id"], stay["period"]["end"]) != lines
