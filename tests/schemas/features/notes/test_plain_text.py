"""Conversion of notes to plain text: HTML, RTF, characters, offsets."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features import FeatureSpec, encode_note, to_plain_text

SPEC = FeatureSpec.default()
PLAIN = (
    "72 year old with fever & hypotension (BP <90), started on norepinephrine.",
    "Past history of COPD, atrial fibrillation on warfarin.",
)
ESCAPED = [line.replace("&", "&amp;").replace("<", "&lt;") for line in PLAIN]


def words(text):
    return to_plain_text(text).text.split()


@pytest.mark.parametrize(
    "text",
    [
        "<p>{}</p><p>{}</p>",
        "<html><head><title>Note 7</title></head><body><p>{}</p>\n<p>{}</p></body></html>",
        '<div xmlns="http://www.w3.org/1999/xhtml"><p>{}</p><hr/><p>{}</p></div>',
        "<!DOCTYPE html>\n<HTML><BODY><P>{}<BR>{}</BODY></HTML>",
        "{}<br/>{}",
        "<table><tr><td>{}</td></tr><tr><td>{}</td></tr></table>",
        "<ul>\n  <li>{}</li>\n  <li>{}</li>\n</ul>",
        "<style>p {{ color: red }}</style><script>alert('<p>')</script><p>{}</p><p>{}</p>",
        "<!-- <p>never</p> --><p>{}</p><!--[if mso]><p>x</p><![endif]--><o:p>&nbsp;</o:p><p>{}</p>",
        '<?xml version="1.0"?><text><paragraph>{}</paragraph><content ID="a">{}</content></text>',
        '<p class="a>b" style=\'font: "Arial"\'>{}</p><img src="x" alt="a > b"/><p>{}</p>',
        "<p><b>{}</b></p><p><span style='x'>{}",
        "{}\n<b></b>{}",
        "&nbsp;{}&#10;{}&#xa0;",
    ],
)
def test_html_becomes_plain_text(text):
    assert words(text.format(*ESCAPED)) == " ".join(PLAIN).split()


def test_double_escaped_html_becomes_plain_text():
    text = "<p>{}</p><p>{}</p>".format(*ESCAPED)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert words(escaped) == " ".join(PLAIN).split()


@pytest.mark.parametrize(
    "text",
    [
        "BP <90 and HR >120, <5 years, SpO2 <90%>, Na<b and K>c",
        "seen by <name> on <date> at <time>",
        "AT&T, R&D, Q&A; a&b; H&P;",
        r"C:\rtf\new {braces} \par",
        "a <- b -> c <3 <<< >>> </ <> <!",
        "1. No fever\n2. Cough\n\n- Gout\tsince 1999",
    ],
)
def test_text_that_resembles_markup_stays_unchanged(text):
    assert to_plain_text(text).text == text
    assert to_plain_text(text).offsets is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("atrial \ufb01brillation, in\ufb02ammation, e\ufb00usion", None),
        ("atrial fibril\u00adlation, inflam\u200bmation, \ufeffeffusion", None),
        ("\uff41\uff54\uff52\uff49\uff41\uff4c fibrillation, inflammation, effusion", None),
        ("atrial\u00a0fibrillation,\u2003inflammation,\u202feffusion", None),
        ("atrial\x00 fibrillation,\x0cinflammation,\u2028effusion", None),
        ("patient\u2019s \u201cgout\u201d, non\u2011toxic", 'patient\'s "gout", non-toxic'),
        ("a\r\nb\r\nc", "a\nb\nc"),
        ("a\rb", "a\nb"),
        ("\u2163 \u339c", "IV mm"),
    ],
)
def test_characters_are_normalized(text, plain):
    expected = plain or "atrial fibrillation, inflammation, effusion"
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    "text",
    [
        r"{{\rtf1\ansi\deff0{{\fonttbl{{\f0 Arial;}}}}{{\colortbl;\red0;}}\f0\fs20 {}\par {}}}",
        r"{{\rtf1\ansi {{\*\generator Riched20;}}{{\info{{\author Dr X}}}}\b {}\b0\line\i {}\i0 }}",
        "\ufeff {{\\rtf1\\ansi\r\n\\pard {}\\par\r\n{}\\par}}\x00",
        r"{{\rtf1\ansi{{\header 1}}{{\v hidden}}{} {{\field{{\*\fldinst X}}{{\fldrslt {}}}}}}}",
        r"{{\rtf1\ansi{{\pict\bin4 }}{{x}}}}{}\cell {}\row}}",
    ],
)
def test_rtf_becomes_plain_text(text):
    assert words(text.format(*PLAIN)) == " ".join(PLAIN).split()


def test_characters_of_rtf_are_decoded():
    text = r"{\rtf1\ansi\ansicpg1252\uc1 caf\'e9 \u8805? 5 {\uc2\u956 ??g} \u-10179?\u-8704? \{a\}}"
    assert to_plain_text(text).text == "café ≥ 5 μg \U0001f600 {a}"


def test_text_around_rtf_is_kept():
    assert words(r"Impression: {\rtf1\ansi pneumonia} reviewed") == [
        *("Impression:", "pneumonia", "reviewed"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<p>No fever.</p><p>Heart failure &amp; COPD</p>",
        r"{\rtf1\ansi{\fonttbl{\f0 Heart;}} No fever.\par Heart failure \'26 COPD}",
        "&lt;p&gt;No fever.&lt;/p&gt; Heart failure &amp;amp; COPD",
        "No fever. Heart\u200b fai\u00adlure \uff06 COPD",
        "No fever. Heart failure & COPD",
    ],
)
def test_offsets_lead_back_to_the_source_text(text):
    note = to_plain_text(text)
    for passage in ("No fever.", "Heart", "COPD"):
        start = note.text.index(passage)
        begin, end = note.source_span(start, start + len(passage))
        assert text[begin:end].startswith(passage)
    assert note.source_span(0, len(note.text))[1] == len(text)


@given(st.text(st.sampled_from("<>/&;pbr=\"' \n\\{}u1rtf'ab!-[]\ufb01\u200b"), max_size=80))
def test_offsets_are_ordered_and_within_the_source_text(text):
    note = to_plain_text(text)
    if note.offsets is not None:
        assert len(note.offsets) == len(note.text) + 1
        assert (note.offsets[1:] >= note.offsets[:-1]).all()
        assert note.offsets[0] >= 0
        assert note.offsets[-1] == len(text)
    encode_note(note.text, SPEC)


@pytest.mark.parametrize(
    "part",
    [
        *("<", "<p>", "<p", "<a \"'", "<!--", "<![CDATA[", "<script>", "&lt;", "&", "\n", "\nx"),
        *("<p a=", "</", "<a", "<!", "&lt;p&gt;", "\ufb01", "e\u0300\u0327", " ", "<pre>"),
        *("{", "{}", "{a", "\\'e9", "\\u65?", "\\par", "{\\field{\\*\\fldinst{", "\\bin9"),
    ],
)
@pytest.mark.parametrize("before", ["", "<p>", r"{\rtf1"])
def test_the_time_is_linear_in_the_length(before, part):
    def seconds(length):
        text = before + part * (length // len(part))
        started = time.process_time()
        to_plain_text(text)
        return time.process_time() - started

    assert seconds(200_000) < 4.0  # processor time; quadratic time would be 20 s and more
