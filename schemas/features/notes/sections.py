"""Sentences of a note, and the sections that they belong to: past history, family history, others.

Only headings that change the meaning of a finding are listed by name. Any other heading at the
start of a line ends the section before it.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_WHOSE = r"(?:past|previous|prior|significant|known|relevant|pertinent|chronic|other|background)"
_FIELD = (
    r"(?:medical|surgical|cardiac|cardiovascular|psychiatric|psych|oncologic(?:al)?|oncology"
    r"|neurologic(?:al)?"
    r"|pulmonary|renal|gi|ob|gyn|med|surg)"
)
_PAST = (
    rf"(?:{_WHOSE} )?{_FIELD}(?:(?:/| and | & ){_FIELD})? (?:history|hx|problems|conditions"
    r"|diagnoses)"
    rf"|{_WHOSE} (?:history|hx|problems|conditions|diagnoses|illnesses)|pmhx?(?:/pshx?)?|pshx?"
    r"|pmsh|pohx?"
    r"|background|comorbidities|co-morbidities|comorbid conditions|medical problems|hx|pphx?|phx?"
    r"|old problems|resolved problems|inactive problems"
)
_FAMILY = (
    r"(?:family|fam\.?)(?: medical| cardiac| health)?(?: and social|/social)? (?:history|hx)"
    r"|fhx?|famhx|fmhx|fam/sochx"
)
_DROPPED = (
    r"allerg(?:y|ies)(?: list)?|adverse (?:drug )?reactions?|immuni[sz]ations?|vaccinations?"
    r"|vaccines?"
    r"|health maintenance|return precautions|patient (?:education|instructions)"
    r"|discharge instructions"
    r"|(?:dvt|gi|vte|pe|stress ulcer)?[ ]?(?:prophylaxis|ppx|px)|screening"
)
_POSSIBLE = r"(?:broad )?differential(?: diagnos[ie]s| dx)?|ddx|dd|rule out|r/o"
_OTHER = (
    r"hpi|hopi|hpc|pc|cc|chief complaint|presenting complaint"
    r"|history of (?:the )?present(?:ing)? (?:illness|complaint)"
    r"|history|social history|social hx|shx?|meds?|medications?|home meds|home medications"
    r"|current medications|dhx?|ros"
    r"|review of systems|physical exam(?:ination)?|exam(?:ination)?|o/e|pe|vitals?|labs?|imaging"
    r"|radiology|cxr|ct|ct head|mri|ekg|ecg"
    r"|echo|tte|micro|assessment(?: and plan|/plan| & plan)?|a/p|a&p|a|p|s|o|impression|imp|plan"
    r"|diagnos[ie]s|dx|problems?"
    r"|problem list|active problems|hospital course|ed course|events|overnight|interval history"
    r"|neuro|cv|cvs|resp|pulm"
    r"|gi|gu|renal|id|heme|endo|fen|code(?: status)?|dispo(?:sition)?|summary|findings|indication"
    r"|comparison|admission diagnos[ie]s"
    r"|principal diagnosis|discharge diagnos[ie]s|consults?|procedures?|course|admission"
    r"|reason for (?:admission|consult)"
)
# In lower-case text: a known heading before a colon or alone on its line, or any heading of a line.
_HEADING = re.compile(
    rf"(?:(?<=\s)|(?<=[,;.(*])|^)(?:(?P<past>{_PAST})|(?P<family>{_FAMILY})|(?P<drop>{_DROPPED})"
    rf"|(?P<possible>{_POSSIBLE})"
    rf"|(?P<other>{_OTHER}))(?:[ \t]{{0,9}}:+(?!\d)|[ \t]{{1,9}}[-\u2013](?=[ \t])"
    r"|(?=[ \t]{0,9}(?:\n|$)))"
    r"|(?:^|(?<=\n))[ \t]{0,9}(?P<unknown>[a-z#*][a-z /&()*#-]{0,40}:)(?!\d)"
)
_BOUNDARY = re.compile(
    r"(?P<line>\n\s*)|;|(?P<stop>[.!](?=\s|$)|(?<=[a-z)]{2})\.(?=[a-z]{2})|(?<=[\w)])\?+(?=\s|$))"
)
_BULLET = re.compile(r"[ \t]*(?:[-*+\u2022\u00b7\u25aa#>]|\d{1,2}[.)]|\(?[a-z\d]\)[ \t])")
_CONTINUES = re.compile(
    r"(?:[,/&]|\b(?:of|for|or|nor|and|any|to|with|no|not|the|a|an|w/|h/o|hx))[ \t]*$"
)
_SHORT_FORM = re.compile(
    r"(?:\b(?:dr|pt|pts|vs|hx|approx|e\.g|i\.e|eg|mr|mrs|ms|st|dx|sig|h\.o|fam|prob|poss|esp|incl"
    r"|inc)|(?:^|\n)[ \t]*\d{1,2})$"
)
# Sentences that are about the present, after an inline section without a heading of its own.
_PRESENT = re.compile(
    r"\s*(?:(?:the |this |he |she |pt |patient |they |mr\.? \w+ |ms\.? \w+ |mrs\.? \w+ |we "
    r"|i )(?:\w+ )?(?:is|was|now|presents?|presented|admitted|came|comes|developed|has been"
    r"|reports?|reported|complains|states|underwent|remains|required|arrived|had been|became|were"
    r"|transferred|continues|denies)"
    r"|presents?\b|presented|presenting|admitted|transferred|now\b|today|here (?:with|for)|came"
    r"|currently|on arrival|on admission|in (?:the )?ed\b|in (?:the )?er\b|found|brought|p/w|bib"
    r"|over the|since|this (?:am|morning|admission)|yesterday|last night|overnight|intubated"
    r"|developed|impression|assessment|plan\b|cxr|ct\b|labs|exam\b|vitals|echo)"
)
_PATIENT = re.compile(r"\s*(?:the |this )?(?:patient|pt|he|she|mr|ms|mrs)\b(?!'s)")
_LONG_LINE = 50  # characters; shorter lines are entries of a list


class Sentence(NamedTuple):
    """A sentence, or a part of it, in the characters [start, stop). `section`: see `_HEADING`."""

    start: int
    stop: int
    section: str | None


class _Piece(NamedTuple):
    start: int
    stop: int
    line: bool  # whether it begins a line
    paragraph: bool
    bullet: bool


def sentences(text: str, lower: str) -> Iterator[Sentence]:
    """Yields the sentences of a text, cut at headings, with their section.

    `lower`: the text in lower case, of the same length.
    """
    headings = list(_HEADING.finditer(lower))
    section: str | None = None
    inline = empty = False
    following = 0
    for piece in _pieces(text, lower):
        if section is not None and _ends_section(lower, piece, section, inline=inline, empty=empty):
            section = None
        position = piece.start
        while following < len(headings) and headings[following].end() <= piece.stop:
            heading = headings[following]
            following += 1
            kind = heading.lastgroup
            if kind == "unknown":  # "AKI: resolved": no heading of a section, or one of another
                section = None
                continue
            if heading.start() > position:
                yield Sentence(position, heading.start(), section)
            section = None if kind == "other" else kind
            position = heading.end()
            inline = bool(lower[position : piece.stop].strip())
            empty = True
        yield Sentence(position, piece.stop, section)
        empty = empty and not lower[position : piece.stop].strip()


def _ends_section(lower: str, piece: _Piece, section: str, *, inline: bool, empty: bool) -> bool:
    """Whether a section ends before a piece."""
    if empty:
        return False
    if piece.paragraph and not piece.bullet:
        return True
    if inline and piece.line and not piece.bullet:
        return True
    about = lower[piece.start : min(piece.stop, piece.start + 60)]
    pattern = _PATIENT if section == "family" else _PRESENT
    return (inline or not piece.line) and pattern.match(about) is not None


def _pieces(text: str, lower: str) -> Iterator[_Piece]:
    """Yields the sentences of a text. A line break ends a sentence unless the line was wrapped."""
    start, line, paragraph, bullet = 0, True, True, _BULLET.match(lower) is not None
    for end in _BOUNDARY.finditer(lower):
        begins_line = end["line"] is not None
        begins_paragraph = begins_line and end[0].count("\n") > 1
        begins_bullet = begins_line and _BULLET.match(lower, end.end()) is not None
        before = lower[max(start, end.start() - 12) : end.start()]
        if begins_line and not begins_paragraph and not begins_bullet:
            if _CONTINUES.search(before) or _is_wrapped(text, end):
                continue
        elif end["stop"] == "." and _SHORT_FORM.search(before):
            continue
        stop = end.end() if (end["stop"] or "").startswith("?") else end.start()  # "sepsis?"
        yield _Piece(start, stop, line, paragraph, bullet)
        start, line, paragraph, bullet = end.end(), begins_line, begins_paragraph, begins_bullet
    yield _Piece(start, len(lower), line, paragraph, bullet)


def _is_wrapped(text: str, line_break: re.Match[str]) -> bool:
    """Whether a line break divides a long line of prose, which goes on in lower case."""
    last = text.rfind("\n", max(0, line_break.start() - _LONG_LINE), line_break.start())
    is_long = last < 0 and line_break.start() >= _LONG_LINE
    return is_long and text[line_break.end() : line_break.end() + 1].islower()
