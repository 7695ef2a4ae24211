"""Metadata of the bundle: `GET /tasks`, `/variables`, `/model` and `/model-card`."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from schemas.manifest import Cohort, Manifest, Phenotype, Quantization, Recalibration
from schemas.response import Modality
from schemas.tasks import Coding, Kind
from schemas.variables import Treatment, Variable, load_spellings
from service.http import openapi, problems
from service.http.request_parsing import StrictRoute
from service.http.static_response import MARKDOWN, StaticResponse
from service.runtime.bundle import Bundle

_LEARNED = Field(
    default=None,
    description="false: the input is read, but the model learned nothing from it: it changes no "
    "output of this bundle. Absent if this was not measured when the bundle was exported.",
)


class _Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskEntry(_Metadata):
    """A task: the meaning of its prediction, the definition of its label, its training data."""

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


class TaskList(_Metadata):
    tasks: tuple[TaskEntry, ...]


class Model(_Metadata):
    """The model in figures: its origin, its training cohorts and its evaluation.

    `evaluation`: the results behind the model card; empty if the bundle has none.
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


class VariableEntry(_Metadata):
    """A variable of `series`.

    `aliases`: other accepted names; case, spaces and hyphens are ignored. `moles_only`: codes of
    `loinc` whose unit must be molar. `units`: UCUM codes, the canonical unit first; other UCUM
    units of the same dimension and other spellings are accepted too. `plausible`: a value outside
    counts as missing. `typical`: the range of nearly all patients, in the canonical unit.
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
    learned: bool | None = _LEARNED


class TreatmentEntry(_Metadata):
    """A treatment. `units`: units of its rate; those in `units_per_weight` need `weight_kg`."""

    name: str
    display: str
    units: tuple[str, ...]
    units_per_weight: tuple[str, ...]
    plausible: tuple[float, float] | None = None
    learned: bool | None = _LEARNED


class VariableList(_Metadata):
    """All inputs of the model. `unit_spellings`: accepted spellings and their UCUM codes."""

    variables: tuple[VariableEntry, ...]
    treatments: tuple[TreatmentEntry, ...]
    categories: dict[str, tuple[str, ...]]
    unit_spellings: dict[str, str]
    window_hours: float
    trained_hours: tuple[float, float]


def routes(bundle: Bundle) -> APIRouter:
    router = APIRouter(tags=["model"], route_class=StrictRoute)
    all_tasks, all_variables = task_list(bundle.manifest), variable_list(bundle.manifest)
    facts = model_metadata(bundle.manifest, bundle.digest)
    tasks, variables, model = map(StaticResponse.from_model, (all_tasks, all_variables, facts))
    card = None if bundle.model_card is None else StaticResponse(bundle.model_card, MARKDOWN)

    @router.get(
        "/tasks",
        summary="The tasks that are predicted",
        response_model=TaskList,
        responses=openapi.example(_shortened(all_tasks)),
    )
    async def get_tasks(request: Request) -> Response:
        return tasks.response(request)

    @router.get(
        "/variables",
        summary="The inputs that are read",
        response_model=VariableList,
        responses=openapi.example(_shortened(all_variables)),
    )
    async def get_variables(request: Request) -> Response:
        return variables.response(request)

    @router.get(
        "/model",
        summary="The model in figures",
        response_model=Model,
        responses=openapi.example(facts.model_copy(update={"evaluation": {}})),
    )
    async def get_model(request: Request) -> Response:
        return model.response(request)

    @router.get(
        "/model-card",
        summary="The model card: intended use, training, evaluation and limitations",
        response_class=Response,
        responses=openapi.text(MARKDOWN, f"# {bundle.manifest.name}\n") | openapi.problems(404),
    )
    async def get_model_card(request: Request) -> Response:
        if card is None:
            raise problems.not_in_bundle("model card")
        return card.response(request)

    return router


def _shortened(metadata: TaskList | VariableList) -> dict[str, Any]:
    """The document with the first entry of each of its lists and mappings."""

    def first(value: Any) -> Any:
        if isinstance(value, dict):
            return dict([*value.items()][:1])
        return value[:1] if isinstance(value, list) and isinstance(value[0], dict) else value

    document = metadata.model_dump(mode="json", exclude_none=True)
    return {name: first(value) for name, value in document.items()}


def task_list(manifest: Manifest) -> TaskList:
    fields = TaskEntry.model_fields.keys()
    return TaskList(
        tasks=tuple(
            TaskEntry.model_validate(
                {k: v for k, v in (*facts.task, *facts) if k in fields}
                | {
                    "seen": facts.visible_modalities,
                    "phenotypes": manifest.phenotypes if facts.task.kind == "clustering" else (),
                }
            )
            for facts in manifest.tasks
        )
    )


def model_metadata(manifest: Manifest, digest: str) -> Model:
    values = {name: value for name, value in manifest if name in Model.model_fields}
    return Model.model_validate(values | {"digest": digest})


def variable_list(manifest: Manifest) -> VariableList:
    spec, not_learned = manifest.spec, manifest.not_learned
    variables, treatments = (
        (None, None) if not_learned is None else (not_learned.variables, not_learned.treatments)
    )
    return VariableList(
        variables=tuple(
            _variable_entry(variable, _learned(variable.name, variables))
            for variable in spec.extended_variables
        ),
        treatments=tuple(
            _treatment_entry(treatment, _learned(treatment.name, treatments))
            for treatment in spec.treatments
        ),
        categories=spec.categories,
        unit_spellings=load_spellings() | spec.spellings,
        window_hours=spec.window_hours,
        trained_hours=manifest.trained_hours,
    )


def _learned(name: str, not_learned: tuple[str, ...] | None) -> bool | None:
    return None if not_learned is None else name not in not_learned


def _variable_entry(variable: Variable, learned: bool | None) -> VariableEntry:
    return VariableEntry(
        name=variable.name,
        display=variable.display,
        aliases=variable.aliases,
        loinc=variable.loinc,
        moles_only=variable.moles_only,
        units=variable.accepted_units,
        unit_required=not variable.dimensionless,
        plausible=variable.plausible,
        typical=variable.typical,
        aggregate=variable.aggregate,
        learned=learned,
    )


def _treatment_entry(treatment: Treatment, learned: bool | None) -> TreatmentEntry:
    return TreatmentEntry(
        name=treatment.name,
        display=treatment.display,
        units=treatment.accepted_units,
        units_per_weight=tuple(treatment.units_per_weight),
        plausible=treatment.plausible,
        learned=learned,
    )
