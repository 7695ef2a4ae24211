"""Assertions of diseases in notes: which of the 40 diseases a note affirms, denies or suspects.

`concepts.py` recognises the names of the diseases, and `negation.py` the negated spans. This module
adds the contexts of ConText (Harkema et al. 2009, J Biomed Inform 42:839): historical, possible,
and about the family. A cue opens a scope before or after it, and a terminator or the end of the
sentence closes the scope. Headings such as "PMH:" have a scope too (`sections.py`). The time is
linear in the length of the text.
"""

import re
import string
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from schemas.features.notes.concepts import ConceptMatch, load_concepts, match_concepts
from schemas.features.notes.context_cues import CUE
from schemas.features.notes.negation import negated_spans
from schemas.features.notes.negation_cues import AFFIRMED_FIRST
from schemas.features.notes.sections import Sentence, sentences
from schemas.features.time_limit import no_time_limit
from schemas.tasks import load_tasks

Status = Literal["affirmed", "historical", "possible", "denied", "family"]
# The order of the codes of a disease.
STATUSES: tuple[Status, ...] = ("affirmed", "historical", "possible", "denied", "family")

# The first context that holds decides.
_STATUS_BY_CONTEXT: tuple[tuple[str, Status], ...] = (
    ("family", "family"),
    ("denied", "denied"),
    ("possible", "possible"),
    ("past", "historical"),
)
SUGGESTIVE_WEIGHT = 0.5  # of evidence for a disease, beside its name
CODES_OF_A_DISEASE = 2 * len(STATUSES)
_SENTENCES_BETWEEN_CHECKS = _CUES_BETWEEN_CHECKS = 1_000
_TO_LOWER = str.maketrans(string.ascii_uppercase + "\u2019", string.ascii_lowercase + "'")
_OF_LIST = re.compile(r"\b(?:following|of|for|includ\w{1,3}|are|is|as|dx|diagnos[ei]s)\s*$")
_LIST_GOES_ON = re.compile(r"\s*(?:and/or|or|vs\.?|versus|possibly|possible|\?)")
_PATIENT = re.compile(
    r"\s*(?:(?:and|but|while)\s+)?(?:he|she|the patient|patient|pt|we|i|now|currently)\b"
)
_NON = re.compile(r"\bnon[- ]?$")
_PRE = re.compile(r"\b(?:pre|anti|peri)-$")
_POST = re.compile(r"\b(?:post-|ex[- ])$")
_EMPTY_BOX = re.compile(r"(?:\[ ?\]|☐) ?$")
_NEXT_GAP = re.compile(r"[\s/-]*$")
_MAX_DEPTH = 3  # deeper parentheses count as this deep
_MAX_BEFORE = 200  # characters of a scope before its cue


@dataclass(frozen=True)
class Mention:
    """A mention of a disease in the characters [start, stop).

    `suggestive`: the text is evidence for the disease ("on pressors"), not its name.
    """

    disease: str
    start: int
    stop: int
    status: Status
    suggestive: bool


def find_mentions(text: str, check: Callable[[], None] = no_time_limit) -> list[Mention]:
    """Returns the mentions of the diseases of `concepts.toml` in a text, in order.

    A mention that states nothing about the patient is left out: "DVT prophylaxis", "at risk of
    sepsis", "no family history of diabetes". A mention of a disease that is a subset of another
    one also mentions that one, unless it is denied. A historical infarction is also a historical
    mention of coronary artery disease. `text`: the result of `to_plain_text`. `check` is called
    regularly; an exception that it raises ends the search.
    """
    matches = match_concepts(text, check)
    if not matches:
        return []
    check()
    negated = negated_spans(text)
    check()
    lower = text.translate(_TO_LOWER)
    mentions: list[Mention] = []
    position = 0
    for count, sentence in enumerate(sentences(text, lower)):
        if count % _SENTENCES_BETWEEN_CHECKS == 0:
            check()
        first = position
        while position < len(matches) and matches[position].start < sentence.stop:
            position += 1
        if position > first:
            mentions += _read_sentence(lower, sentence, matches[first:position], negated, check)
    return _without_duplicates(_with_implied(mentions))


def assertion_codes(
    mentions: Iterable[Mention], diseases: Sequence[str]
) -> Iterator[tuple[int, Mention]]:
    """Yields the code of each mention, 0 to `len(diseases) * CODES_OF_A_DISEASE` - 1.

    The order is that of `diseases`, of STATUSES, and first names, then evidence. A history of a
    chronic disease also has the code of "affirmed".
    """
    concepts, rows = load_concepts(), {disease: i for i, disease in enumerate(diseases)}
    for mention in mentions:
        if mention.disease not in rows:
            continue
        statuses = [mention.status]
        if mention.status == "historical" and concepts[mention.disease].course == "chronic":
            statuses.append("affirmed")
        for status in statuses:
            row = rows[mention.disease] * len(STATUSES) + STATUSES.index(status)
            yield 2 * row + mention.suggestive, mention


def _read_sentence(
    lower: str,
    sentence: Sentence,
    matches: Sequence[ConceptMatch],
    negated: Sequence[tuple[int, int]],
    check: Callable[[], None],
) -> Iterator[Mention]:
    """Yields the mentions of a sentence with their status."""
    contexts = _ContextReader(lower, sentence, matches).read(check)
    for match, kinds in zip(matches, _kinds_at(contexts, matches), strict=True):
        kinds.update(_prefix_contexts(lower, match.start))
        if sentence.section is not None:
            kinds.add(sentence.section)
        if _is_negated(negated, match.start):
            kinds.add("denied")
        status = _status(kinds)
        if status is not None:
            yield Mention(match.disease, match.start, match.stop, status, match.suggestive)


def _kinds_at(
    contexts: Sequence[tuple[int, int, str]], matches: Sequence[ConceptMatch]
) -> Iterator[set[str]]:
    """Yields the kinds of the contexts that hold the start of each match. Matches are sorted."""
    changes = sorted(
        (position, change, kind)
        for start, stop, kind in contexts
        if start < stop
        for position, change in ((start, 1), (stop, -1))
    )
    depths: Counter[str] = Counter()
    following = 0
    for match in matches:
        while following < len(changes) and changes[following][0] <= match.start:
            _, change, kind = changes[following]
            depths[kind] += change
            following += 1
        yield {kind for kind, depth in depths.items() if depth > 0}


def _status(kinds: set[str]) -> Status | None:
    """Returns the status in these contexts; None if nothing is stated about the patient."""
    if "drop" in kinds or {"family", "denied"} <= kinds:
        return None
    for kind, status in _STATUS_BY_CONTEXT:
        if kind in kinds:
            return status
    return "affirmed"


def _prefix_contexts(lower: str, start: int) -> Iterator[str]:
    """Yields the context of a prefix: "non-septic", "pre-diabetes", "post-stroke", "[ ] stroke"."""
    before = lower[max(0, start - 6) : start]
    for pattern, kind in ((_NON, "denied"), (_PRE, "drop"), (_POST, "past"), (_EMPTY_BOX, "drop")):
        if pattern.search(before):
            yield kind


def _is_negated(negated: Sequence[tuple[int, int]], start: int) -> bool:
    """Whether a position is in a negated span."""
    index = bisect_right(negated, start, key=lambda span: span[0]) - 1
    return index >= 0 and start < negated[index][1]


@dataclass(slots=True)
class _Scope:
    """An open scope after a cue.

    `is_item`: it ends with its item, not with the clause. `depth`: the number of open parentheses.
    """

    kind: str
    start: int
    is_item: bool
    depth: int


class _ContextReader:
    """Reads the cues of a sentence from left to right.

    `_clause` and `_item`: where the scope of a later cue that points backwards begins.
    """

    def __init__(self, lower: str, sentence: Sentence, matches: Sequence[ConceptMatch]) -> None:
        self._lower = lower
        self._sentence = sentence
        self._stops = sorted({match.stop for match in matches})
        self._spans: list[tuple[int, int, str]] = []
        self._open: list[_Scope] = []
        self._clause = self._item = sentence.start
        self._depth = 0

    def read(self, check: Callable[[], None]) -> list[tuple[int, int, str]]:
        """Returns the (start, stop, kind) of the contexts."""
        cues = CUE.finditer(self._lower, self._sentence.start, self._sentence.stop)
        for count, cue in enumerate(cues, 1):
            if count % _CUES_BETWEEN_CHECKS == 0:
                check()
            self._read_cue(cue, cue.lastgroup or "")
        self._close(self._sentence.stop)
        return self._spans

    def _read_cue(self, cue: re.Match[str], group: str) -> None:
        start, stop = cue.span()
        kind, scope, *_ = [*group.split("_"), ""]
        match scope:
            case "list" | "item":
                self._begin_scope(kind, stop, is_item=scope == "item")
                self._item = stop
            case "before":
                self._add_before(start, kind)
            case "next":
                self._add_next(start, kind)
            case "around":
                self._add_before(start, kind)
                self._begin_scope(kind, stop, is_item=True)
            case _:
                self._read_boundary(start, stop, group)

    def _read_boundary(self, start: int, stop: int, group: str) -> None:
        match group:
            case "end" | "cause":
                self._close(start, but="family" if group == "cause" else None)
                self._clause = self._item = stop
            case "comma":
                self._end_item(start, stop)
                self._item = stop
            case "and" | "with":
                self._close_items(start)
                self._item = stop
            case "verb":
                self._item = stop
            case "colon":
                self._end_heading(start)
                self._item = stop
            case "open":
                self._depth += 1
            case "shut":
                self._depth = max(0, self._depth - 1)
                self._close(start, depth=self._depth)

    def _begin_scope(self, kind: str, start: int, *, is_item: bool) -> None:
        """Opens a scope, unless an open one ends with it. So few scopes are open at a time."""
        depth = min(self._depth, _MAX_DEPTH)
        if all((s.kind, s.is_item, s.depth) != (kind, is_item, depth) for s in self._open):
            self._open.append(_Scope(kind, start, is_item, depth))

    def _end_item(self, start: int, stop: int) -> None:
        """Ends items at a comma, and lists before an item that affirms something."""
        if _LIST_GOES_ON.match(self._lower, stop):
            return
        self._close_items(start)
        if _PATIENT.match(self._lower, stop, self._sentence.stop):
            self._close(start)
        elif AFFIRMED_FIRST.match(self._lower, stop, self._sentence.stop):
            self._close(start, but="family")

    def _end_heading(self, start: int) -> None:
        """Ends scopes at the colon of a heading, but not in "the following: A, B"."""
        first = max(self._item, start - 40)
        words = self._lower[first:start]
        if _OF_LIST.search(words) or not words.strip():
            return
        self._close(first)

    def _close_items(self, end: int) -> None:
        self._spans += [(s.start, end, s.kind) for s in self._open if s.is_item]
        self._open = [s for s in self._open if not s.is_item]

    def _close(self, end: int, *, depth: int = -1, but: str | None = None) -> None:
        """Closes the scopes deeper than `depth` parentheses, except those of the kind `but`."""
        closed = [s for s in self._open if s.depth > depth and s.kind != but]
        self._spans += [(s.start, end, s.kind) for s in closed]
        self._open = [s for s in self._open if s not in closed]

    def _add_before(self, start: int, kind: str) -> None:
        begin = max(self._item, start - _MAX_BEFORE)
        if not self._lower[begin:start].strip(" ,-("):  # "pneumonia, likely": the item before it
            begin = max(self._clause, start - _MAX_BEFORE)
            begin = self._lower.rfind(",", begin, max(begin, start - 2)) + 1 or begin
        self._spans.append((begin, start, kind))

    def _add_next(self, start: int, kind: str) -> None:
        """Adds the finding that ends directly before a cue: "DVT prophylaxis"."""
        index = bisect_right(self._stops, start) - 1
        if index >= 0 and _NEXT_GAP.fullmatch(self._lower, self._stops[index], start):
            self._spans.append((max(self._item, start - 60), start, kind))


def _with_implied(mentions: Sequence[Mention]) -> Iterator[Mention]:
    """Yields the mentions and those that they imply: septic shock is sepsis."""
    supersets = {task.name: task.subset_of for task in load_tasks()}
    concepts = load_concepts()
    for mention in mentions:
        yield mention
        superset, past = supersets[mention.disease], concepts[mention.disease].past_of
        if superset is not None and mention.status != "denied":
            yield replace(mention, disease=superset)
        if past is not None and mention.status == "historical":
            yield replace(mention, disease=past)


def _without_duplicates(mentions: Iterable[Mention]) -> list[Mention]:
    """Returns the mentions in order; of overlapping mentions of one disease, the longest."""
    kept: list[Mention] = []
    by_disease = sorted(mentions, key=lambda m: (m.disease, m.start, -m.stop))
    for _, group in groupby(by_disease, key=lambda m: m.disease):
        stop, last = -1, -1
        for mention in group:
            if mention.start >= stop:
                last = len(kept)
                kept.append(mention)
                stop = mention.stop
            elif mention.stop - mention.start > kept[last].stop - kept[last].start:
                kept[last] = mention
                stop = mention.stop
    return sorted(kept, key=lambda m: (m.start, m.stop, m.disease))
