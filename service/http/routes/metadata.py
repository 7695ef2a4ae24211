"""What a bundle can predict and what it reads, for whoever writes a client."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.manifest import Cohort, Manifest, Phenotype, Quantization, Recalibration
from schemas.response import Modality
from schemas.tasks import Coding, Kind
from schemas.variables import Treatment, Variable, load_spellings


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskEntry(_Entry):
    """A task: what its number means, what defines its label, what it learnt from."""

    name: str
    display: str
    department: str
    kind: Kind
    means: str
    unit: str | None = None
    classes: tuple[str, ...]
    subset_of: str | None = None
    coding: tuple[Coding, ...]
    icd9_prefixes: tuple[str, ...]
    icd10_prefixes: tuple[str, ...]
    icd10_excluded: tuple[str, ...]
    seen: tuple[Modality, ...]
    labels: dict[Modality, int]
    positives: int | None = None
    prevalence: float | None = None
    abstains: str | None = None
    phenotypes: tuple[Phenotype, ...]


class TaskList(_Entry):
    tasks: tuple[TaskEntry, ...]


class Model(_Entry):
    """What the model is, in figures: where it comes from, and how it did when it was tested.

    `evaluation`: those of the report that its card is written from; empty if there is none.
    """

    name: str
    version: str
    digest: str
    created: str
    command: str
    network: dict[str, Any]
    trained_hours: tuple[float, float]
    cohorts: tuple[Cohort, ...]
    recalibration: Recalibration | None = None
    reduction: Quantization | None = None
    evaluation: dict[str, Any]


class VariableEntry(_Entry):
    """A variable of `series`.

    `aliases`: other names for it; case, spaces and hyphens of a name do not matter. `moles_only`:
    codes of `loinc` that count in moles only. `units`: UCUM codes, the canonical one first; any
    other UCUM unit of the same dimension is accepted too, as is another spelling of one.
    `typical`: where nearly all patients are, in the canonical unit.
    """

    name: str
    display: str
    aliases: tuple[str, ...]
    loinc: tuple[str, ...]
    moles_only: tuple[str, ...]
    units: tuple[str, ...]
    unit_required: bool
    plausible: tuple[float, float]
    typical: tuple[float, float] | None = None
    aggregate: str


class TreatmentEntry(_Entry):
    """A treatment. `units` of its rate; those in `units_per_weight` need `weight_kg` as well."""

    name: str
    display: str
    units: tuple[str, ...]
    units_per_weight: tuple[str, ...]
    plausible: tuple[float, float] | None = None


class VariableList(_Entry):
    """Everything that the model reads. `unit_spellings`: examples, with the UCUM code they mean."""

    variables: tuple[VariableEntry, ...]
    treatments: tuple[TreatmentEntry, ...]
    categories: dict[str, tuple[str, ...]]
    unit_spellings: dict[str, str]
    window_hours: float
    trained_hours: tuple[float, float]


def tasks(manifest: Manifest) -> TaskList:
    shared = TaskEntry.model_fields.keys()
    return TaskList(
        tasks=tuple(
            TaskEntry.model_validate(
                {k: v for k, v in (*facts.task, *facts) if k in shared}
                | {
                    "seen": facts.visible_modalities,
                    "phenotypes": manifest.phenotypes if facts.task.kind == "clustering" else (),
                }
            )
            for facts in manifest.tasks
        )
    )


def model(manifest: Manifest, digest: str) -> Model:
    shared = Model.model_fields.keys()
    fields = {name: value for name, value in manifest if name in shared}
    return Model.model_validate(fields | {"digest": digest})


def variables(manifest: Manifest) -> VariableList:
    spec = manifest.spec
    return VariableList(
        variables=tuple(map(_variable, spec.extended_variables)),
        treatments=tuple(map(_treatment, spec.treatments)),
        categories=spec.categories,
        unit_spellings=load_spellings() | spec.spellings,
        window_hours=spec.window_hours,
        trained_hours=manifest.trained_hours,
    )


def _variable(known: Variable) -> VariableEntry:
    return VariableEntry(
        name=known.name,
        display=known.display,
        aliases=known.aliases,
        loinc=known.loinc,
        moles_only=known.moles_only,
        units=known.accepted_units,
        unit_required=not known.dimensionless,
        plausible=known.plausible,
        typical=known.typical,
        aggregate=known.aggregate,
    )


def _treatment(known: Treatment) -> TreatmentEntry:
    return TreatmentEntry(
        name=known.name,
        display=known.display,
        units=known.accepted_units,
        units_per_weight=tuple(known.units_per_weight),
        plausible=known.plausible,
    )
