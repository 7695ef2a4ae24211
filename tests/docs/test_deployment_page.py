"""The commands of docs/deployment.md that need no cluster. tests/helm renders the helm commands."""

import json
import re

from tests.docs.blocks import blocks_of
from tests.docs.test_tutorials import run

BLOCKS = [block for block in blocks_of("docs/deployment.md") if block.language == "sh"]


def test_a_bundle_is_reloaded_as_shown(urls, tmp_path):
    import httpx

    (block,) = [block for block in BLOCKS if "/admin/reload" in block.body]
    from tests.docs.blocks import ROOT

    answer = json.loads(run(block, urls, ROOT))
    model = httpx.get(urls["http://localhost:8000"] + "/model").json()
    assert answer["digest"] == re.search(r'"digest":\s*"(\w+)"', json.dumps(model))[1]


def test_every_other_block_states_why_it_is_not_run():
    for block in BLOCKS:
        assert block.note or "/admin/reload" in block.body, block
