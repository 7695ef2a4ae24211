"""Cues for `schemas.features.notes.negation`: NegEx, ConText, and spellings in real notes."""

import re

# White space between two words of a cue, with at most one line break.
_GAP = r"(?:(?:[ \t]{1,9}+\n?+|\n)[ \t]{0,9}+)"

_SEEN = (
    "(?:found|seen|present|identified|detected|demonstrated|noted|reported|observed|appreciated"
    "|visuali[sz]ed|evident|apparent|palpable|palpated|heard|elicited|recogni[sz]ed|endorsed"
    "|diagnosed)"
)
_NT = r"n['\u2019`]?t"
_CONTRACTED = (
    rf"(?:is{_NT}|are{_NT}|was{_NT}|were{_NT}|do{_NT}|does{_NT}|did{_NT}|has{_NT}|have{_NT}"
    rf"|had{_NT}|could{_NT}|would{_NT}|should{_NT}|wo{_NT}|ca{_NT}|ai{_NT})"
)
_NOT = rf"(?:not|never|cannot|{_CONTRACTED})"
_ADVERB = (
    "(?:clearly|definitely|currently|otherwise|really|obviously|readily|well|specifically|either"
    "|very|highly|thought to be|felt to be|considered|quite|overall|both|all|now|also|been|be)"
)
_EXCLUDE = "(?:rul(?:e|es|ed|ing)[ -]out|exclud(?:e|es|ed|ing)|r/o)"
_SHOW = (
    "(?:reveal|show|demonstrate|identify|find|detect|disclose|suggest|indicate|see|visuali[sz]e"
    "|appreciate|locate|elicit|yield|have|feel|hear|note)"
)
_DEGREE = (
    "(?:significant|acute|interval|definite|appreciable|clinical|real|major|marked|obvious|any"
    "|suspicious|overall|substantial|radiographic|noticeable|clear|apparent|clinically|signs? of"
    "|evidence of|much|the|a|an|great|sustained|documented)"
)
_CHANGE = (
    "(?:changes?|increases?|decreases?|improvements?|worsening|progression|resolution|recovery"
    "|deterioration|reduction|regression|response|relief|exacerbations? of|recurrences? of|further"
    "|difficulty|difficulties|delay|doubt|question|lack|absence|shortage|problems? with|change"
    "|(?:treatment|therapy|medications?|meds|prophylaxis) for)"
)
_DONE = (
    "(?:(?:chang|improv|resolv|worsen|increas|decreas|controll|treat|recover|clear|heal|complet"
    "|obtain|perform|assess|examin|order|document|record|specifi|evaluat|optimi[sz]|administer"
    "|repeat|includ|manag)ed|better|resolve|improve|change|worsen|clear up|go away|done|sent|drawn"
    "|available|compliant|adherent|applicable|known if|known whether)"
)
_FULLY = (
    "(?:yet|fully|completely|entirely|totally|adequately|well|optimally|been|be|significantly"
    "|much|really|quite|so|getting|very|tightly|properly)"
)
_MAYBE = (
    "(?:be|been|being|yet|entirely|completely|totally|fully|formally|to|also|definitively|evidence"
    "|reliably|safely|does|do|can|could|still|confidently|reason|absolutely|clinically|used|data)"
)
# The end of an item. A decimal point does not end it.
_ENDS = r"(?=[ \t]{0,9}(?:[;,)\]\n\t]|\.(?:\s|$)|$|(?:except|but|other than|apart from)\b))"
_LATER = (
    r"(?=[ \t]{1,9}(?:by|on|with|via|using|per|at|after|given|as|because|today|in|this"
    r"|times|to date|so far|x[ \t]?\d)\b)"
)
_NEGATIVE = r"(?:negative|neg|-ve)"
_DENIED = (
    r"(?:no|none|nil|never|absent|denie[sd]|negative|neg|-ve|false|excluded|ruled out|unlikely)"
)

# Cues that are words, in lower case, by kind. If several cues match at one position, the first one
# is taken. Alternatives begin with a letter, because it matches faster than a group.
_WORDS: dict[str, tuple[str, ...]] = {
    # Has no meaning, although parts of it are cues.
    "neutral": (
        r"gram[- ]negative|coagulase[- ]negative|false[- ]negative|triple[- ]negative|rh-negative",
        (
            r"her2-negative|hiv-negative|net-negative"
            r"|negative (?:pressure|balance|inotrop|inspirat|predictive|airway|feedback"
            r"|affect)\w{0,5}"
        ),
        r"with or without|whether or not|or not|if not|nil by mouth|nil per os|yes/no|y/n",
        r"no/yes|no(?:\.|\.? ?#)? ?\d",
        r"evidence for|signs? for|suspicio(?:n|us) for|concern(?:ing)? for|worrisome for",
        r"indications? for|need for|support for|findings for|history for|potential for|cause for",
        r"reason for|risk for|risk factors? for|features for|criteria for|likelihood for",
        r"probability for|symptoms for|requirement for|source for|allerg\w{1,5} for",
        r"hx\.(?=[ \t])|pt\.(?=[ \t])|dr\.(?=[ \t])|mrs?\.(?=[ \t])|ms\.(?=[ \t])|vs\.(?=[ \t])",
        r"approx\.(?=[ \t])|sig\.(?=[ \t])|e\.g\.(?=[ \t])|i\.e\.(?=[ \t])|dx\.(?=[ \t])",
    ),
    # States that the text before it is not ruled out.
    "open_question": (
        rf"{_NOT} (?:{_MAYBE} ){{0,3}}{_EXCLUDE}(?: for)?",
        rf"no (?:{_MAYBE} ){{0,3}}{_EXCLUDE}(?: for)?|can not (?:{_MAYBE} )?{_EXCLUDE}",
        rf"without (?:{_MAYBE} )?{_EXCLUDE}|be (?:{_MAYBE} )?{_EXCLUDE}(?: for)?|being {_EXCLUDE}",
        rf"to (?:{_MAYBE} ){{0,2}}{_EXCLUDE}(?: for)?",
    ),
    # Pseudo-cues: look like a negation but negate nothing.
    "pseudo": (
        rf"no (?:{_DEGREE} ){{0,3}}{_CHANGE}|without (?:{_DEGREE} ){{0,3}}{_CHANGE}",
        rf"w/o(?:ut)? (?:{_DEGREE} ){{0,3}}{_CHANGE}|{_NOT} (?:{_DEGREE} ){{0,3}}{_CHANGE}",
        rf"{_NOT} (?:{_FULLY} ){{0,3}}{_DONE}",
        (
            rf"{_NOT} (?:only|certain|clear|sure|necessarily|limited to|just|merely|simply|unusual"
            r"|unlike|unlikely|infrequent|infrequently|uncommon|uncommonly|know"
            r"|elsewhere classified"
            r"|otherwise specified|stated|able to (?:assess|evaluate|determine|tell)"
            r"|without|w/o(?:ut)?|absent|absence of|lack of|free of|deny|denies|denied|unremarkable"
            r"|negative)(?: for)?"
        ),
        (
            r"no (?:without|absence of|lack of|negative|more than|less than|fewer than|later than"
            r"|matter|one)|without (?:absence of|lack of)"
        ),
    ),
    # Negates the text before it.
    "before": (
        rf"not (?:{_ADVERB} ){{0,2}}{_SEEN}(?! (?:to|with|any)\b)(?!\s?:)",
        rf"(?:is|are|was|were){_NT} (?:{_ADVERB} )?{_SEEN}(?! (?:to|with|any)\b)",
        rf"(?:has|have|had|ca|could){_NT} (?:been|be) (?:{_ADVERB} )?{_SEEN}(?! (?:to|with|any)\b)",
        rf"cannot be (?:{_ADVERB} )?{_SEEN}|can not be (?:{_ADVERB} )?{_SEEN}",
        rf"{_NOT} (?:likely|suspected)(?:{_ENDS}|{_LATER})",
        rf"no longer {_SEEN}|no longer there",
        rf"ruled[ -]out(?:{_ENDS}|{_LATER})|excluded(?:{_ENDS}|{_LATER})",
        (
            rf"unlikely(?:{_ENDS}|{_LATER})|absent{_ENDS}|denied{_ENDS}|none{_ENDS}|nil{_ENDS}"
            rf"|no{_ENDS}|neg(?:ative)?(?!\. for\b)(?:{_ENDS}|{_LATER})"
        ),
    ),
    # Negates a list, with or without a closing "or".
    "list": (
        (
            rf"not {_SEEN}\s?:|ruled out\s?:|excluded\s?:|absent\s?:|denie[sd]\s?:|none\s?:|no\s?:"
            r"|(?:pertinent |significant )?negatives?\s?:|none of the following\s?:?|none of"
        ),
        r"denies|denying|deny|unremarkable for",
        r"neg(?:ative)?\.? (?:(?!except|apart|aside|other|but|and)[\w-]{1,20} ){0,2}for(?:\s?:)?",
    ),
    # Negates the text before it after "is", and otherwise the text after it if possible.
    "copula": (
        r"ruled[ -]out(?! for\b)|excluded|absent|unlikely(?! to\b)|denied|lacking|nil|negative|neg",
    ),
    # Negates the text after it, and a list of bare nouns.
    "no": (
        r"no longer|no|neither|nor|absence of|lack of|lacks|devoid of|free of|free from",
        (
            r"(?:without|w/o(?:ut)?)"
            r"(?= (?:any|evidence of|signs? of|symptoms? of|history of|associated)\b)"
        ),
        (
            rf"{_NOT}(?= (?:have|had|having|report|endorse|complain|show|reveal|demonstrate"
            rf"|experience"
            r"|exhibit|admit|appear|seem|found|known|felt|thought|believed|likely|noted)\b)"
        ),
        rf"fail(?:s|ed|ing)? to {_SHOW}|unable to {_SHOW}|inability to {_SHOW}",
        rf"nothing (?:to|that) {_SHOW}s?|ruled[ -]out for|rules out|excludes|r/o'?d(?: for)?",
    ),
    # Negates the text after it, and a list only with a closing "or".
    "not": (
        (
            rf"{_NOT}|can not|without|w/o(?:ut)?|unlikely to (?:be|have|represent|reflect)"
            r"|rather than|instead of|as opposed to"
        ),
    ),
    # Begins another clause.
    "end": (
        (
            r"but|however|nevertheless|yet|though|although|still|whereas|despite|in spite of|given"
            r"|except(?: for)?|apart from|aside from|other than|besides|with the exception of"
        ),
        (
            r"secondary to|due to|because|as a result of|caused by|attributed to|related to"
            r"|since|until"
            r"|in (?:the |this |a )?(?:setting|context|patient|pt|man|woman|male|female|lady)"
        ),
        (
            r"who|which|presents|presented|presenting|reports|reported|complains|endorses|admits"
            r"|states|positive for|pos for|significant for|notable for|remarkable for|s/p"
            r"|status post"
        ),
        (
            r"for|from|with (?:known|a history|history|h/o|hx|underlying|chronic|stable"
            r"|persistent|ongoing"
            r"|unchanged|residual|improv\w{2,4}|worsening|new)"
        ),
        (
            r"(?:and|or)(?= (?:he|she|they|it|there|the patient|patient|pt|his|her|has|have"
            r"|had|is|are"
            r"|was|were|will|does|did|reports?|states|presents|remains|continues|takes|on"
            r"|now|known)\b)"
        ),
    ),
    # Begins a subject that a later cue may negate.
    "start": (
        (
            r"that|where|when|while|whom|then|therefore|with|ha(?:s|d|ve)(?! (?:been|not)\b)"
            r"|shows?|showed|showing"
            r"|reveals?|revealed|demonstrates?|demonstrated"
        ),
    ),
    "and": (r"and",),
}
# Cues and boundaries that begin with a punctuation mark or symbol.
_SIGNS = {
    # An answer in a form: negates the text before it.
    "answer": (
        rf"(?:[:?=\t]|(?<=[ \t])--?|-(?=[ \t])|[\u2013\u2014]|[(\[])[ \t]{{0,9}}"
        rf"(?:(?:{_DENIED}|not {_SEEN}|\(-\)|no (?:known |prior |past |significant )?"
        r"(?:history|hx|evidence))(?: (?:known|reported|noted|found|seen|documented|currently|today"
        rf"|any|use|at this time))?{_ENDS}|n{_ENDS}|{_NEGATIVE}{_LATER})"
    ),
    # Affirms the text before it.
    "yes": rf"[:?=\t][ \t]{{0,9}}(?:yes|y|true|positive|present|\(\+\)){_ENDS}",
    "minus": rf"(?:\(-\)|-ve(?! for\b)){_ENDS}",
    "signed": r"\(-\)|\[-\]|-ve for",
    "plus": r"\(\+\)|\[\+\]|\+ve\b|\+(?=[ \t]?[a-z])",
    "stop": r";|[.!?](?=\s|$)|(?<=[a-z)])\.(?=[a-z]{2})",
    "line": r"\n\s*+",
    "open": r"\(",
    "shut": r"\)",
    "comma": r",(?!\d{3})",
    "colon": r":(?!\d)|(?<!\d):",
    "ampersand": "&",
}
_FIRST_LETTERS = "abcdefghilmnoprstuvwxy"


def _alternatives(cues: dict[str, tuple[str, ...]]) -> str:
    groups = (f"(?P<{kind}>{'|'.join(patterns)})" for kind, patterns in cues.items())
    # Outside brackets, a space matches any white space.
    return re.sub(r"(\[[^\]]*\])| ", lambda m: m[1] or _GAP, "|".join(groups))


# Matches text in lower case.
CUE = re.compile(
    rf"(?<!\w)(?=[{_FIRST_LETTERS}])(?:{_alternatives(_WORDS)})(?!\w)"
    rf"|(?=[^\w ])(?:{_alternatives({kind: (sign,) for kind, sign in _SIGNS.items()})})"
)

# Words that end a negated list: at the beginning of an item, and within an item.
AFFIRMED_FIRST = re.compile(
    r"\s*(?:(?:and|but|or)\s+)?(?:\(\+\)|[+?\d]|(?:he|she|it|they|there|we|i|this|these|the patient"
    r"|patient|pt|his|her|has|had|is|was|were|are|reports?|reported|states?|notes|complains"
    r"|endorses|admits|presents?|presented|continues|takes?|took|does|did|developed|started"
    r"|remains|appears|shows?|will|would|lives|drinks|uses|came|went|known|history|hx|h/o|s/p"
    r"|status post|pmh|pmhx|past|chronic|on|also|positive|pos|now|currently|likely|possible"
    r"|probable|presumed|suspect\w{0,3}|possibly|probably|stable|admitted|transferred|treated|given"
    r"|received|underwent|with|then|so|which|who|plan|continue|admits|found|presumably|stop|start|give|check"
    r"|consider|repeat|obtain|monitor|follow|discharged?|admit)\b)"
)
AFFIRMED_WITHIN = re.compile(
    r"(?<!\w)(?=[a-gim-prsuwx])(?:normal|clear|regular|soft|stable|intact|positive|alert"
    r"|oriented|afebrile|unremarkable|present|improv\w+|resolv\w+|good|well|benign|supple"
    r"|symmetric\w*|reactive"
    r"|unchanged|persist\w*|wors\w+|continu\w+|has|had|x\s?\d+|since|requir\w+|s/p|treated|baseline|controlled"
    r"|status|on (?:home|oxygen|o2|insulin|warfarin|coumadin|dialysis|hd|bipap|cpap)"
    r"|(?:is|are|was|were)(?!\s+(?:found|seen|present|identified|noted|appreciated)))\b"
)
# The first words of a negation that never extends to a list.
TITLE = re.compile(
    r"\s*(?:(?:known|any|drug|medication|food|environmental|seasonal|latex|other|acute|current"
    r"|major|apparent|immediate|behavioral|mention of|evidence of)\s+){0,3}(?:allerg|complicat"
    r"|mention|exacerbation|disturbance|septic shock|status migrainosus|aura|m?cc\b|esophagitis"
    r"|loss of consciousness|contrast|angina pectoris|coma\b|intractable)"
)
# The verb before a cue that negates the text before it.
VERB = re.compile(
    r"(?:^|\b)(is|are|was|were|has been|have been|had been|has|have|had|remains?|appears?|seems?"
    r"|tests|tested|being)\s+(?:(?:clearly|definitely|currently|otherwise|very|highly|also"
    r"|now|both|all"
    r"|quite|considered|felt to be|thought to be|most)\s+){0,2}$"
)
HEADING = re.compile(r"(?:[A-Z][\w/&'-]*\s+){0,4}[A-Z][\w/&'-]*\s*$|\S+\s*$")
# A verb that ends a list of subjects: "X was normal and Y and Z were negative".
OTHER_VERB = re.compile(r"\b(?:is|are|was|were|has|have|had|shows?|showed)\b")
# Persons as subjects of a cue. They are not negated.
PERSON = re.compile(
    r"(?:\b(?:patient|pt|he|she|they|it|this|i|we|mother|father|infant|baby|child|wife|husband|family)|^)$",
    re.IGNORECASE,
)
