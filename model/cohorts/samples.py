"""The arrays of a cohort's records, and their validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from model.cohorts import GROUPS
from schemas.features import STATISTICS, TREATMENT_FEATURES, Array, FeatureSpec
from schemas.response import MODALITIES, Modality
from schemas.tasks import Task


@dataclass(frozen=True)
class Samples:
    """Arrays of `n` records. `present` marks the modalities; absent ones have rows of zeros.

    patient, site, stay: [n] str; landmark: [n] hours, NaN without one; present: [n, 4] bool;
    outcomes: [n, tasks] float32 (0 or 1; days; class index; NaN: no label);
    tabular [n, F]; statistics [n, V, S]; treatments [n, T, 4]; tokens [sum of lengths] int32;
    lengths [n]; pixels [images, 1, side, side] uint8, in the order of the records with an image.

    Only for reports, never an input of training: groups [n, GROUPS] str, "" where unknown;
    charted [n, tasks] hours from `as_of` to the first charting of a disease, NaN where it was never
    charted or is unknown; masked [n] number of phrases removed from the notes.
    """

    patient: npt.NDArray[np.str_]
    site: npt.NDArray[np.str_]
    stay: npt.NDArray[np.str_]
    landmark: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    outcomes: npt.NDArray[np.float32]
    groups: npt.NDArray[np.str_]
    charted: npt.NDArray[np.float32]
    masked: npt.NDArray[np.int32]
    tabular: npt.NDArray[np.float32]
    statistics: npt.NDArray[np.float32]
    treatments: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.patient)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        names = [f.name for f in fields(cls)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

    def take(self, rows: npt.NDArray[np.intp]) -> "Samples":
        """The records at `rows`, in the order of `rows`."""
        first = np.cumsum(self.lengths) - self.lengths
        has_image = self.present[:, MODALITIES.index("image")]
        image_of = np.cumsum(has_image) - 1
        tokens = [self.tokens[first[r] : first[r] + self.lengths[r]] for r in rows]
        plain = {
            f.name: getattr(self, f.name)[rows]
            for f in fields(self)
            if f.name not in ("tokens", "pixels")
        }
        return Samples(
            **plain,
            tokens=np.concatenate([np.empty(0, np.int32), *tokens]),
            pixels=self.pixels[image_of[rows[has_image[rows]]]],
        )

    def arrays(self, row: int) -> dict[Modality, dict[str, Array]]:
        """The arrays of one record, as `features` returned them."""
        sample = self.take(np.array([row]))
        arrays: dict[Modality, dict[str, Array]] = {
            "tabular": {"values": sample.tabular[0]},
            "series": {"statistics": sample.statistics[0], "treatments": sample.treatments[0]},
            "notes": {"tokens": sample.tokens.astype(np.int64)},
            "image": {"pixels": sample.pixels[0] if len(sample.pixels) else np.empty(0)},
        }
        present = zip(MODALITIES, sample.present[0], strict=True)
        return {modality: arrays[modality] for modality, is_present in present if is_present}

    def validation_errors(self, spec: FeatureSpec, tasks: Sequence[Task]) -> Iterator[str]:
        """Errors in the arrays, as records of this spec and these tasks.

        Only the first error is reliable: each check relies on the earlier checks.
        """
        for name, (dtype, shape) in self._expected(spec, len(tasks)).items():
            array = getattr(self, name)
            if array.dtype.kind != "U" if dtype is np.str_ else array.dtype != dtype:
                yield f"{name} holds {array.dtype}, not {np.dtype(dtype).name}"
            if array.shape != shape:
                yield f"{name} has the shape {array.shape}, not {shape}"
            if array.dtype.kind == "f" and np.isinf(array).any():
                yield f"{name} holds infinite numbers"
        if not len(self):
            yield "the shard holds no record"
        if self.lengths.min() < 0:
            yield "lengths holds negative numbers"
        if len(self.tokens) and not 0 <= self.tokens.min() <= self.tokens.max() < spec.vocabulary:
            yield f"tokens holds ids outside the tokenizer's range of 0 to {spec.vocabulary - 1}"
        for column, task in zip(self.outcomes.T, tasks, strict=True):
            known = column[~np.isnan(column)]
            most = {"binary": 1, "multiclass": len(task.classes) - 1}.get(task.kind, np.inf)
            whole = task.kind in ("regression", "clustering") or (known == known.round()).all()
            if not whole or (known < 0).any() or (known > most).any():
                yield f"outcomes of {task.name} are not valid for a {task.kind} task"

    def _expected(
        self, spec: FeatureSpec, tasks: int
    ) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        """Type and shape of each array, from the number of records, tokens and images."""
        n = self.patient.size
        plain = self.present.dtype == np.bool_ and self.present.ndim == 2
        images = int(self.present[:, -1].sum()) if plain else 0
        tokens = int(self.lengths.sum()) if self.lengths.dtype == np.int64 else 0
        of_text = dict.fromkeys(("patient", "site", "stay"), (np.str_, (n,)))
        return {
            **of_text,
            "landmark": (np.float32, (n,)),
            "present": (np.bool_, (n, len(MODALITIES))),
            "outcomes": (np.float32, (n, tasks)),
            "groups": (np.str_, (n, len(GROUPS))),
            "charted": (np.float32, (n, tasks)),
            "masked": (np.int32, (n,)),
            "tabular": (np.float32, (n, len(spec.tabular_names))),
            "statistics": (np.float32, (n, len(spec.variables), len(STATISTICS))),
            "treatments": (np.float32, (n, len(spec.treatments), len(TREATMENT_FEATURES))),
            "lengths": (np.int64, (n,)),
            "tokens": (np.int32, (tokens,)),
            "pixels": (np.uint8, (images, 1, spec.image_side, spec.image_side)),
        }
