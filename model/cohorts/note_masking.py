"""Masking of notes: removes every phrase that names a disease.

A model that reads masked notes cannot recognise a diagnosis that is already written down; the
comparison separates recognition from prediction. A phrase is the text between full stops,
semicolons and line breaks. A phrase that names any of the 40 diseases is removed, whatever it
states: "denies asthma" is removed too. A phrase that only suggests a disease (insulin, dialysis, a
cardiology consultation) stays.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache

from model.cohorts import Record
from schemas.tasks import load_tasks

_SEPARATOR = re.compile(r"([;\n]+\s*|\.(?:\s+|$))")  # the same phrase ends as in `schemas.features`

# Patterns for the names of the diseases in eICU's notes, beside their display names and diagnosis
# strings. They match from the beginning of a word.
SYNONYMS: Mapping[str, str] = {
    "hypertension": r"htn\b|hypertensi|antihypertensi",
    "coronary_artery_disease": (
        r"cad\b|coronary|angina|cabg|ptca|stent\b|bypass|myocardial|internal mammary artery|"
        r"saphenous vein"
    ),
    "atrial_fibrillation": r"a\.? ?fib|af\b|atrial|flutter",
    "heart_failure": r"chf\b|congestive|pulmonary edema|ventricular dysfunction",
    "valve_disease": (
        r"valv|(aortic|mitral|tricuspid|pulmonic) (sten|regurg|insuff)|(as|ai|ms|mr|tr)$|"
        r"endocarditis"
    ),
    "acute_myocardial_infarction": r"n?stemi\b|mi\b|myocardial|infarction",
    "cardiomyopathy": r"cardiomyopath",
    "peripheral_vascular_disease": (
        r"pvd\b|peripheral vasc|claudication|aneurysm|dissection|endarterectomy|"
        r"thrombus, arterial|embol.*arterial|aort(a|o)"
    ),
    "venous_thromboembolism": (
        r"dvt\b|deep vein|venous thromb|pulmonary embol|embolus, pulmonary|pe\b|thromboembol"
    ),
    "copd": r"copd|emphysema|bronchitis|chronic obstructive",
    "asthma": r"asthma",
    "pleural_effusion": r"pleural|effusion",
    "respiratory_failure": r"(respiratory|pulmonary) (failure|arrest)|arrest, respiratory|ards\b",
    "septic_shock": r"septic|shock",
    "acidosis": r"acidosis|ketoacid|dka\b|acid-base",
    "sepsis": r"seps|septic|bacteremia|urosepsis",
    "pneumonia": r"pneumoni|aspiration",
    "acute_kidney_injury": r"aki\b|arf\b|(acute )?(renal|kidney) (failure|insuff|injury)",
    "chronic_kidney_disease": r"ckd\b|cri\b|(chronic )?(renal|kidney) (failure|insuff|disease)",
    "end_stage_renal_disease": r"esrd\b|end[- ]stage|renal transplant",
    "fluid_electrolyte_disorder": (
        r"hyp(o|er)(kal|natr|calc|magnes|phosphat|vol)\w*emia|dehydrat|fluid overload|"
        r"(acid-base/)?electrolyte (abnormal|disorder|disturb|imbal)|volume (overload|depletion)"
    ),
    "diabetes": r"diabet|iddm|niddm|dm\b|dka\b|hyperosmolar",
    "hypothyroidism": r"hypothyr|thyroid (disorder|hormone)",
    "hyperlipidemia": r"(anti)?hyperlipid|dyslipid|hypercholest|cholesterol",
    "obesity": r"obes|bariatric",
    "stroke_or_tia": (
        r"stroke|cva\b|tia\b|cerebrovascular|ich\b|sah\b|cerebral infarct|"
        r"(subarachnoid|intracerebral|intracranial) h|hemorrhage/h|hematoma, (sub|epi)dural|"
        r"subdural"
    ),
    "seizure": r"seizure|epilep|anticonvuls",
    "encephalopathy": r"encephalop",
    "dementia_or_delirium": r"dement|deliri|alzheimer",
    "gastrointestinal_bleeding": (
        r"(upper |lower )?(gi|ugi|lgi|gastrointestinal) (bleed|hemorr)|bleeding, |melena|"
        r"hematemesis|hematochezia|blood in stool|varic"
    ),
    "pancreatitis": r"pancreatit",
    "liver_disease": r"cirrho|hepat|liver|varic|ascites",
    "anemia": r"anemi",
    "thrombocytopenia": r"thrombocytop|itp\b|heparin.induced",
    "coagulopathy": r"coagulop|dic\b|bleeding diathesis|hypercoag|clotting disorder",
    "malignancy": (
        r"cancer|malignan|neoplas|tumou?r|metasta|leukemia|lymphoma|myeloma|melanoma|carcinoma|"
        r"chemotherapy|radiation therapy|oncolog|sarcoma|glioma|cll\b|cml\b|aml\b"
    ),
    "depression": r"depress",
    "substance_use_disorder": (
        r"alcohol|etoh|ethanol|(drug|substance|polysubstance|cocaine|opi\w+) (abuse|depend|withdr)|"
        r"withdrawal|street drugs|overdose, alcohol"
    ),
    "urinary_tract_infection": r"uti\b|urinary tract|pyeloneph|renal/uti",
    "malnutrition": r"malnutr|malnour|cachec|undernour",
}


@cache
def _disease_names() -> re.Pattern[str]:
    """Matches any name of a disease: the names that the tasks declare, and the SYNONYMS."""
    names: list[str] = []
    for task in load_tasks():
        if task.is_disease:
            names += [re.escape(task.display), *(re.escape(c.display) for c in task.coding)]
            names.append(SYNONYMS[task.name])
            # A diagnosis string is "neurologic|seizures|…"; a note uses colons.
            if task.eicu_pattern is not None:
                names.append(task.eicu_pattern.replace(r"\|", r"\b").replace("^", ""))
    # From the beginning of a word: "initial" does not match "TIA".
    return re.compile(rf"\b(?:{'|'.join(names)})", re.IGNORECASE)


def mentions_disease(phrase: str) -> bool:
    """Whether a phrase names any of the 40 diseases."""
    return _disease_names().search(phrase) is not None


def remove_disease_phrases(text: str) -> tuple[str, int]:
    """A note without the phrases that name a disease, and the number of removed phrases."""
    remaining, removed = [], 0
    parts = _SEPARATOR.split(text)
    for phrase, separator in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if mentions_disease(phrase):
            removed += 1
        else:
            remaining += [phrase, separator]
    return "".join(remaining).strip(), removed


def mask_notes(records: Iterable[Record]) -> Iterator[Record]:
    """The same records in the same order, with masked notes."""
    mask = cache(remove_disease_phrases)  # each later landmark holds the same note again
    for record in records:
        removed, notes = 0, []
        for note in record.payload.notes:
            text, count = mask(note.text)
            removed += count
            if text:
                notes.append(note.model_copy(update={"text": text}))
        payload = record.payload.model_copy(update={"notes": notes})
        yield replace(record, payload=payload, masked=removed)
