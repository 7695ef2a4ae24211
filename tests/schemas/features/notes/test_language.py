"""Detection of notes that a model cannot read."""
# ruff: noqa: RUF001 - notes in other languages hold letters that look like Latin ones

import base64
import codecs
import csv
import random

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from schemas.features import FeatureSpec, to_plain_text
from schemas.features.notes.language import LanguageCheck

SPEC = FeatureSpec.default()
ENGLISH = (
    "72 year old with fever, productive cough and hypotension, started on norepinephrine. "
    "Past history of COPD, chronic kidney disease and atrial fibrillation on warfarin."
)
RANDOM = random.Random(0)
UNREADABLE = {
    "Chinese": "患者72岁，发热，咳嗽，低血压，诊断肺炎、脓毒症休克。既往慢性阻塞性肺病、慢性肾病。",
    "Chinese, short": "肺炎",
    "Japanese": "72歳男性、発熱と咳嗽、低血圧を認める。肺炎と敗血症性ショックと診断。",
    "Korean": "72세 남자 환자로 발열, 기침, 저혈압이 있음. 폐렴 및 패혈성 쇼크 진단.",
    "Russian": "Пациент 72 лет с лихорадкой, кашлем и гипотензией. Диагноз: пневмония.",
    "Greek": "Ασθενής 72 ετών με πυρετό, βήχα και υπόταση. Διάγνωση πνευμονία.",
    "Arabic": "مريض يبلغ من العمر 72 عاما يعاني من الحمى والسعال وانخفاض ضغط الدم",
    "Hebrew": "חולה בן 72 עם חום, שיעול ולחץ דם נמוך",
    "Hindi": "72 वर्षीय रोगी को बुखार, खांसी और निम्न रक्तचाप है",
    "Thai": "ผู้ป่วยอายุ 72 ปี มีไข้ ไอ และความดันโลหิตต่ำ",
    "Vietnamese": "Bệnh nhân 72 tuổi sốt, ho có đờm và tụt huyết áp, chẩn đoán viêm phổi.",
    "German": "72-jähriger Patient mit Fieber, produktivem Husten und Hypotonie, Beginn mit "
    "Noradrenalin. Vorgeschichte: COPD, chronische Niereninsuffizienz und Vorhofflimmern.",
    "French": "Patient de 72 ans avec fièvre, toux productive et hypotension, mis sous "
    "noradrénaline. Antécédents de BPCO, insuffisance rénale chronique et fibrillation.",
    "Spanish": "Paciente de 72 años con fiebre, tos productiva e hipotensión, se inicia "
    "noradrenalina. Antecedentes de EPOC, enfermedad renal crónica y fibrilación auricular.",
    "Italian": "Paziente di 72 anni con febbre, tosse produttiva e ipotensione, iniziata "
    "noradrenalina. Anamnesi di BPCO, insufficienza renale cronica e fibrillazione atriale.",
    "Portuguese": "Paciente de 72 anos com febre, tosse produtiva e hipotensão, iniciada "
    "noradrenalina. Antecedentes de DPOC, doença renal crónica e fibrilhação auricular.",
    "Dutch": "72-jarige patiënt met koorts, productieve hoest en hypotensie, gestart met "
    "noradrenaline. Voorgeschiedenis van COPD, chronische nierziekte en atriumfibrilleren.",
    "Turkish": "72 yaşında erkek hasta ateş, öksürük ve hipotansiyon ile başvurdu.",
    "Polish": "Pacjent lat 72 z gorączką, kaszlem i hipotensją. W wywiadzie POChP.",
    "base64": base64.b64encode(ENGLISH.encode()).decode(),
    "base64, in lines": base64.encodebytes(ENGLISH.encode() * 5).decode(),
    "base64, after a header": ENGLISH * 3 + base64.b64encode(RANDOM.randbytes(4000)).decode(),
    "hexadecimal": ENGLISH.encode().hex(),
    "hexadecimal, in bytes": ENGLISH.encode().hex(" "),
    "rot13": codecs.encode(ENGLISH, "rot13"),
    "no spaces": ENGLISH.replace(" ", ""),
    "a PDF": "%PDF-1.4\n%âãÏÓ\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n4 0 obj\n"
    "<< /Length 5 0 R /Filter /FlateDecode >>\nstream\nxœ+T0T0 B©¢œÂIS(äR0P0R07W\nendstream",
    "JSON": '{"resourceType":"Observation","id":"x1","code":{"coding":[{"system":'
    '"http://loinc.org","code":"8867-4","display":"Heart rate"}]},"valueQuantity":{"value":80}}',
    "a style sheet": ".a{color:#fff;margin:0 auto}.b{display:none}@media(max-width:600px){.c{}}",
    "a script": 'function(){var a=document.getElementById("x");if(a!==null){a.innerHTML=""}}',
    "HL7 v2": "OBX|1|NM|8867-4^Heart rate^LN||80|/min|60-100|N|||F\rOBX|2|NM|8480-6^Systolic",
    "random letters": " ".join(
        "".join(RANDOM.choices("abcdefghijklmnopqrstuvwxyz", k=RANDOM.randint(2, 9)))
        for _ in range(40)
    ),
    "wrongly decoded": ENGLISH.encode("utf-16-le").decode("utf-16-be"),
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_notes_in_other_languages_or_encodings_are_unreadable(text):
    assert SPEC.language_check.is_unreadable(to_plain_text(text).text)


@pytest.mark.parametrize(
    "text",
    [
        *("ok", "stable", "no change", "NAD", "s/p CABG", "DNR/DNI", "A&Ox3", "Extubated to 2L NC"),
        *("Cholangiocarcinoma", "pt resting comfortably", "SOB, N/V/D, CP, HA"),
        "BP 120/80 HR 80 RR 18 T 37.2 SpO2 98%",
        "Na 140 K 4.2 Cl 101 HCO3 24 BUN 18 Cr 1.1 Glu 110 WBC 12.3 Hgb 9.8 Plt 210",
        "metoprolol 25mg bid, lisinopril 10mg qd, asa 81mg, atorvastatin 40mg qhs",
        "loratadine beclomethasone nasal fluticasone/salmeterol Montelukast cephalexin hydrocodone",
        "L4-L5 laminectomy, T12 fx",
        "hx afib/chf/ckd3/dm2/htn/hld, cabg x4 2012, ppm",
        "73M c/o SOB x3d, PMHx COPD, CHF, DM2. CXR RLL PNA. Rx ctx/azithro, BiPAP 10/5 40%.",
        "Pt c/o abd pn, n/v x2d. KUB: SBO. NGT to LIWS, NPO, IVF @125/hr. Gen surg c/s.",
        ENGLISH,
        f"<p>{ENGLISH}</p>",
        ENGLISH * 50,
        "pneumonia, temp 39 °C, SpO₂ ≥ 90 %, 5 µg/kg/min • β-blocker",
    ],
)
def test_short_and_abbreviated_notes_are_readable(text):
    assert not SPEC.language_check.is_unreadable(to_plain_text(text).text)


def test_real_notes_are_rarely_unreadable(open_data):
    folder = open_data("notes") / "notes" / "mts-dialog" / "Main-Dataset"
    texts = [
        row["section_text"]
        for path in sorted(folder.glob("*.csv"))
        for row in csv.DictReader(path.open(encoding="utf-8"))
    ]
    unreadable = [
        text for text in texts if SPEC.language_check.is_unreadable(to_plain_text(text).text)
    ]
    assert len(texts) > 1000
    assert len(unreadable) < 0.005 * len(texts)


def test_a_small_vocabulary_checks_only_the_script():
    words = {"[UNK]": 0, "no": 1, "fever": 2}
    check = LanguageCheck(Tokenizer(WordLevel(words, unk_token="[UNK]")))
    assert not check.is_unreadable(UNREADABLE["German"])
    assert check.is_unreadable(UNREADABLE["Chinese"])
