"""The ledger: what happens to the input while features are made, gathered for the receipt."""

from dataclasses import dataclass, field

from schemas.payload import FieldError
from schemas.response import Converted, Ignored, Merged, Modality, ReadAs, Reason, Used


@dataclass
class Ledger:
    """What happens to the input on the way, gathered for the receipt."""

    used: dict[str, Used]
    treatments: dict[str, None]
    converted: list[Converted]
    merged: list[Merged]
    ignored: list[Ignored]
    warnings: list[str]
    errors: list[FieldError]
    read_as: list[ReadAs] = field(default_factory=list)
    # Modalities that are unlike those of the training on sight, with the warning that says so.
    unlike: dict[Modality, str] = field(default_factory=dict)

    def ignore(self, pointer: str, reason: Reason, detail: str, count: int | None = None) -> None:
        self.ignored.append(
            Ignored(pointer=pointer, reason=reason, detail=detail, observations=count)
        )

    def read(self, pointer: str, read_as: str, detail: str, count: int | None = None) -> None:
        self.read_as.append(
            ReadAs(pointer=pointer, read_as=read_as, detail=detail, observations=count)
        )

    def fail(self, pointer: str, rule: str, detail: str) -> None:
        self.errors.append(FieldError(pointer=pointer, rule=rule, detail=detail))
