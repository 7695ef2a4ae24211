"""TIM, the task interaction matrix: how learning each task helps each other one."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TIM = "tim.json"

Row = tuple[float | None, ...]

DEFINITION = (
    "A cell of the matrix says how much learning the task of its column helps the task of its row "
    "(the source): the Shapley value of the one in the game whose worth is the other's metric on "
    "hospitals held out, when both are learned together with any of the remaining tasks "
    "(arXiv 2404.18975, our reading). The metric is AUROC for a disease and for mortality, "
    "macro-AUROC for the disposition, R² of log-days for the length of stay, and for the phenotype "
    "the share of the variance of standardised vital signs and laboratory values that lies between "
    "the clusters. A row adds up to multitask_gain: what learning all tasks together brings that "
    "task, over learning it alone, with the models that were trained for this matrix, one network "
    "each. lower and upper hold the cell, gain_lower and gain_upper the gain, with 95 % "
    "confidence, by chance in the coalitions that were drawn, in the seeds, and in the patients "
    "that were tested. certain marks the cells that "
    "are not 0 at a false discovery rate of 5 %. null: not measured, as on the diagonal. It says "
    "what networks learned from these data, not which disease causes which."
)


class Agreement(BaseModel):
    """A correlation, and its 95 % confidence interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    lower: float
    upper: float


class Tim(BaseModel):
    """The matrix and how sure it is. Rows are `sources`, the tasks helped; columns are `tasks`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    definition: str = DEFINITION
    bundle: str | None = Field(None, description="SHA-256 of the bundle's manifest")
    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    matrix: tuple[Row, ...]
    lower: tuple[Row, ...]
    upper: tuple[Row, ...]
    certain: tuple[tuple[bool, ...], ...]
    multitask_gain: Row
    gain_lower: Row
    gain_upper: Row
    metric: tuple[str, ...]
    mean_attention: tuple[Row, ...]
    halves: Agreement | None = Field(
        None,
        description="Correlation of the matrices that two halves of the coalitions give, each row "
        "about its mean; null if half of them are too few for a matrix",
    )
    attention_agreement: Agreement | None = Field(
        None, description="Rank correlation of mean_attention with the matrix, within rows"
    )
    coalitions: int = Field(ge=0)
    patients: int = Field(ge=0)
    cohort: str = Field("", description="Digest of the cohort that was learned from and tested on")
    command: str = ""

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        rows, columns = len(self.sources), len(self.tasks)
        if len(set(self.sources)) < rows or len(set(self.tasks)) < columns:
            raise ValueError("a task stands twice")
        for name in ("matrix", "lower", "upper", "certain", "mean_attention"):
            table = getattr(self, name)
            if len(table) != rows or any(len(row) != columns for row in table):
                raise ValueError(f"{name} must be {rows} rows of {columns} cells")
        for name in ("multitask_gain", "gain_lower", "gain_upper", "metric"):
            if len(getattr(self, name)) != rows:
                raise ValueError(f"{name} must have {rows} entries")
        return self

    def of(self, source: str, top: int | None = None) -> Self:
        """The row of one source; of its columns the `top` largest by absolute value, in that order.

        Raises ValueError if there is no such source.
        """
        row = self.sources.index(source)
        columns = list(range(len(self.tasks)))
        if top is not None:
            told = [c for c in columns if self.matrix[row][c] is not None]
            columns = sorted(told, key=lambda c: -abs(self.matrix[row][c] or 0.0))[:top]
        picked = {
            name: (tuple(getattr(self, name)[row][c] for c in columns),)
            for name in ("matrix", "lower", "upper", "certain", "mean_attention")
        }
        return self.model_copy(
            update={
                **picked,
                "sources": (source,),
                "tasks": tuple(self.tasks[c] for c in columns),
                **{
                    name: (getattr(self, name)[row],)
                    for name in ("multitask_gain", "gain_lower", "gain_upper", "metric")
                },
            }
        )
