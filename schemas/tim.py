"""TIM, the task interaction matrix: how much learning one task helps another."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TIM = "tim.json"

Row = tuple[float | None, ...]

DEFINITION = (
    "A cell of the matrix states how much learning the task of its column helps the task of its "
    "row (the source). It is the Shapley value of the column's task in a game whose players are "
    "the other tasks. The value of a coalition is the metric of the source on held-out hospitals "
    "when it is learned together with the coalition (arXiv 2404.18975, our reading). The metric "
    "is AUROC for a disease and for mortality, macro-AUROC for the disposition, R² of log-days "
    "for the length of stay, and for the phenotype the share of the variance of standardised "
    "vital signs and laboratory values that lies between the clusters. A row adds up to "
    "multitask_gain: the gain of learning all tasks together over learning the source alone, with "
    "one network for each coalition. lower and upper are the 95 % confidence interval of the "
    "cell, gain_lower and gain_upper that of the gain. The intervals cover chance in the sampled "
    "coalitions, the seeds and the test patients. certain marks the cells that differ from 0 at a "
    "false discovery rate of 5 %. null means not measured, as on the diagonal. The matrix "
    "describes what networks learned from these data. It does not state which disease causes "
    "which."
)


class Agreement(BaseModel):
    """A correlation with its 95 % confidence interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    lower: float
    upper: float


class Tim(BaseModel):
    """The matrix and its uncertainty. Rows are `sources`, the tasks that are helped."""

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
        description="Split-half reliability: the correlation of the matrices from two halves of "
        "the coalitions, after subtraction of the row means; null if half of the coalitions are "
        "too few for a matrix",
    )
    attention_agreement: Agreement | None = Field(
        None, description="Rank correlation of mean_attention and the matrix, within rows"
    )
    coalitions: int = Field(ge=0)
    patients: int = Field(ge=0)
    cohort: str = Field("", description="Digest of the cohort for training and testing")
    command: str = ""

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        rows, columns = len(self.sources), len(self.tasks)
        if len(set(self.sources)) < rows or len(set(self.tasks)) < columns:
            raise ValueError("sources and tasks must each be unique")
        for name in ("matrix", "lower", "upper", "certain", "mean_attention"):
            table = getattr(self, name)
            if len(table) != rows or any(len(row) != columns for row in table):
                raise ValueError(f"{name} must be {rows} rows of {columns} cells")
        for name in ("multitask_gain", "gain_lower", "gain_upper", "metric"):
            if len(getattr(self, name)) != rows:
                raise ValueError(f"{name} must have {rows} entries")
        return self

    def select_source(self, source: str, top: int | None = None) -> Self:
        """Returns the row of one source.

        With `top`, only its `top` largest cells by absolute value, in descending order.

        Raises ValueError: the source is unknown.
        """
        row = self.sources.index(source)
        columns = list(range(len(self.tasks)))
        if top is not None:
            measured = [c for c in columns if self.matrix[row][c] is not None]
            columns = sorted(measured, key=lambda c: -abs(self.matrix[row][c] or 0.0))[:top]
        tables = {
            name: (tuple(getattr(self, name)[row][c] for c in columns),)
            for name in ("matrix", "lower", "upper", "certain", "mean_attention")
        }
        return self.model_copy(
            update={
                **tables,
                "sources": (source,),
                "tasks": tuple(self.tasks[c] for c in columns),
                **{
                    name: (getattr(self, name)[row],)
                    for name in ("multitask_gain", "gain_lower", "gain_upper", "metric")
                },
            }
        )
