"""Recognition of the names of diseases in notes, with the vocabulary of `concepts.toml`.

The names form a tree of words. The text is read once; at each word, the tree is followed as deep as
the words match. The time is linear in the length of the text, because no name is longer than a
fixed number of words.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

Course = Literal["acute", "chronic"]

_SUGGESTIVE, _NAME, _EXCLUDED = range(3)  # of two equally long matches, the higher one counts
_LISTS = {"suggestive": _SUGGESTIVE, "names": _NAME, "excluded": _EXCLUDED}
# A token is a word, a sign, or the end of a paragraph or list item, which no name contains.
_TOKEN = re.compile(
    r"[^\W_]+(?:['\u2019]s\b)?|\n\s*\n|\n[ \t]*(?:[-*\u2022]|\d{1,2}[.)])|[^\w\s\u2010-\u2014-]"
)
_CHOICE = re.compile(r"\{([^{}]*)\}")
_SIGNS = " ;:,.("
_TOKENS_BETWEEN_CHECKS = 10_000


class ConceptMatch(NamedTuple):
    """A name of a disease in the characters [start, stop). `suggestive`: evidence, not a name."""

    start: int
    stop: int
    disease: str
    suggestive: bool


@dataclass(frozen=True)
class Concept:
    """A disease: whether it is chronic, and the disease that a history of it establishes."""

    course: Course
    past_of: str | None


@dataclass(slots=True)
class _Node:
    """The words that can follow, and the (disease, kind, words of context) of names that end here.

    Keys in lower case match any case. Keys with a capital letter match as written.
    """

    following: dict[str, "_Node"] = field(default_factory=dict)
    ends: list[tuple[str, int, int]] = field(default_factory=list)


@cache
def load_concepts() -> dict[str, Concept]:
    """Loads the diseases of `concepts.toml` by task name."""
    return {
        disease: Concept(entry["course"], entry.get("past_of"))
        for disease, entry in _read_vocabulary().items()
    }


def match_concepts(text: str, check: Callable[[], None]) -> list[ConceptMatch]:
    """Returns the names of diseases in a text, by start and then by disease.

    The longest match counts. Matches of one disease do not overlap; matches of different diseases
    may. `check` is called regularly; an exception that it raises ends the search.
    """
    tree, tokens = _word_tree(), list(_TOKEN.finditer(text))
    matches: list[ConceptMatch] = []
    free_from: dict[str, int] = {}
    first_nodes: dict[str, tuple[_Node, ...]] = {}
    for i, token in enumerate(tokens):
        if i % _TOKENS_BETWEEN_CHECKS == 0:
            check()
        word = token[0]
        nodes = first_nodes.get(word)
        if nodes is None:
            nodes = first_nodes[word] = tuple(_follow(tree, word))
        if not nodes:
            continue
        for disease, (stop, kind, context) in _longest(nodes, tokens, i).items():
            start = tokens[i + context].start()
            if start >= free_from.get(disease, 0):
                free_from[disease] = stop
                if kind != _EXCLUDED:
                    begin, end = _without_signs(text, start, stop)
                    matches.append(ConceptMatch(begin, end, disease, kind == _SUGGESTIVE))
    return sorted(matches)


def _longest(
    nodes: tuple[_Node, ...], tokens: list[re.Match[str]], first: int
) -> dict[str, tuple[int, int, int]]:
    """Returns (stop, kind, words of context) of each disease's longest match from a token."""
    longest: dict[str, tuple[int, int, int]] = {}
    frontier, last = list(nodes), first
    while frontier:
        stop = tokens[last].end()
        for node in frontier:
            for disease, kind, context in node.ends:
                longest[disease] = max(longest.get(disease, (0, 0, 0)), (stop, kind, context))
        last += 1
        if last == len(tokens):
            break
        word = tokens[last][0]
        frontier = [after for node in frontier for after in _follow(node, word)]
    return longest


def _follow(node: _Node, word: str) -> Iterator[_Node]:
    """Yields the nodes that a word leads to: as written, in any case, and in the singular."""
    lower = word.lower()
    singular = re.sub(r"(?:['\u2019]s|s)$", "", word) if len(word) > 2 else word
    for key in dict.fromkeys((word, lower, lower.replace("\u2019", "'"), singular, _one(lower))):
        if key in node.following:
            yield node.following[key]


def _one(lower: str) -> str:
    return re.sub(r"['\u2019]?s$", "", lower) if len(lower) > 3 else lower


def _without_signs(text: str, start: int, stop: int) -> tuple[int, int]:
    """Returns a span without the signs at its ends."""
    while start < stop and text[start] in _SIGNS:
        start += 1
    while stop > start and text[stop - 1] in _SIGNS:
        stop -= 1
    return start, stop


@cache
def _word_tree() -> _Node:
    """Returns the tree of the words of all names."""
    tree = _Node()
    for disease, entry in _read_vocabulary().items():
        for name, kind in _LISTS.items():
            for term in {t for pattern in entry[name] for t in expand(pattern)}:
                context, _, words = term.rpartition(">")
                node, before = tree, len(_TOKEN.findall(context))
                for token in _TOKEN.finditer(f"{context} {words}"):
                    node = node.following.setdefault(token[0], _Node())
                node.ends.append((disease, kind, before))
    return tree


def expand(pattern: str) -> list[str]:
    """Returns the terms of a pattern with choices: "{a|b} c" stands for "a c" and "b c"."""
    terms, finished = [pattern], []
    while terms:
        term = terms.pop()
        choice = _CHOICE.search(term)
        if choice is None:
            finished.append(" ".join(term.split()))
            continue
        before, after = term[: choice.start()], term[choice.end() :]
        terms += [before + option + after for option in choice[1].split("|")]
    return finished


@cache
def _read_vocabulary() -> dict[str, dict[str, Any]]:
    text = files("schemas.features.notes").joinpath("concepts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
