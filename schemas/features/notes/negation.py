"""What a note denies: "no pneumonia", "denies fever or cough", "effusion: absent".

Cues and pseudo-cues of NegEx (Chapman et al. 2001, J Biomed Inform 34:301), scopes of ConText
(Harkema et al. 2009, J Biomed Inform 42:839): a cue denies what follows it, or what stands before
it, within its clause. Where the list of a denial ends these do not say; here it depends on the cue
and on the words of the list (`_end_of_list`). It knows words, not grammar, and takes time in
proportion to the length of the text.
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
_TRIMMED = re.compile(
    r"(?:[\s,]++|(?<!\w)(?:and|or|nor|with|but|very|highly|most|extremely|felt to be"
    r"|thought to be|felt|considered)(?!\w))++$"
)
_LED = re.compile(r"(?:[\s,&*\u2022-]++|(?:and|or|with)\s++)++")
# Only as a capital letter it is an answer: "Diabetes: N".
_LETTER_N = re.compile(r"\W+n")
_WORD = re.compile(r"\w")
# Letters of ASCII: any others might change in number.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_PLURAL = ("aren", "weren", "haven")
_AFTER = {"ruled out": "no", "ruled-out": "no", "excluded": "no", "denied": "list", "nil": "no"}
_AFTER |= {"lacking": "no", "unlikely": "not"}
_MOST_WORDS = 6  # of an item of a list that nothing closes
_LONGEST_SUBJECT = 300  # characters


@dataclass(slots=True)
class _Denial:
    """A denial that has not ended. `kind`: of its cue; `commas`: where its items end."""

    start: int
    kind: str
    colon: bool = False
    bulleted: bool = False
    commas: list[int] = field(default_factory=list)


class _Reader:
    """Reads the cues of a text from left to right.

    What a later cue may deny begins at the last of `_clause`, `_comma` and `_and`.
    """

    def __init__(self, text: str) -> None:
        self.parts: list[tuple[int, int]] = []
        self._text = text
        self.lower = text.translate(_LOWER)
        self._clause = self._comma = self._and = 0
        self._denial: _Denial | None = None
        self._signs: str | None = None
        self._outer: list[tuple[int, int, int, str | None]] = []

    def read(self, cue: re.Match[str]) -> None:
        start, end = cue.span()
        match cue.lastgroup:
            case "list" | "no" | "not":
                self._deny(start, end, cue.lastgroup)
            case "answer" | "before" | "minus" | "copula":
                self._before(cue)
            case "signed":
                if self._signs_follow(start):
                    self._before(cue)
                else:
                    self._deny(start, end, "list")
            case "end":
                # "Not due to" is still the first thought.
                denial = self._denial
                if denial is None or _WORD.search(self._text, denial.start, start):
                    self._end_thought(start, end)
            case "yes" | "pseudo":
                self._end_thought(start, end)
            case "open_question":
                item = max(self._comma, self._and)
                within = self._denial is not None and item > self._denial.start
                self._end_thought(item if within else start, end)
            case _:
                self._boundary(cue)

    def _boundary(self, cue: re.Match[str]) -> None:
        """What ends nothing, or not always."""
        start, end = cue.span()
        match cue.lastgroup:
            case "start":
                self._clause = end
            case "and" | "ampersand":
                self._and = end
            case "plus":
                self._signs_follow(start)
                self._end_thought(start, end)
            case "comma":
                self._comma = end
                if self._denial is not None:
                    self._denial.commas.append(start)
            case "colon":
                self._heading(start, end)
            case _:
                self._end(cue)

    def _end(self, cue: re.Match[str]) -> None:
        """A sentence's end, or a parenthesis."""
        start, end = cue.span()
        match cue.lastgroup:
            case "stop":
                # A point within a word ends nothing: "1.5 mg", "e.g".
                glued = self._text[start] == "." and self._text[end : end + 1].islower()
                if not glued:
                    self.end_sentence(start, end)
            case "line":
                self._line(start, end)
            case "open":
                kind = None if self._denial is None else self._denial.kind
                self._outer.append((self._clause, self._comma, self._and, kind))
                self._end_thought(start, end)
            case "shut":
                self._shut(start, end)

    def end_sentence(self, start: int, end: int) -> None:
        self._end_thought(start, end)
        self._signs = None
        self._outer.clear()

    def _signs_follow(self, start: int) -> bool:
        """Whether signs stand after their words, as the first of a sentence does: "DVT (-)"."""
        if self._signs is None:
            before = self._text[max(self._clause, self._comma) : start]
            led = VERB.search(before.translate(_LOWER)) or not _WORD.search(before)
            self._signs = "first" if led else "last"
        return self._signs == "last"

    def _end_thought(self, start: int, end: int) -> None:
        self._close(start)
        self._clause = end

    def _deny(self, start: int, end: int, kind: str) -> None:
        self._end_thought(start, end)
        self._denial = _Denial(end, kind, self._text[end - 1] == ":")

    def _line(self, start: int, end: int) -> None:
        """A line break ends a sentence if it was not made by wrapping."""
        denial, follows = self._denial, _BULLET.match(self._text, end)
        if self._text.count("\n", start, end) == 1:
            if denial is not None and denial.colon and follows:
                denial.bulleted |= not self._text[denial.start : start].strip()
                if denial.bulleted and self._text[end] != "+":
                    denial.commas.append(follows.end() - 1)
                    return
            before = self._text[max(0, start - 8) : start]
            if not follows and (self._text[end : end + 1].islower() or _CONTINUES.search(before)):
                return
        self.end_sentence(start, end)

    def _shut(self, start: int, end: int) -> None:
        self._close(start)
        if not self._outer:
            self._clause = end
            return
        self._clause, self._comma, self._and, kind = self._outer.pop()
        if kind is not None:
            self._denial = _Denial(end, "not" if kind == "no" else kind)

    def _heading(self, start: int, end: int) -> None:
        """A heading ends a denial before its own words: "no fever, PMH: COPD"."""
        denial = self._denial
        if denial is not None:
            near = self._text[max(denial.start, start - 60) : start]
            if _OF_LIST.search(near):
                return
            heading = HEADING.search(near)
            words = start - len(near) + (heading.start() if heading else len(near))
            self._close(denial.commas[-1] if denial.commas else words)
        self._clause = end

    def _before(self, cue: re.Match[str]) -> None:
        """Denies what stands before the cue; of "CT ruled out PE" what follows it."""
        start, end = cue.span()
        if _LETTER_N.fullmatch(cue[0]) and self._text[end - 1] == "n":
            return
        verb = VERB.search(self.lower, max(0, start - 40), start)
        begins = self._subject(cue, verb)
        if cue.lastgroup == "copula" and verb is None:
            if cue[0] in _AFTER:
                self._deny(start, end, _AFTER[cue[0]])
            elif cue[0] != "absent" and not _WORD.search(self._text, begins, start):
                self._deny(start, end, "not")
            return
        if self._denial is None or self._close(start) < begins:
            stop = max(begins, verb.start()) if verb else start
            if not PERSON.search(self._text[max(begins, stop - 40) : stop].strip()):
                self._emit(begins, stop)
        self._clause = end

    def _subject(self, cue: re.Match[str], verb: re.Match[str] | None) -> int:
        """Where that begins of which a cue says that it is not there: an item, or all of a list."""
        said, start = cue[0], cue.start()
        clause = max(self._clause, start - _LONGEST_SUBJECT)
        after_comma = max(clause, self._comma)
        after_and = max(after_comma, self._and)
        if cue.lastgroup == "answer":
            listed = _CONJUNCTION.search(self.lower, after_comma, start) or "denie" in said
            return clause if listed else after_comma
        if said.startswith(_PLURAL) or (verb and verb[1].startswith(("are", "were", "have"))):
            stop = verb.start() if verb else start
            return after_and if OTHER_VERB.search(self.lower, clause, stop) else clause
        if verb or said.startswith(("not", "ruled", "excluded", "unlikely")):
            return after_and
        return after_comma

    def _close(self, end: int) -> int:
        """Ends the denial, if there is one, at `end` or before; gives where it ended."""
        denial, self._denial = self._denial, None
        if denial is None or not self._text[denial.start : end].strip():
            return end
        end = _end_of_list(self.lower, denial, max(end, denial.start))
        self._emit(denial.start, end)
        return end

    def _emit(self, start: int, end: int) -> None:
        start = max(start, self.parts[-1][1] if self.parts else 0)
        led = _LED.match(self._text, start, end)
        start = led.end() if led else start
        trimmed = _TRIMMED.search(self._text, max(start, end - 40), end)
        end = trimmed.start() if trimmed else end
        if start < end and self._text[start:end].strip():
            self.parts.append((start, end))


def denied(text: str) -> list[tuple[int, int]]:
    """The parts of a text that are denied: [start, stop) of each, in order, none overlapping."""
    reader = _Reader(text)
    for cue in CUE.finditer(reader.lower):
        reader.read(cue)
    reader.end_sentence(len(text), len(text))
    return reader.parts


def _end_of_list(text: str, denial: _Denial, end: int) -> int:
    """Where a denial ends that lasts to `end` at most: there, or at one of its commas.

    It ends before the first item that affirms something, and after the last item with "or". Lists
    that nothing closes go on after "denies" and "no"; after "not", "without" and the words of a
    diagnosis' title ("without complications, hypertension"), the first item is all.
    """
    title = TITLE.match(text, denial.start, end) is not None
    commas = [at for at in denial.commas if at < end]
    last = 0
    ends = [*commas, end]
    for i, at in enumerate(commas, 1):
        item = (text, at + 1, ends[i])
        closes = _CLOSES[denial.kind].search(*item)
        if AFFIRMED_FIRST.match(*item) or (not closes and AFFIRMED_WITHIN.search(*item)):
            ends = ends[:i]
            break
        if _BEGINS_WITH_OR.match(*item) if title else closes:
            last = i
    if last:
        return ends[last]
    if title:
        cut = _CUT_TITLE.search(text, denial.start, ends[0])
        return cut.start() if cut else ends[0]
    closed = _CLOSES["not"].search(text, denial.start, ends[0])
    if denial.kind == "not" or (denial.kind == "no" and closed):
        return ends[0]
    for i in range(1, len(ends)):
        if len(text[ends[i - 1] : ends[i]].split()) > _MOST_WORDS:
            return ends[i - 1]
    return ends[-1]
