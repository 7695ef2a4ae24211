"""Chunked parsing gives the same result as one call of the parser."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from schemas.parsing import chunked_json

TEXT = st.text(st.sampled_from('aé"\\,:[]{} \n\u2028'), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=40
)
# Snippets that form valid and almost valid documents.
SNIPPETS = st.lists(
    st.sampled_from(
        [*"[]{},:", " ", "\n", '"', "\\", '"a"', '"a,"', '"b":', "1", "-2.5e3", "null", "NaN", "é"]
    ),
    max_size=40,
).map("".join)


@pytest.fixture(autouse=True, params=[1, 7, 30])
def _short_chunks(request, monkeypatch):
    monkeypatch.setattr(chunked_json, "CHUNK_BYTES", request.param)


def outcome(parse, body):
    try:
        return json.dumps(parse(body))
    except ValueError:
        return "not JSON"


@given(DOCUMENTS, st.sampled_from([None, 1]), st.booleans())
def test_chunked_parsing_gives_the_same_document(document, indent, ascii_only):
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    assert outcome(chunked_json.parse, body) == outcome(from_json, body)


@given(SNIPPETS)
def test_chunked_parsing_refuses_the_same_text(text):
    body = text.encode()
    assert outcome(chunked_json.parse, body) == outcome(from_json, body)


@pytest.mark.parametrize(
    "text", ["[1,]", "[,1]", "[1,,2]", "[]]", "[[]", '{"a":1,}', '{"a"}', '{"a":1:2}', "[1}", ""]
)
def test_a_missing_member_or_bracket_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        chunked_json.parse(text.encode())


def test_deep_nesting_is_refused():
    with pytest.raises(ValueError, match="nested too deeply"):
        chunked_json.parse(b"[" * 33 + b"]" * 33)
