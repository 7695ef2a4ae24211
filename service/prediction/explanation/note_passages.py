"""Divides the notes of a request into a few passages, each of which can be left out."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

MAX_PASSAGES = 16  # of all notes together; each costs a run of the notes encoder

_SENTENCE = re.compile(r".+?(?:[.;](?=\s)|\n|$)", re.DOTALL)


@dataclass(frozen=True)
class Passage:
    """The characters [start, stop) of a note. `whole`: they are the whole note."""

    note: int
    start: int
    stop: int
    whole: bool


def group_passages(texts: Mapping[int, str]) -> list[list[Passage]]:
    """Divides notes into at most MAX_PASSAGES groups, which together cover all text.

    A group is a passage of one note, or several whole notes. A passage is a run of sentences with
    at least 1/MAX_PASSAGES of all characters, and ends with its note at the latest. If there are
    too many passages, a short last passage joins the one before it, and short notes share a group.
    """
    min_length = sum(map(len, texts.values())) / MAX_PASSAGES
    by_note = [list(_split_note(note, text, min_length)) for note, text in texts.items()]
    if sum(map(len, by_note)) <= MAX_PASSAGES:
        return [[passage] for passages in by_note for passage in passages]
    groups: list[list[Passage]] = []
    short_notes: list[Passage] = []
    for passages in by_note:
        last = passages.pop()
        if last.stop - last.start >= min_length:
            passages.append(last)
        elif passages:
            before = passages.pop()
            passages.append(replace(before, stop=last.stop, whole=not passages))
        else:
            short_notes.append(last)
            if sum(note.stop for note in short_notes) >= min_length:
                groups.append(short_notes)
                short_notes = []
        groups += [[passage] for passage in passages]
    return [*groups, short_notes] if short_notes else groups


def _split_note(note: int, text: str, min_length: float) -> Iterator[Passage]:
    """Splits a note into passages of whole sentences with at least `min_length` characters.

    The last passage may be shorter.
    """
    end = len(text.rstrip())
    start, blank = 0, True
    for sentence in _SENTENCE.finditer(text):
        blank = blank and not sentence[0].strip()
        last = sentence.end() >= end
        if not blank and (last or sentence.end() - start >= min_length):
            stop = len(text) if last else sentence.end()
            yield Passage(note, start, stop, whole=last and start == 0)
            start, blank = stop, True
        if last:
            break
