"""A note with markup, or in characters of another form, is read as its plain text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features import FeatureSpec, note_text, note_tokens

SPEC = FeatureSpec.default()
PLAIN = (
    "72 year old with fever & hypotension (BP <90), started on norepinephrine.",
    "Past history of COPD, atrial fibrillation on warfarin.",
)
ESCAPED = [line.replace("&", "&amp;").replace("<", "&lt;") for line in PLAIN]


def words(text):
    return note_text(text).text.split()


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
def test_html_is_read_as_its_text(text):
    assert words(text.format(*ESCAPED)) == " ".join(PLAIN).split()


def test_html_that_was_escaped_twice_is_read_as_its_text():
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
def test_text_that_only_resembles_markup_stays_as_it_is(text):
    assert note_text(text).text == text
    assert note_text(text).places is None


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
def test_characters_are_read_in_their_plain_form(text, plain):
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
def test_rtf_is_read_as_its_text(text):
    assert words(text.format(*PLAIN)) == " ".join(PLAIN).split()


def test_characters_of_rtf_are_decoded():
    text = r"{\rtf1\ansi\ansicpg1252\uc1 caf\'e9 \u8805? 5 {\uc2\u956 ??g} \u-10179?\u-8704? \{a\}}"
    assert note_text(text).text == "café ≥ 5 μg \U0001f600 {a}"


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
def test_each_passage_has_its_place_in_the_text_as_sent(text):
    note = note_text(text)
    for passage in ("No fever.", "Heart", "COPD"):
        start = note.text.index(passage)
        begin, end = note.as_sent(start, start + len(passage))
        assert text[begin:end].startswith(passage)
    assert note.as_sent(0, len(note.text))[1] == len(text)


@given(st.text(st.sampled_from("<>/&;pbr=\"' \n\\{}u1rtf'ab!-[]\ufb01\u200b"), max_size=80))
def test_places_are_in_order_within_the_text(text):
    note = note_text(text)
    if note.places is not None:
        assert len(note.places) == len(note.text) + 1
        assert (note.places[1:] >= note.places[:-1]).all()
        assert note.places[0] >= 0
        assert note.places[-1] == len(text)
    note_tokens(note.text, SPEC)


@pytest.mark.parametrize(
    "part",
    [
        *("<", "<p>", "<p", "<a \"'", "<!--", "<![CDATA[", "<script>", "&lt;", "&", "\n", "\nx"),
        *("<p a=", "</", "<a", "<!", "&lt;p&gt;", "\ufb01", "e\u0300\u0327", " ", "<pre>"),
        *("{", "{}", "{a", "\\'e9", "\\u65?", "\\par", "{\\field{\\*\\fldinst{", "\\bin9"),
    ],
)
@pytest.mark.parametrize("before", ["", "<p>", r"{\rtf1"])
def test_the_time_is_in_proportion_to_the_length(before, part):
    def seconds(length):
        text = before + part * (length // len(part))
        started = time.process_time()
        note_text(text)
        return time.process_time() - started

    assert seconds(200_000) < 1.0  # quadratic: 20 s and more
