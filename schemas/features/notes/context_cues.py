"""Cues for `schemas.features.notes.assertions`: ConText, and wordings of real notes.

The kinds follow ConText (Harkema et al. 2009, J Biomed Inform 42:839): historical, hypothetical and
"other experiencer", here the family. The kind "possible" comes from the later version of ConText
(Chapman et al. 2011, J Biomed Inform 44:728). The cues of negation are in `negation_cues`.
"""

import re
from collections.abc import Iterable

_KIN = (
    r"(?:step|half[- ])?(?:grand|great[- ]?grand)?(?:mother|father|parent|son|daughter|child)s?"
    r"|moms?|mum|dads?|brothers?|sisters?|siblings?|twins?|aunts?|uncles?|cousins?|nieces?|nephews?"
    r"|relatives?|mg[mf]|pg[mf]|grandma|grandpa|maternal|paternal|m\.?aunt|p\.?aunt|parents?"
    r"|husband|wife|spouse|partner|roommate|room-mate|neighbou?r|donor|family member|family members"
    r"|first[- ]degree relatives?"
)
_KIN_LIST = rf"(?:{_KIN})(?:(?:,? and|,| or|/|&)? (?:his |her |the |{_KIN})){{0,3}}"
# Words between a relative and the disease of this relative.
_KIN_HAS = (
    r"(?:(?: who| both| also| all| each| side| reportedly| apparently| deceased| died| alive"
    r"| living| \d{2}| age \d{2}){0,3}"
    r"(?: has| have| had| with| w/| died (?:of|from|with|due to|at)| suffer\w+|(?: was"
    r"| were)? diagnosed"
    r"| pass(?:ed|ing)(?: away)?| succumbed to| deceased| developed| history of| h/o| is an?"
    r"| was an?| is| ?:| ?\(| ?- | ?\u2013| ?="
    r"|(?:'s)? (?:history|hx|side|family)|,? (?:age|aged|died|dx)))"
)
_SAYS = (
    r"(?!(?: \w+)? (?:reports?|reported|states|stated|says|said|notes|noted|noticed|denies|denied"
    r"|called|updated|informed|told|thinks|believes|concerned|worried|aware|gives|gave|describes?"
    r"|confirms?|confirmed|visited|present|brought|found|witnessed|observed|at bedside|requests?"
    r"|agrees?|consented|wants?|understands?|feels|endorses|mentions?|asked|asks|arrived|relates))"
)
# Not "per mother, had asthma": the relative is the source.
_SOURCES = (
    *("by", "per", "from", "told", "to", "with", "via", "for"),
    *(f"{word} {whose}" for word in ("by", "per", "from") for whose in ("his", "her")),
)
_NOT_SOURCE = "".join(f"(?<!{source} )" for source in _SOURCES)
_STUDY = (
    r"(?:ct|cxr|films?|stud(?:y|ies)|exams?|imaging|echo|tte|ekg|ecg|records?|notes?|levels?|labs?"
    r"|baseline|scans?|mri|x-?rays?|radiographs?|cultures?|charts?|documentation|visits?|day|week"
    r"|night|hours?|days|weeks|dose|values?|examination|reports?|pmhx?)"
)
_END = (
    r"(?=[ \t]{0,3}(?:[.,;:)\]\n?]|$"
    r"|(?:but|and|with|by|on|at|given|vs|versus|although|however)\b))"
)
_MEDICAL = (
    r"(?:medical|surgical|cardiac|psychiatric|psych|oncologic|oncology|neurologic(?:al)?|pulmonary"
    r"|renal)"
)

_WORDS: dict[str, tuple[str, ...]] = {
    # Has no meaning, although parts of it are cues.
    "pseudo": (
        (
            r"(?:history|hx) of (?:the )?present(?:ing)? (?:illness|complaints?|problem|condition"
            r"|symptoms?)"
        ),
        (
            r"history (?:and physical|& physical|(?:was |is )?(?:obtained|taken|limited"
            r"|unobtainable|unavailable|provided|given|gathered)|from|per|taking)"
        ),
        r"(?:social|smoking|poor|travel|clinical|drug) history",
        rf"prior to|(?:prior|previous|old|recent|past) {_STUDY}",
        rf"(?:from|than|to|with|since) (?:prior|previous){_END}|post[- ]?op\w{{0,8}}",
        r"(?:year|yr|month|week|day|y)s?[- ]?old|y/?o|yo",
        r"old (?:man|woman|male|female|lady|gentleman|age)",
        (
            r"past (?:\d|few|several|couple|week|month|day|night|year|hour|two|three|four"
            r"|medications?)"
        ),
        r"previously (?:healthy|well|fit|independent|known)",
        r"recently (?:started|changed|increased)",
        r"recent onset|as if|if not|if any|possible to|as soon as possible|if possible",
        r"as possible|likely to",
        (
            r"(?:not|never|yet|until|once|when|if|partially|nearly|almost|partly) (?:yet |fully "
            r"|completely |been )?resolved"
        ),
        r"meets? criteria for|met criteria for|criteria for|suspect(?:ed)? source",
        r"treated for suspected",
        r"question(?:s|ed)?(?! of| if)|consider(?:ed|able|ably|ing that)|testing (?:was|is)",
    ),
    # The text before it may be true.
    "possible_before": (
        (
            r"(?:is |are |was |remains |remain |seems |felt to be |thought to be |also |very "
            r"|most |still |being ){0,4}(?:possible|probable|likely|suspected|queried|questioned"
            r"|questionable|considered|(?:a|the|in|on the|on|in the|high on the|my"
            r"|one) (?:possibility|concern|question|differential|ddx?)|(?:under"
            r"|being) (?:consideration|considered|investigation|investigated|evaluation|evaluated"
            rf"|worked up)|less likely|not clear|unclear|doubtful){_END}"
        ),
        (
            r"(?:is |are |was |were |has |have )?(?:cannot|can not|can't|could not|couldn't|not"
            r"|never|has not|hasn't|isn't|wasn't|yet to|to|remains to|needs to|need to|must"
            r"|should) (?:be |been |yet |entirely |completely |fully |definitively "
            r"|reliably ){0,4}(?:excluded|ruled[- ]out|r/o'?d|confirmed|r/o)(?! for)"
        ),
    ),
    # The finding directly before it may be true, or is no statement about the patient.
    "possible_next": (
        (
            r"(?:alert|activation|team|consult|rule[- ]?out|r/o|work[- ]?up|w/u|scare|eval"
            rf"|suspected|suspicion){_END}"
        ),
        r"protocol(?! for)|pathway|work[- ]?up|w/u",
    ),
    "drop_next": (
        (
            r"(?:(?:and|or|/|&|\+) (?:gi|su|sup|stress[- ]ulcer|pud|gerd|ulcer|gut|aspiration|dvt"
            r"|vte|pe) )?(?:prophyla\w+(?! (?:for|against|of))|ppx(?! (?:for|against))|proph"
            r"|px(?=\W|$)|precautions?(?! for)|screen(?:ing|ed)?(?! (?:for|negative))"
            r"|risk(?![ -](?:of|for|factors?))|vaccin\w+(?! (?:for|against))"
            r"|immuni[sz]\w+(?! (?:for|against))|shot|jab|score|education(?! (?:on|about|re))"
            r"|teaching(?! (?:on|about))|prevention(?! of)|leaflet|free diet|us|ultrasound"
            r"|doppler|duplex|panel|profile"
            r"|chemoprophylaxis|mechanoprophylaxis|bundle|study|studies|threshold(?! (?:to|for))"
            r"|watch(?! (?:for|out)))"
        ),
    ),
    # The text after it is about a relative.
    "family_list": (
        (
            r"(?:family|fam|fhx?|fam\.)[ /]*(?:and social )?(?:medical |cardiac )?(?:history|hx"
            r"|hist)(?: of)?"
        ),
        r"famhx|fmhx|fhx?(?=[ ]?[:+])|fhx(?: of)?",
        rf"{_NOT_SOURCE}(?:{_KIN_LIST}){_SAYS}{_KIN_HAS}(?!\W+(?:he|she|patient|pt)\b)",
    ),
    # The text before it is about a relative.
    "family_before": (
        (
            r"(?:in|of) (?:his |her |the |both |patient's |pt's |a |multiple "
            rf"|several )?(?:{_KIN})(?!s? (?:of|unit|room|clinic))"
        ),
        (
            r"(?:in|on) (?:his |her |the )?(?:family|(?:mother|father|maternal"
            r"|paternal)(?:'?s)? side)"
        ),
        r"runs in (?:the |his |her )?family",
    ),
    # The text after it is no statement about the patient.
    "drop_list": (
        r"risk (?:of|for)|risk[- ]factors? (?:for|of)|at risk(?: of| for)|chances? of",
        r"precautions? for",
        r"prophyla\w+ (?:for|against|of)|ppx (?:for|against)",
        r"(?:to )?prevent(?:ion of|ing|ative for)?",
        r"screen(?:ing|ed|s)? (?:for|negative)|screening|monitor(?:ing|ed)?(?: closely)? for",
        r"watch(?:ing)?(?: closely)?(?: out)? for|observe for|surveillance for",
        r"(?:vaccinat\w+|vaccines?|immuni[sz]\w+|boosters?) (?:for|against)",
        r"educat\w+ (?:on|about|regarding|for|re)|teaching (?:on|about|regarding|for)",
        r"counsel\w+ (?:on|about|regarding)|information (?:on|about)|leaflets? (?:on|about)",
        r"literature (?:on|about)|threshold to \w+(?: \w+){0,2} for",
        r"threshold (?:for|to)(?: \w+ for)?",
        r"risks?(?: and benefits)?(?: \w+){0,4},? (?:includ\w+|such as)|candidate for|allergic to",
        r"(?:call|notify|page|alert|inform|contact)(?: \w+){1,4} (?:for|if|about)",
        r"(?:return|come back|seek care)(?: \w+){0,4} (?:for|if)",
        r"allergy to|avoid(?:ing|s)?",
        r"if|unless|in case of|in the event of",
        r"should (?=he|she|they|the|patient|pt|this|it|there)|return precautions",
        r"non-?invasive testing for|tested for|testing for|signs of (?=\w+ develop)",
        r"symptoms to watch|(?:would|will) need (?=intubat|dialys|vasopress|pressor)",
        r"declin(?:es|ed|ing)|refus(?:es|ed|ing)",
    ),
    # The text after it may be true.
    "possible_list": (
        r"(?:to|will|must|should|needs to) be (?:ruled[- ]out|r/o'?d|r/o) for",
        r"c/f",
        r"concern(?:s|ed|ing)?(?: (?:for|about|of|re|regarding|that|is|was|raised for))",
        r"worr(?:y|ied|isome) (?:for|about|of|re)|suspicio(?:us|n) (?:for|of|is|remains)",
        r"suspect(?:ing|s|ed)?(?! of)|suspicious",
        (
            r"(?:(?:can|could|would|should|did|do)(?: ?not|n'?t)?|to|unable to|not able to|will"
            r"|must|need to|needs to|will need to|and|&) (?:be |entirely |completely "
            r"|definitively |yet |fully |reliably |formally ){0,4}(?:rule|r/o"
            r"|exclude)(?:d)?(?:[ -]out)?(?! by)"
        ),
        (
            r"cannot (?:be |entirely |completely |definitively |reliably |fully ){0,4}(?:rule|r/o"
            r"|exclude)(?:[ -]out)?"
        ),
        r"(?<!be )rule[- ]?out|r/o|ruling out|to exclude|exclude|eval(?:uat\w+)? for",
        r"assess(?:ed|ing|ment)? for|work(?:ed)?[- ]?(?:up|ing up)? (?:for|of)",
        r"work-?up (?:for|of)|w/u (?:for|of)|investigat\w+ for|look(?:ing)? for|questionable",
        r"question of|query|in question",
        (
            r"(?:low |high |moderate |intermediate |pretest |clinical ){0,4}(?:probability"
            r"|index of suspicion|suspicion|likelihood) (?:for|of)"
        ),
        (
            r"(?:broad )?(?:differential|ddx?)(?: diagnos[ie]s| dx)?(?: remains"
            r"| is)?(?: broad)?(?: but)?,?(?: includ\w+| of| for|,)?"
        ),
        (
            r"(?:may|might|could)(?: also| well| still| this| it| that| he| she| they"
            r"| there)? (?:be|have|represent|reflect|indicate|suggest|signify)(?: due to"
            r"| secondary to| related to| developing| from)?"
        ),
        r"potentially|unclear (?:if|whether)|not (?:clear|sure|certain) (?:if|whether)",
        r"equivocal for|consider(?:ing|ation of|ation for)?",
        r"thought (?:he|she|they) (?:was|were|had|might)",
        r"suggest(?:|s|ive of|ing|ed|ion of|ive for)|favou?r(?:s|ed|ing)?|doubt(?:s|ful)?",
        r"less likely|thoughts? of|asked (?:if|whether)|whether",
        (
            r"(?:possibl[ey]|probabl[ey]|likely|presum\w+|potential|suspected|perhaps|maybe"
            r"|\?) ?(?:due to|secondary to|2/2|d/t|from|related to|in (?:the )?setting of"
            r"|on the basis of|representing|component of|element of|attributable to|caused by"
            r"|triggered by)"
        ),
    ),
    "possible_item": (
        (
            r"(?:most )?(?:possible|possibly|probable|probably|likely|potential|perhaps|maybe"
            r"|presum\w+|provisional|apparent|query|poss\.?|prob\.?)(?!\s*(?:[.,;)\n]"
            r"|$))(?! (?:vs|versus)\b)"
        ),
    ),
    # The text around it may be true.
    "possible_around": (r"vs\.?|versus",),
    # The text after it is in the past.
    "past_list": (
        r"personal (?:or|and|/) family (?:history|hx)(?: of)?",
        (
            r"(?:known |remote |past |prior |previous |distant |significant |strong |extensive "
            r"|longstanding |long-standing |long ){0,4}(?:h/o|hx/o|hx|hist|history|h\.o\.)(?: (?:of"
            r"|for|is|was|includes?|including|significant|notable|remarkable|positive|sig|remains"
            r"|pertinent|consists of)){0,4}(?: for| of)?"
        ),
        (
            rf"(?:past |prior |previous |significant ){{0,4}}{_MEDICAL} (?:history|hx|hist"
            r")(?: (?:of|is|includes?|including|significant|notable|remarkable|positive"
            r"|sig|consists of)){0,4}(?: for| of)?"
        ),
        r"pmhx?|psh|pmh/psh|pmh?x(?: of)?",
        (
            r"(?:recent|last|previous|prior|past|multiple|frequent)(?: \w+)? (?:admissions?"
            r"|hospitali[sz]ations?|icu stay|stay)(?: (?:for|with|due to))?"
        ),
        (
            r"(?:previously|recently) (?:admitted|hospitali[sz]ed|treated|diagnosed"
            r"|seen)(?: (?:for|with))?"
        ),
        r"(?:hospitali[sz]ed|admitted|treated|seen|operated)(?: \w+){0,2} in (?:19|20)\d\d",
        r"recently discharged(?: \w+){0,2} (?:for|after|with)",
        (
            r"complet(?:ed|ion of) (?:a |the |his |her )?(?:\w+ )?(?:course|treatment|therapy|abx"
            r"|antibiotics)(?: of \w+)? for"
        ),
        r"recovered from|discharged (?:\w+ ){0,3}after|(?:in|since) (?:childhood|infancy)",
        (
            r"(?:had|suffered|sustained|experienced) (?=[\w ,/]{1,40}(?:in the past|years? ago"
            r"|(?:in|since) (?:19|20)\d\d\b|as a child|as an? \w+|months? ago))"
        ),
    ),
    "past_item": (
        r"s/p|status[- ]post|sp|prior|previous|previously|prev\.?|old|remote|remotely|past|former",
        r"formerly|recent|resolved|healed|childhood|treated(?= (?:pna|pneumonia|tb|uti))|post",
    ),
    # The text before it is in the past.
    "past_before": (
        r"in (?:the )?(?:distant |remote |recent )?past",
        (
            r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|several|many|few"
            r"|couple(?: of)?|some)\+? ?(?:years?|yrs?|months?|mos?|y|decades|weeks?|wks?)(?: ago"
            r"| prior| back| previously)"
        ),
        r"(?:about |over )?a (?:year|month|decade) ago",
        (
            r"last (?:year|month|week|summer|winter|spring|fall|autumn|january|february|march"
            r"|april|may|june|july|august|september|october|november|december)"
        ),
        (
            r"in (?:early |late |mid |(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov"
            r"|dec)\w* ?){0,4}'?(?:19[3-9]\d|20[0-4]\d|\d0s)"
        ),
        r"in (?:his|her|the) (?:teens|\d0'?s|childhood|youth|twenties|thirties|forties)",
        (
            r"in (?:january|february|march|april|june|july|august|september|october|november"
            r"|december)"
        ),
        r"as an? (?:child|infant|teen\w*|baby|kid|boy|girl)|in (?:childhood|infancy)",
        rf"(?:years|months) (?:ago|prior|back)|(?:long|some time) ago|previously{_END}",
        rf"remotely{_END}",
    ),
    # Ends all scopes but those about a relative.
    "cause": (
        r"due to|secondary to|2/2|d/t|2nd to|because|caused by|in (?:the )?setting of|iso",
        r"attributed to|given|as a result of",
    ),
    # Ends all scopes.
    "end": (
        r"but|however|nevertheless|yet|though|although|whereas|despite|except|while",
        r"presents?|presented|presenting|p/w|presentation|admitted|admit|readmitted|transferred",
        r"tx'd|brought|bib|bibems|came|comes|arrived|arrives|referred|admission(?= (?:for|with))",
        r"found (?:to|down|in|with)|noted to|(?:was|is|were) (?:found|diagnosed|noted)|who|which",
        r"now|currently|today|tonight",
        r"this (?:morning|am|admission|time|hospitali\w+|afternoon|evening)|here (?:with|for)",
        r"in with|a/w|developed|develops|developing|since yesterday",
        (
            r"with(?= (?:acute|new|worsening|severe|ongoing|active|current|recurrent|known"
            r"|underlying|a (?:known |past )?history|history|h/o|hx|hypox\w+|hyperc\w+|profound"
            r"|multi\w*|increasing|progressive|concern|likely|suspected|possible|probable|fever"
            r"|chest)\b)"
        ),
        r"complains?|complaining|c/o|reports?|reported|reporting|states|stated|endorses|intubated",
        r"extubated|undergo\w*|underwent|remains|continues|will|would|plan|continue|start|started",
        r"treat|treated|treating|obtain|check|send|follow|give",
        r"patient|pt|patients|pt's|he|she|they",
    ),
    "verb": (r"is|are|was|were|has|have|had|shows?|showed|revealed|on|for|from",),
    "with": (r"with|w/|c/b|complicated by",),
    "and": (r"and|plus",),
}
# Cues that begin with a sign or white space. A suffix makes the name of a group unique.
_SIGNS: dict[str, str] = {
    # "AKI, resolved", "AKI (resolved)", "AKI: now resolved".
    "past_before_resolved": (
        r"(?:[ ]?[,:(\u2013-][ ]?|[ ])(?:now |has |have |had |is |was |since |which |that |all "
        r"|largely |completely |fully |\(){0,4}"
        r"(?<!not )(?<!un)(?:resolved|in the past|remote|in remission)(?=\s*(?:[.,;:)\n]|$|with\b"
        r"|by\b|after\b|on\b|s/p|since\b|and\b|but\b|w/|today|yesterday|overnight|spontaneously"
        r"|following))"
    ),
    "past_before_year": (
        r"\((?:[a-z]+\.? ?)?(?:\d{1,2}/)?'?(?:19[3-9]\d|20[0-4]\d)(?=[\s,;)])"
        r"|\(\d{1,3} ?(?:years?|yrs?|y|months?) ago"
    ),
    # "breast cancer (mother)", "CAD - father".
    "family_before_sign": (
        rf"[ ]?[(\[\u2013-][ ]?(?:{_KIN})(?:(?:,| and|/|&|,? or) ?(?:{_KIN})){{0,3}}"
        r"(?=[ ]?[)\],;.]|$)"
    ),
    # "pneumonia?", "pneumonia (?)", "?pneumonia".
    "possible_before_sign": r"(?<=\w) ?\(\?\)|(?<=[\w)])\?+(?=\s|$|[,;.)/])",
    "possible_item_sign": r"\?{1,3}",
    "comma": r"[,;]",
    "open": r"\(",
    "shut": r"\)",
    "colon": r":(?!\d)",
}


def _alternatives(cues: dict[str, tuple[str, ...]]) -> str:
    groups = (f"(?P<{kind}>{'|'.join(patterns)})" for kind, patterns in cues.items())
    # Outside brackets, a space matches white space with at most one line break.
    gap = r"(?:[ \t]{1,4}\n?[ \t]{0,9}|\n[ \t]{0,9})"
    return re.sub(r"(\[[^\]]*\]|\(\?<[!=][^)]*\))| ", lambda m: m[1] or gap, "|".join(groups))


_BEFORE_WORDS = ("past_before_resolved", "family_before_sign", "past_before_year")


def _named(kinds: Iterable[str]) -> str:
    return "|".join(f"(?P<{kind}>{_SIGNS[kind]})" for kind in kinds)


# Matches text in lower case.
CUE = re.compile(
    rf"(?=[\W])(?:{_named(_BEFORE_WORDS)})"
    rf"|(?<!\w)(?=[a-z\d])(?:{_alternatives(_WORDS)})(?!\w)"
    rf"|(?=[^\w ])(?:{_named(kind for kind in _SIGNS if kind not in _BEFORE_WORDS)})"
)
