"""Notes that no longer name a disease: to tell recognition from prediction.

A phrase of a note (what stands between full stops, semicolons and line breaks) that names any of
the 40 diseases is taken out, whoever has it and whatever it says of it: "denies asthma" goes too.
What only suggests a disease (insulin, dialysis, a cardiology consultation) stays.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache

from model.cohorts import Record
from schemas.tasks import load_tasks

_SEPARATOR = re.compile(r"([;\n]+\s*|\.(?:\s+|$))")  # as where phrases of features end

# What the wards of eICU call the diseases, beside their display names and diagnosis strings: from
# the notes' own phrases. Matched from the beginning of a word on.
ALSO_CALLED: Mapping[str, str] = {
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
def _names() -> re.Pattern[str]:
    """Any of the diseases' names: as declared with the tasks, and as above."""
    found: list[str] = []
    for task in load_tasks():
        if task.is_disease:
            found += [re.escape(task.display), *(re.escape(c.display) for c in task.coding)]
            found.append(ALSO_CALLED[task.name])
            # A diagnosis string is "neurologic|seizures|…"; a note has headings with colons.
            if task.eicu_pattern is not None:
                found.append(task.eicu_pattern.replace(r"\|", r"\b").replace("^", ""))
    # From the beginning of a word on: "TIA" is not in "initial".
    return re.compile(rf"\b(?:{'|'.join(found)})", re.IGNORECASE)


def names_a_disease(phrase: str) -> bool:
    """Whether a phrase says any of the 40 diseases by a name."""
    return _names().search(phrase) is not None


def without_names(text: str) -> tuple[str, int]:
    """A note without the phrases that name a disease, and how many they were."""
    kept, taken = [], 0
    parts = _SEPARATOR.split(text)
    for phrase, separator in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if names_a_disease(phrase):
            taken += 1
        else:
            kept += [phrase, separator]
    return "".join(kept).strip(), taken


def masked(records: Iterable[Record]) -> Iterator[Record]:
    """The same records in the same order; their notes name no disease."""
    known = cache(without_names)  # a note is read again at each later landmark
    for record in records:
        taken, notes = 0, []
        for note in record.payload.notes:
            text, count = known(note.text)
            taken += count
            if text:
                notes.append(note.model_copy(update={"text": text}))
        payload = record.payload.model_copy(update={"notes": notes})
        yield replace(record, payload=payload, masked=taken)
