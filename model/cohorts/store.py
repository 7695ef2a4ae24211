"""Cohorts on disk: the arrays of all records, made by the same `features` that serving uses.

A cohort is a folder of `cohort.json` (name, source, feature spec, tasks, digests of the code),
`tokenizer.json` and shards (`shard-00000.npz`). Training reads nothing else.
"""

import inspect
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, Field
from tokenizers import Tokenizer

import schemas
from model.cohorts import GROUPS, LANDMARKS_HOURS, Record
from model.cohorts.samples import Samples
from model.errors import UserError, wrap_file_errors
from schemas.features import (
    STATISTICS,
    TREATMENT_FEATURES,
    Array,
    Features,
    FeatureSpec,
    extract_features,
)
from schemas.manifest import TOKENIZER, sha256
from schemas.payload import InvalidPayload, Payload
from schemas.response import MODALITIES, Modality
from schemas.tasks import Task, load_tasks, select_tasks

COHORT = "cohort.json"
SHARD_RECORDS = 1000


class CohortError(UserError):
    """A folder is not a cohort, or was changed since the cohort was made."""


class _CohortFile(BaseModel):
    """The parts of `cohort.json` that are read back."""

    name: str
    source: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    spec: dict[str, Any]
    # SHA-256 of the tokenizer's file (missing in cohorts of earlier versions), and of each shard.
    tokenizer: str | None = None
    shards: dict[Annotated[str, Field(pattern=r"^[\w-]+\.npz$")], str] = Field(min_length=1)


@dataclass(frozen=True)
class Cohort:
    """A cohort in memory. `digest`: the SHA-256 of its `cohort.json`."""

    name: str
    source: str
    tasks: tuple[Task, ...]
    spec: FeatureSpec
    samples: Samples
    digest: str

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads a cohort. Unpickles nothing.

        Raises CohortError, a line that names the file, if the folder is not a cohort, was changed
        since it was made, or holds invalid arrays.
        """
        if not (folder / COHORT).is_file():
            raise CohortError(f"{folder} is not a cohort: it has no {COHORT}")
        raw = _read(folder / COHORT)
        with wrap_file_errors(folder / COHORT, CohortError, ValueError):
            facts = _CohortFile.model_validate_json(raw)
        tokenizer = _read(folder / TOKENIZER)
        if facts.tokenizer not in (None, sha256(tokenizer)):
            raise CohortError(f"{folder / TOKENIZER} was changed since the cohort was made")
        with wrap_file_errors(folder / TOKENIZER, CohortError, Exception):
            Tokenizer.from_str(tokenizer.decode())
        with wrap_file_errors(folder / COHORT, CohortError, ValueError):
            spec = FeatureSpec(**facts.spec, tokenizer_json=tokenizer.decode())
        parts = []
        for name, expected in facts.shards.items():
            content = _read(folder / name)
            if sha256(content) != expected:
                raise CohortError(f"{folder / name} was changed since the cohort was made")
            parts.append(_shard(folder / name, content))
            if error := next(parts[-1].validation_errors(spec, facts.tasks), None):
                raise CohortError(f"{folder / name}: {error}")
        samples = Samples.concatenate(parts)
        return cls(facts.name, facts.source, facts.tasks, spec, samples, sha256(raw))

    def of_tasks(self, names: Sequence[str]) -> "Cohort":
        """The same patients with the outcomes of some tasks, in the cohort's order of tasks."""
        rows = [i for i, task in enumerate(self.tasks) if task.name in names]
        outcomes, charted = self.samples.outcomes[:, rows], self.samples.charted[:, rows]
        return replace(
            self,
            tasks=select_tasks(self.tasks, names),
            samples=replace(self.samples, outcomes=outcomes, charted=charted),
        )

    def labelled_tasks(self) -> list[str]:
        """The names of the tasks that can be learned from the labels.

        A binary task needs patients with and without it, a task with classes two of them. A
        clustering needs no labels.
        """
        classes = zip(self.tasks, self.samples.outcomes.T, strict=True)
        known = [(task, np.unique(outcome[~np.isnan(outcome)])) for task, outcome in classes]
        least = {"binary": 2, "multiclass": 2, "regression": 1, "clustering": 0}
        return [task.name for task, values in known if len(values) >= least[task.kind]]


def _read(path: Path) -> bytes:
    with wrap_file_errors(path, CohortError):
        return path.read_bytes()


def _shard(path: Path, content: bytes) -> Samples:
    # zipfile and numpy raise errors of many types for a damaged file.
    with (
        wrap_file_errors(path, CohortError, Exception),
        np.load(io.BytesIO(content), allow_pickle=False) as shard,
    ):
        if missing := {f.name for f in fields(Samples)} - set(shard.files):
            raise CohortError(
                f"{path.parent} was made by an older version, which did not write "
                f"{', '.join(sorted(missing))}; make it again with 'm3h-model cohort'"
            )
        return Samples(**{f.name: shard[f.name] for f in fields(Samples)})


def write(
    records: Iterable[Record],
    folder: Path,
    *,
    name: str,
    source: str,
    made_by: Sequence[ModuleType],
    spec: FeatureSpec,
) -> Iterator[int]:
    """Writes a cohort to `folder`; yields the number of records written so far.

    `made_by`: the modules and packages that made the records; `cohort.json` holds the digests of
    their code and of `schemas`. Raises CohortError if there is no record, or one is invalid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER).write_text(spec.tokenizer_json, encoding="utf-8")
    tasks = load_tasks()
    shards: dict[str, str] = {}
    written = 0
    remaining = iter(records)
    while chunk := _next_chunk(remaining, spec, name, written):
        path = folder / f"shard-{len(shards):05d}.npz"
        np.savez(path, **vars(_samples(chunk, spec, tasks)))
        shards[path.name] = sha256(path.read_bytes())
        written += len(chunk)
        yield written
    if not written:
        raise CohortError(f"the cohort {name} has no records")
    facts: dict[str, Any] = {
        "name": name,
        "source": source,
        "records": written,
        "landmarks_hours": LANDMARKS_HOURS,
        "code": {n: d for m in (schemas, *made_by) for n, d in _code_digests(m).items()},
        "spec": spec.model_dump(mode="json"),
        "tokenizer": sha256(spec.tokenizer_json.encode()),
        "tasks": [task.model_dump(mode="json") for task in tasks],
        "shards": shards,
    }
    (folder / COHORT).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _code_digests(module: ModuleType) -> dict[str, str]:
    """The SHA-256 of the module's file, or of each file of a package, by the module's name."""
    file = Path(inspect.getfile(module))
    if file.name != "__init__.py":
        return {module.__name__: sha256(file.read_bytes())}
    digests = {}
    for path in sorted(file.parent.rglob("*.py")):
        parts = path.relative_to(file.parent).with_suffix("").parts
        name = ".".join((module.__name__, *(part for part in parts if part != "__init__")))
        digests[name] = sha256(path.read_bytes())
    return digests


# Arrays of a record by modality, as `extract_features` returns them.
_Arrays = Mapping[Modality, Mapping[str, Array]]
_NO_PAYLOAD = Payload(as_of=datetime(1970, 1, 1, tzinfo=UTC))


def _next_chunk(
    records: Iterator[Record], spec: FeatureSpec, name: str, written: int
) -> list[tuple[Record, _Arrays]]:
    """The next records, without payloads, and their arrays.

    A thousand payloads with images would take a gigabyte, so that each is dropped at once.
    """
    chunk: list[tuple[Record, _Arrays]] = []
    try:
        for record in islice(records, SHARD_RECORDS):
            position = f"{name}: record {written + len(chunk) + 1}"
            arrays = _features(record, spec, position).arrays
            chunk.append((replace(record, payload=_NO_PAYLOAD), arrays))
    except InvalidPayload as error:
        position = f"{name}: a record after the first {written + len(chunk)}"
        raise CohortError(f"{position}: {_first_error(error)}") from None
    return chunk


def _features(record: Record, spec: FeatureSpec, position: str) -> Features:
    try:
        return extract_features(record.payload, spec)
    except InvalidPayload as error:
        first = _first_error(error, record.pointer)
        raise CohortError(f"{record.file or position}: {first}") from None


def _first_error(error: InvalidPayload, payload: str = "") -> str:
    """The pointer and detail of the first error. Errors of a payload quote no value.

    `payload`: the pointer of the payload in its document.
    """
    first = error.errors[0]
    return f"{payload + first.pointer or 'the whole record'}: {first.detail}"


def _samples(
    chunk: Sequence[tuple[Record, _Arrays]], spec: FeatureSpec, tasks: Sequence[Task]
) -> Samples:
    """The arrays of a chunk of the cohort."""
    records = [record for record, _ in chunk]
    rows = [arrays for _, arrays in chunk]
    return Samples(
        patient=np.array([r.patient for r in records]),
        site=np.array([r.site for r in records]),
        stay=np.array([r.stay for r in records]),
        landmark=np.array(
            [np.nan if r.landmark_hours is None else r.landmark_hours for r in records], np.float32
        ),
        present=np.array([[m in arrays for m in MODALITIES] for arrays in rows], np.bool_),
        outcomes=np.array([[_outcome(r, task) for task in tasks] for r in records], np.float32),
        groups=np.array([[r.groups.get(group, "") for group in GROUPS] for r in records]),
        charted=np.array(
            [[r.charted.get(task.name, np.nan) for task in tasks] for r in records], np.float32
        ),
        masked=np.array([r.masked for r in records], np.int32),
        tabular=_rows(rows, "tabular", "values", (len(spec.tabular_names),)),
        statistics=_rows(rows, "series", "statistics", (len(spec.variables), len(STATISTICS))),
        treatments=_rows(
            rows, "series", "treatments", (len(spec.treatments), len(TREATMENT_FEATURES))
        ),
        tokens=np.concatenate(
            [np.empty(0, np.int32)]
            + [a["notes"]["tokens"].astype(np.int32) for a in rows if "notes" in a]
        ),
        lengths=np.array(
            [len(a["notes"]["tokens"]) if "notes" in a else 0 for a in rows], np.int64
        ),
        pixels=np.array([a["image"]["pixels"] for a in rows if "image" in a], np.uint8).reshape(
            -1, 1, spec.image_side, spec.image_side
        ),
    )


def _rows(rows: Sequence[_Arrays], modality: Modality, name: str, shape: tuple[int, ...]) -> Any:
    zeros = np.zeros(shape, np.float32)
    return np.stack([a[modality][name] if modality in a else zeros for a in rows])


def _outcome(record: Record, task: Task) -> float:
    value = record.outcomes.get(task.name)
    if value is None:
        return float("nan")
    return float(task.classes.index(value)) if isinstance(value, str) else float(value)
