"""Small synthetic cohorts for tests."""

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np

from model.cohorts.samples import Samples
from model.cohorts.store import COHORT, Cohort
from model.knowledge.findings import load_findings
from model.network.config import NetConfig
from model.training.config import TrainConfig
from schemas.features import STATISTICS, FeatureSpec
from schemas.manifest import TOKENIZER, sha256
from schemas.tasks import load_tasks
from schemas.variables import Treatment, Variable, load_treatments, load_variables

TASKS = load_tasks()
NAMES = [task.name for task in TASKS]
SPEC = FeatureSpec(
    variables=tuple(
        Variable(name=f"v{i}", display="V", unit="1", plausible=(-9, 9)) for i in range(3)
    ),
    treatments=(Treatment(name="t", display="T", pattern="t"),),
    spellings={},
    image_side=16,
    tokenizer_json=files("schemas").joinpath("tokenizer.json").read_text("utf-8"),
)
FIRST_PHRASE = SPEC.tokenizer.get_vocab_size()
CONFIG = TrainConfig(
    net=NetConfig(
        width=16,
        task_width=8,
        image_channels=(8,),
        clusters=2,
        trees={"tabular": 2, "series": 3},
    ),
    members=2,
    epochs=4,
    batch=64,
)

# A short training of few tasks.
CHOSEN = ("septic_shock", "sepsis", "diabetes", "length_of_stay", "phenotype")
SMALL = CONFIG.model_copy(update={"epochs": 1, "members": 3})


def small_cohort(count=240):
    return make_cohort(count).of_tasks(CHOSEN)


def make_cohort(count=240, name="made", seed=0):
    """A third of the patients have an image. Diabetes depends on the first variable."""
    draw = np.random.default_rng(seed)
    signal = draw.normal(size=count)
    statistics = draw.normal(size=(count, 3, len(STATISTICS))).astype(np.float32)
    statistics[:, 0] = signal[:, None]
    statistics[draw.random(statistics.shape) < 0.2] = np.nan
    outcomes = np.full((count, len(TASKS)), np.nan, np.float32)
    for i, task in enumerate(TASKS):
        if task.kind == "binary":
            outcomes[:, i] = draw.random(count) < 0.3
        elif task.kind == "multiclass":
            outcomes[:, i] = draw.integers(0, len(task.classes), count)
        elif task.kind == "regression":
            outcomes[:, i] = draw.lognormal(size=count)
    outcomes[:, NAMES.index("diabetes")] = signal + draw.normal(size=count) * 0.2 > 0.5
    present = np.ones((count, 4), np.bool_)
    present[:, 3] = draw.random(count) < 0.3
    lengths = draw.integers(1, 9, count)
    generator = np.random.default_rng([seed, 1])
    hours = generator.normal(size=outcomes.shape)
    years = generator.choice(["2014", "2015"], count)
    samples = Samples(
        patient=np.array([f"p{i // 2}" for i in range(count)]),
        site=np.array([f"h{i % 20}" for i in range(count)]),
        stay=np.arange(count).astype(np.str_),
        landmark=np.full(count, 24, np.float32),
        present=present,
        outcomes=outcomes,
        groups=np.stack([generator.choice(["White", "Black"], count), years], axis=1),
        charted=np.where(outcomes == 1, hours, np.nan).astype(np.float32),
        masked=np.zeros(count, np.int32),
        tabular=draw.normal(size=(count, len(SPEC.tabular_names))).astype(np.float32),
        statistics=statistics,
        treatments=draw.normal(size=(count, 1, 4)).astype(np.float32),
        # Phrases, since most tokens are parts of words, which a model does not use.
        tokens=FIRST_PHRASE + draw.integers(3, 100, lengths.sum()).astype(np.int32),
        lengths=lengths,
        pixels=draw.integers(0, 256, (present[:, 3].sum(), 1, 16, 16)).astype(np.uint8),
    )
    return Cohort(name, "made for this test", TASKS, SPEC, samples, digest=name)


def save(cohort, folder):
    """Writes a cohort unchanged, as input of a command."""
    folder.mkdir()
    np.savez(folder / "shard.npz", **vars(cohort.samples))
    (folder / TOKENIZER).write_text(cohort.spec.tokenizer_json, encoding="utf-8")
    facts = {
        "name": cohort.name,
        "source": cohort.source,
        "spec": cohort.spec.model_dump(mode="json"),
        "tasks": [task.model_dump(mode="json") for task in cohort.tasks],
        "shards": {"shard.npz": sha256((folder / "shard.npz").read_bytes())},
    }
    (folder / COHORT).write_text(json.dumps(facts), encoding="utf-8")


CLINICAL_TASKS = (
    *("sepsis", "septic_shock", "pneumonia", "diabetes", "coronary_artery_disease"),
    "length_of_stay",
)
CLINICAL_SPEC = FeatureSpec(
    variables=tuple(
        variable
        for variable in load_variables()
        if variable.name in ("heart_rate", "systolic_blood_pressure", "lactate", "temperature")
    ),
    treatments=tuple(t for t in load_treatments() if t.name in ("norepinephrine", "insulin")),
    spellings={},
    image_side=16,
    assertions=("sepsis", "pneumonia"),
    tokenizer_json=SPEC.tokenizer_json,
)


def clinical_cohort(count=300, effect=2.0):
    """Patients with measured variables that have findings, treatments, and assertions in notes.

    `effect`: of the severity of lactate on the log-odds of sepsis. A half of the notes are silent.
    """
    cohort = make_cohort(count)
    draw = np.random.default_rng(0)
    names = [variable.name for variable in CLINICAL_SPEC.variables]
    statistics = np.full((count, len(names), len(STATISTICS)), np.nan, np.float32)
    severity = draw.uniform(-0.3, 1.3, (count, len(names)))
    for i, name in enumerate(names):
        side = "low" if name.endswith("pressure") else "high"
        finding = load_findings(CLINICAL_SPEC)[f"{name}_{side}"]
        value = finding.normal + (finding.severe - finding.normal) * severity[:, i]
        statistics[:, i] = value[:, None]
    for name, value in {"spread": 0, "change": 0, "log_count": 1, "hours_since_last": 2}.items():
        statistics[:, :, STATISTICS.index(name)] = value
    treatments = np.full((count, len(CLINICAL_SPEC.treatments), 4), np.nan, np.float32)
    treatments[:, :, :2] = draw.random((count, len(CLINICAL_SPEC.treatments), 1)) < 0.3
    outcomes = cohort.samples.outcomes.copy()
    z = -1.0 + effect * (severity[:, names.index("lactate")].clip(0) - 0.5)
    outcomes[:, NAMES.index("sepsis")] = draw.random(count) < 1 / (1 + np.exp(-z))
    tokens = [FIRST_PHRASE + draw.integers(0, 30, 4) for _ in range(count)]
    for note in tokens[::2]:
        codes = CLINICAL_SPEC.vocabulary - CLINICAL_SPEC.first_assertion_id
        note[-1] = CLINICAL_SPEC.first_assertion_id + draw.integers(codes)
    samples = replace(
        cohort.samples,
        outcomes=outcomes,
        statistics=statistics,
        treatments=treatments,
        tokens=np.concatenate(tokens).astype(np.int32),
        lengths=np.full(count, 4),
    )
    return replace(cohort, spec=CLINICAL_SPEC, samples=samples).of_tasks(CLINICAL_TASKS)
