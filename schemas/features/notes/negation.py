"""Negation detection in notes: "no pneumonia", "denies fever or cough", "effusion: absent".

Uses the cues and pseudo-cues of NegEx (Chapman et al. 2001, J Biomed Inform 34:301) and the scopes
of ConText (Harkema et al. 2009, J Biomed Inform 42:839): a cue negates the text after it, or before
it, within its clause. Neither defines where a negated list ends. Here, this depends on the cue and
on the words of the list (`_end_of_list`). The method uses words, not grammar. Its time is linear in
the length of the text.
"""

import re
import string
from dataclasses import dataclass, field

from schemas.features.notes.negation_cues import (
    AFFIRMED_FIRST,
    AFFIRMED_WITHIN,
    CUE,
    HEADING,
    OTHER_VERB,
    PERSON,
    TITLE,
    VERB,
)

_CONTINUES = re.compile(r"(?:,|\b(?:of|for|or|nor|and|any|to|with|no|not|the|a|an))\s*$")
_BULLET = re.compile(r"[-*+\u2022\u00b7\u25aa]|\d{1,2}[.)]|o\s|[a-z][.)]\s")
_OF_LIST = re.compile(r"\b(?:following|of|for|including|any|are|as|either)\s*$")
_CLOSES = {
    "list": re.compile(r"\b(?:or|nor|and)\b|&"),
    "no": re.compile(r"\b(?:or|nor|and)\b|&"),
    "not": re.compile(r"\b(?:or|nor)\b"),
}
_BEGINS_WITH_OR = re.compile(r"\s*(?:or|nor)\b")
_CONJUNCTION = re.compile(r"\b(?:and|or)\b")
_CUT_TITLE = re.compile(r"\s(?:and|with)\b")
_TRAILING_WORDS = re.compile(
    r"(?:[\s,]++|(?<!\w)(?:and|or|nor|with|but|very|highly|most|extremely|felt to be"
    r"|thought to be|felt|considered)(?!\w))+$"
)
_LEADING_WORDS = re.compile(r"(?:[\s,&*\u2022-]++|(?:and|or|with)\s++)+")
# "N" is an answer only as a capital letter: "Diabetes: N".
_LETTER_N = re.compile(r"\W+n")
_WORD = re.compile(r"\w")
# Only ASCII letters, because the lower case of others can have another length.
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_PLURAL = ("aren", "weren", "haven")
_LEADING_CUES = {
    "ruled out": "no",
    "ruled-out": "no",
    "excluded": "no",
    "denied": "list",
    "nil": "no",
}
_LEADING_CUES |= {"denied": "list", "nil": "no", "lacking": "no", "unlikely": "not"}
_MAX_ITEM_WORDS = 6  # in a list without a closing "and" or "or"
_MAX_SUBJECT_LENGTH = 300  # characters


@dataclass(slots=True)
class _Negation:
    """An open negation.

    `kind`: kind of its cue. `has_colon`: the cue ends with a colon. `is_bulleted`: its items are a
    bulleted list. `commas`: positions where items end.
    """

    start: int
    kind: str
    has_colon: bool = False
    is_bulleted: bool = False
    commas: list[int] = field(default_factory=list)


class _Reader:
    """Reads the cues of a text from left to right.

    `spans`: the negated spans so far. `_clause`, `_comma`, `_and`: the ends of the last clause
    boundary, comma and conjunction, where the subject of a later cue can begin.
    """

    def __init__(self, text: str) -> None:
        self.spans: list[tuple[int, int]] = []
        self._text = text
        self.lower = text.translate(_TO_LOWER)
        self._clause = self._comma = self._and = 0
        self._negation: _Negation | None = None
        self._sign_position: str | None = None
        self._outer_clauses: list[tuple[int, int, int, str | None]] = []

    def read(self, cue: re.Match[str]) -> None:
        """Handles the next cue."""
        start, end = cue.span()
        match cue.lastgroup:
            case "list" | "no" | "not":
                self._begin_negation(start, end, cue.lastgroup)
            case "answer" | "before" | "minus" | "copula":
                self._negate_before(cue)
            case "signed":
                if self._signs_follow(start):
                    self._negate_before(cue)
                else:
                    self._begin_negation(start, end, "list")
            case "end":
                # Directly after a cue, as in "not due to", it does not end the clause.
                negation = self._negation
                if negation is None or _WORD.search(self._text, negation.start, start):
                    self._end_clause(start, end)
            case "yes" | "pseudo":
                self._end_clause(start, end)
            case "open_question":
                item = max(self._comma, self._and)
                within = self._negation is not None and item > self._negation.start
                self._end_clause(item if within else start, end)
            case _:
                self._boundary(cue)

    def _boundary(self, cue: re.Match[str]) -> None:
        """Handles cues that end no clause, or only in some contexts."""
        start, end = cue.span()
        match cue.lastgroup:
            case "start":
                self._clause = end
            case "and" | "ampersand":
                self._and = end
            case "plus":
                self._signs_follow(start)
                self._end_clause(start, end)
            case "comma":
                self._comma = end
                if self._negation is not None:
                    self._negation.commas.append(start)
            case "colon":
                self._end_heading(start, end)
            case _:
                self._end_or_parenthesis(cue)

    def _end_or_parenthesis(self, cue: re.Match[str]) -> None:
        """Handles the end of a sentence, and parentheses."""
        start, end = cue.span()
        match cue.lastgroup:
            case "stop":
                # A full stop within a word does not end a sentence: "1.5 mg", "e.g".
                is_inside_word = self._text[start] == "." and self._text[end : end + 1].islower()
                if not is_inside_word:
                    self.end_sentence(start, end)
            case "line":
                self._break_line(start, end)
            case "open":
                kind = None if self._negation is None else self._negation.kind
                self._outer_clauses.append((self._clause, self._comma, self._and, kind))
                self._end_clause(start, end)
            case "shut":
                self._close_parenthesis(start, end)

    def end_sentence(self, start: int, end: int) -> None:
        """Ends the clause and all parentheses."""
        self._end_clause(start, end)
        self._sign_position = None
        self._outer_clauses.clear()

    def _signs_follow(self, start: int) -> bool:
        """Whether signs follow their words ("DVT (-)"), judged by the first sign of a sentence."""
        if self._sign_position is None:
            before = self._text[max(self._clause, self._comma) : start]
            is_first = VERB.search(before.translate(_TO_LOWER)) or not _WORD.search(before)
            self._sign_position = "first" if is_first else "last"
        return self._sign_position == "last"

    def _end_clause(self, start: int, end: int) -> None:
        self._end_negation(start)
        self._clause = end

    def _begin_negation(self, start: int, end: int, kind: str) -> None:
        self._end_clause(start, end)
        self._negation = _Negation(end, kind, self._text[end - 1] == ":")

    def _break_line(self, start: int, end: int) -> None:
        """Handles a line break, which ends a sentence unless the line was wrapped."""
        negation, bullet = self._negation, _BULLET.match(self._text, end)
        if self._text.count("\n", start, end) == 1:
            if negation is not None and negation.has_colon and bullet:
                negation.is_bulleted |= not self._text[negation.start : start].strip()
                if negation.is_bulleted and self._text[end] != "+":
                    negation.commas.append(bullet.end() - 1)
                    return
            before = self._text[max(0, start - 8) : start]
            if not bullet and (self._text[end : end + 1].islower() or _CONTINUES.search(before)):
                return
        self.end_sentence(start, end)

    def _close_parenthesis(self, start: int, end: int) -> None:
        self._end_negation(start)
        if not self._outer_clauses:
            self._clause = end
            return
        self._clause, self._comma, self._and, kind = self._outer_clauses.pop()
        if kind is not None:
            self._negation = _Negation(end, "not" if kind == "no" else kind)

    def _end_heading(self, start: int, end: int) -> None:
        """Ends a negation before the words of a heading: "no fever, PMH: COPD"."""
        negation = self._negation
        if negation is not None:
            near = self._text[max(negation.start, start - 60) : start]
            if _OF_LIST.search(near):
                return
            heading = HEADING.search(near)
            words = start - len(near) + (heading.start() if heading else len(near))
            self._end_negation(negation.commas[-1] if negation.commas else words)
        self._clause = end

    def _negate_before(self, cue: re.Match[str]) -> None:
        """Negates the text before the cue, or after it in sentences like "CT ruled out PE"."""
        start, end = cue.span()
        if _LETTER_N.fullmatch(cue[0]) and self._text[end - 1] == "n":
            return
        verb = VERB.search(self.lower, max(0, start - 40), start)
        begin = self._subject_start(cue, verb)
        if cue.lastgroup == "copula" and verb is None:
            if cue[0] in _LEADING_CUES:
                self._begin_negation(start, end, _LEADING_CUES[cue[0]])
            elif cue[0] != "absent" and not _WORD.search(self._text, begin, start):
                self._begin_negation(start, end, "not")
            return
        if self._negation is None or self._end_negation(start) < begin:
            stop = max(begin, verb.start()) if verb else start
            if not PERSON.search(self._text[max(begin, stop - 40) : stop].strip()):
                self._add_span(begin, stop)
        self._clause = end

    def _subject_start(self, cue: re.Match[str], verb: re.Match[str] | None) -> int:
        """Returns the start of the negated subject before a cue: an item or a whole list."""
        words, start = cue[0], cue.start()
        clause = max(self._clause, start - _MAX_SUBJECT_LENGTH)
        after_comma = max(clause, self._comma)
        after_and = max(after_comma, self._and)
        if cue.lastgroup == "answer":
            listed = _CONJUNCTION.search(self.lower, after_comma, start) or "denie" in words
            return clause if listed else after_comma
        if words.startswith(_PLURAL) or (verb and verb[1].startswith(("are", "were", "have"))):
            stop = verb.start() if verb else start
            return after_and if OTHER_VERB.search(self.lower, clause, stop) else clause
        if verb or words.startswith(("not", "ruled", "excluded", "unlikely")):
            return after_and
        return after_comma

    def _end_negation(self, end: int) -> int:
        """Ends an open negation at `end` or before. Returns the end."""
        negation, self._negation = self._negation, None
        if negation is None or not self._text[negation.start : end].strip():
            return end
        end = _end_of_list(self.lower, negation, max(end, negation.start))
        self._add_span(negation.start, end)
        return end

    def _add_span(self, start: int, end: int) -> None:
        start = max(start, self.spans[-1][1] if self.spans else 0)
        leading = _LEADING_WORDS.match(self._text, start, end)
        start = leading.end() if leading else start
        trailing = _TRAILING_WORDS.search(self._text, max(start, end - 40), end)
        end = trailing.start() if trailing else end
        if start < end and self._text[start:end].strip():
            self.spans.append((start, end))


def negated_spans(text: str) -> list[tuple[int, int]]:
    """Returns the negated spans [start, stop) of a text, in order and without overlap."""
    reader = _Reader(text)
    for cue in CUE.finditer(reader.lower):
        reader.read(cue)
    reader.end_sentence(len(text), len(text))
    return reader.spans


def _end_of_list(text: str, negation: _Negation, end: int) -> int:
    """Returns the end of a negation that ends at `end` at the latest: there or at a comma.

    It ends before the first item that affirms something, and after the last item with "or". In a
    list without "and" or "or", all items are negated after "denies" and "no". After "not",
    "without" and the words of a diagnosis title ("without complications, hypertension"), only the
    first item is negated.
    """
    title = TITLE.match(text, negation.start, end) is not None
    commas = [comma for comma in negation.commas if comma < end]
    last = 0
    ends = [*commas, end]
    for i, comma in enumerate(commas, 1):
        item = (text, comma + 1, ends[i])
        closes = _CLOSES[negation.kind].search(*item)
        if AFFIRMED_FIRST.match(*item) or (not closes and AFFIRMED_WITHIN.search(*item)):
            ends = ends[:i]
            break
        if _BEGINS_WITH_OR.match(*item) if title else closes:
            last = i
    if last:
        return ends[last]
    if title:
        cut = _CUT_TITLE.search(text, negation.start, ends[0])
        return cut.start() if cut else ends[0]
    closed = _CLOSES["not"].search(text, negation.start, ends[0])
    if negation.kind == "not" or (negation.kind == "no" and closed):
        return ends[0]
    for i in range(1, len(ends)):
        if len(text[ends[i - 1] : ends[i]].split()) > _MAX_ITEM_WORDS:
            return ends[i - 1]
    return ends[-1]
