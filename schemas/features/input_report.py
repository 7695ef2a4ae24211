"""A record of how the input was used, collected for the receipt while features are extracted."""

from dataclasses import dataclass, field

from schemas.payload import FieldError
from schemas.response import (
    Converted,
    Ignored,
    Merged,
    MergeReason,
    Modality,
    ReadAs,
    Reason,
    UsedVariable,
)


@dataclass
class InputReport:
    """The entries and warnings of the receipt, and the errors of the request.

    `used`: by variable name. `treatments`: names in order, as the keys of a dictionary.
    `out_of_distribution`: by modality that is clearly unlike the training data, the warning.
    """

    used: dict[str, UsedVariable] = field(default_factory=dict)
    treatments: dict[str, None] = field(default_factory=dict)
    converted: list[Converted] = field(default_factory=list)
    merged: list[Merged] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[FieldError] = field(default_factory=list)
    read_as: list[ReadAs] = field(default_factory=list)
    out_of_distribution: dict[Modality, str] = field(default_factory=dict)

    def add_ignored(
        self, pointer: str, reason: Reason, detail: str, count: int | None = None
    ) -> None:
        self.ignored.append(
            Ignored(pointer=pointer, reason=reason, detail=detail, observations=count)
        )

    def add_read_as(
        self, pointer: str, read_as: str, detail: str, count: int | None = None
    ) -> None:
        self.read_as.append(
            ReadAs(pointer=pointer, read_as=read_as, detail=detail, observations=count)
        )

    def add_error(self, pointer: str, rule: str, detail: str) -> None:
        self.errors.append(FieldError(pointer=pointer, rule=rule, detail=detail))

    def add_converted(self, pointer: str, variable: str, from_unit: str, to_unit: str) -> None:
        self.converted.append(
            Converted(pointer=pointer, variable=variable, from_unit=from_unit, to_unit=to_unit)
        )

    def add_merged(
        self, variable: str, reason: MergeReason, pointers: tuple[str, ...], count: int
    ) -> None:
        self.merged.append(
            Merged(variable=variable, reason=reason, pointers=pointers, observations=count)
        )
