"""What a note denies: "no pneumonia", "denies fever or cough", "effusion: absent".

NegEx (Chapman et al. 2001, J Biomed Inform 34:301) with the scopes of ConText (Harkema et al. 2009,
J Biomed Inform 42:839): a cue denies what follows it to the end of its sentence, or to words that
begin another thought; some cues deny what stands before them. It knows words, not grammar.
"""

import re

_SEEN = "(?:found|seen|present|identified|detected|demonstrated|noted|reported|observed)"
_BE = "(?:is|are|was|were|has been|have been)"
# Of cues that begin at the same place the first that fits is taken.
_CUES = {
    # Looks like a denial, and is none.
    "none": (
        r"(?:no|without) (?:\w+ )?(?:changes?|increase|difficulty|delay)",
        r"not (?:only|certain|clear|sure|necessarily|limited to|improved|resolved)",
        r"(?:cannot|can't|not) (?:be )?(?:rule out|ruled out|exclude|excluded)",
        r"(?:gram|coagulase)[- ]negative|with or without",
    ),
    # Denies what stands before it.
    "before": (
        rf"(?:{_BE} )?not {_SEEN}(?!\s*:)",
        rf"{_BE} (?:ruled out|excluded|absent|unlikely|negative)",
        r"(?:ruled out|excluded|absent|unlikely|negative)(?=\s*(?:[;,)\n]|\.(?:\s|$)|$))",
    ),
    # Denies what follows.
    "after": (
        rf"(?:not {_SEEN}|ruled out|excluded|absent|denied|negatives?)\s*:",
        r"denies|denied|denying|negative for|absence of|free of",
        r"no|not|without|never|neither|nor",
    ),
    # Begins another thought.
    "end": (
        r"but|however|nevertheless|yet|though|although|still|whereas|except|apart from",
        r"secondary to|due to|because of|which|who|presents|presenting|reports|complains",
        r"positive for|consistent with",
    ),
}
# A line break before small letters does not end a sentence: it was wrapped.
_CUE = re.compile(
    r"(?P<stop>[;()]|\n(?!\s*[a-z])|\.(?=\s|$))|(?P<comma>,)|"
    + "|".join(
        rf"(?P<{kind}>(?i:(?<!\w)(?:{'|'.join(cues)})(?!\w)))".replace(" ", r"\s+")
        for kind, cues in _CUES.items()
    )
)


def denied(text: str) -> list[tuple[int, int]]:
    """The parts of a text that are denied: [start, stop) of each, in order, none overlapping."""
    parts: list[tuple[int, int]] = []
    thought = 0  # where the thought begins that a cue may deny in hindsight
    denying: int | None = None
    for cue in _CUE.finditer(text):
        kind = cue.lastgroup
        if kind == "none" or (kind == "comma" and denying is not None):
            continue
        if denying is not None:
            parts.append((denying, cue.start()))
        elif kind == "before":
            parts.append((thought, cue.start()))
        thought, denying = cue.end(), cue.end() if kind == "after" else None
    if denying is not None:
        parts.append((denying, len(text)))
    return [(start, stop) for start, stop in parts if text[start:stop].strip()]
