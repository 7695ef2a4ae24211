"""The documentation site builds without a warning and loads nothing from the network."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    tool = Path(sys.executable).parent / "mkdocs"
    done = subprocess.run(
        [tool, "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """Collects the ids, the links and the loaded resources of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if values.get("src"):
            self.resources.append(values["src"])
        if tag == "link" and values.get("rel") != "canonical" and values.get("href"):
            self.resources.append(values["href"])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_the_navigation_is_built(site):
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    names = re.findall(r"([\w/-]+)\.md\b(?!\n *#.*from README)", navigation)
    assert len(names) > 20
    assert all((site / f"{name}.html").is_file() for name in names if name.islower())


def test_every_internal_link_and_anchor_exists(pages, site):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link) or path.name == "404.html":
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists() or (
                anchor and target in pages and anchor not in pages[target].ids
            ):
                broken.append((path.name, link))
    assert not broken


def test_every_page_loads_only_files_of_the_site(pages, site):
    for path, page in pages.items():
        foreign = [link for link in page.resources if re.match(r"(https?:)?//", link)]
        assert not foreign, path
        missing = [
            link for link in page.resources if not (path.parent / link.split("?")[0]).exists()
        ]
        assert not missing or path.name == "404.html", path
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)", sheet.read_text()), sheet


def test_relative_links_of_the_root_files_exist():
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for link in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)#\"]+)[)\"#]", text):
            assert (ROOT / link).exists(), f"{name}: {link}"


def test_every_named_path_of_the_repository_exists():
    folders = "schemas|model|export|service|web|helm|tests|benchmarks|scripts|docs|compose|bundles"
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]):
        if page.name in ("CHANGELOG.md", "results.md"):
            continue
        text = page.read_text(encoding="utf-8")
        for path in re.findall(rf"`((?:{folders})/[\w/.-]*)`", text):
            made = path.startswith(("bundles/", "service/page"))
            assert made or (ROOT / path).exists(), f"{page.name}: {path}"
