"""Findings: how abnormal a patient is, as modules that are part of the graphs."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from model.knowledge.physiology import FORMULAS
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec
from schemas.features.notes.assertions import CODES_OF_A_DISEASE, STATUSES, SUGGESTIVE_WEIGHT

LARGEST = 1.3  # a more severe value counts as this
_SMALLEST_LOGGED = 1e-3
_GIVEN, _RATE = TREATMENT_FEATURES.index("given"), TREATMENT_FEATURES.index("rate")


def assertion_name(disease: str, status: str) -> str:
    """The name of the finding that notes assert a disease with this status."""
    return f"{disease}: {status}"


class Finding(BaseModel):
    """One finding of `findings.toml`, which describes the fields. It has exactly one source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variable: str | None = None
    column: str | None = None
    formula: str | None = None
    rate_of: str | None = None
    normal: float
    severe: float
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Finding":
        sources = (self.variable, self.column, self.formula, self.rate_of)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("a finding has one variable, column, formula or rate_of")
        if self.formula is not None and self.formula not in FORMULAS:
            raise ValueError(f"no such formula; the formulas are {', '.join(FORMULAS)}")
        if self.normal == self.severe or (self.log and min(self.normal, self.severe) <= 0):
            raise ValueError("normal and severe must differ, and be positive for a logarithm")
        return self

    @property
    def is_high(self) -> bool:
        """Whether high values are abnormal."""
        return self.severe > self.normal


def load_findings(spec: FeatureSpec) -> dict[str, Finding]:
    """The findings of `findings.toml` that this spec can have, by name."""
    text = files("model.knowledge").joinpath("findings.toml").read_text("utf-8")
    findings = {name: Finding(**fields) for name, fields in tomllib.loads(text).items()}
    variables = {variable.name for variable in spec.variables}
    treatments = {treatment.name for treatment in spec.treatments}
    known = variables | treatments | set(spec.tabular_names)
    return {name: f for name, f in findings.items() if known.issuperset(_sources(f))}


def _sources(finding: Finding) -> tuple[str, ...]:
    if finding.formula is not None:
        return FORMULAS[finding.formula][1]
    return (finding.variable or finding.column or finding.rate_of or "",)


class _Severity(nn.Module):
    """Values [B, K] to severities [B, K]. NaN becomes `usual`, which is 0 before `fit`.

    So a missing value counts neither as normal nor as abnormal: it adds about the mean evidence.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__()
        log = torch.tensor([f.log for f in findings], dtype=torch.bool)
        ends = torch.tensor([[f.normal, f.severe] for f in findings]).reshape(-1, 2).T
        normal, severe = torch.where(log, ends.clamp_min(_SMALLEST_LOGGED).log(), ends)
        self.register_buffer("log", log, persistent=False)
        self.register_buffer("normal", normal, persistent=False)
        self.register_buffer("span", severe - normal, persistent=False)
        self.register_buffer("usual", torch.zeros(len(findings)))
        self.log: Tensor
        self.normal: Tensor
        self.span: Tensor
        self.usual: Tensor

    def fit(self, values: Float[Tensor, "n K"]) -> None:
        """Sets the usual severities: the means over the training patients, with NaN as 0.

        The mean of the measured patients would be too high for rare measurements: they are made on
        suspicion.
        """
        self.usual.copy_(torch.nan_to_num(self._severity(values), nan=0.0).mean(dim=0))

    def forward(self, values: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        severity = self._severity(values)
        return torch.where(torch.isnan(severity), self.usual, severity)

    def _severity(self, values: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        scaled = torch.where(self.log, values.clamp_min(_SMALLEST_LOGGED).log(), values)
        return ((scaled - self.normal) / self.span).clamp(0.0, LARGEST)


class TabularFindings(nn.Module):
    """Values [B, F] to findings [B, K]. `names`: of the findings."""

    def __init__(self, findings: Mapping[str, Finding], spec: FeatureSpec) -> None:
        super().__init__()
        own = {name: f for name, f in findings.items() if f.column is not None}
        self.names = tuple(own)
        columns = [spec.tabular_names.index(f.column or "") for f in own.values()]
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.columns: Tensor
        self.severity = _Severity([*own.values()])

    def fit(self, values: Float[Tensor, "n F"]) -> None:
        """Sets the severities that stand for missing values."""
        self.severity.fit(values[:, self.columns])

    def forward(self, values: Float[Tensor, "B F"]) -> Float[Tensor, "B K"]:
        severity: Tensor = self.severity(values[:, self.columns])
        return severity


class NoteFindings(nn.Module):
    """Token ids of notes [B, L] to findings [B, K]: the assertions of each disease.

    A finding is 1 if a note names the disease so, and SUGGESTIVE_WEIGHT for mere evidence of it.
    The names are those of `assertion_name`, by disease and by status.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.first = spec.first_assertion_id
        self.codes = CODES_OF_A_DISEASE * len(spec.assertions)
        self.names = tuple(assertion_name(d, s) for d in spec.assertions for s in STATUSES)

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B K"]:
        column = (tokens - self.first + 1).clamp_min(0)
        occurs = torch.zeros(tokens.shape[0], self.codes + 1, device=tokens.device)
        occurs = occurs.scatter(1, column, 1.0)[:, 1:].unflatten(1, (len(self.names), 2))
        return torch.maximum(occurs[:, :, 0], SUGGESTIVE_WEIGHT * occurs[:, :, 1])


class SeriesFindings(nn.Module):
    """Statistics [B, V, S] and treatments [B, T, 4] to findings [B, K].

    The order is that of `names`: variables, formulas, rates, and the treatments that were given.
    """

    def __init__(self, findings: Mapping[str, Finding], spec: FeatureSpec) -> None:
        super().__init__()
        self.index = {variable.name: i for i, variable in enumerate(spec.variables)}
        measured = {name: f for name, f in findings.items() if f.variable is not None}
        computed = {name: f for name, f in findings.items() if f.formula is not None}
        rates = {name: f for name, f in findings.items() if f.rate_of is not None}
        self.formulas = [FORMULAS[f.formula or ""][0] for f in computed.values()]
        given = tuple(treatment.name for treatment in spec.treatments)
        self.names = (*measured, *computed, *rates, *(given if findings else ()))
        worst = ["maximum" if f.is_high else "minimum" for f in measured.values()]
        for name, indices in {
            "variables": [self.index[f.variable or ""] for f in measured.values()],
            "worst": [STATISTICS.index(statistic) for statistic in worst],
            "rates": [spec.treatment_index[f.rate_of or ""] for f in rates.values()],
        }.items():
            self.register_buffer(name, torch.tensor(indices, dtype=torch.int64), persistent=False)
        self.variables: Tensor
        self.worst: Tensor
        self.rates: Tensor
        self.severity_measured = _Severity([*measured.values()])
        self.severity_computed = _Severity([*computed.values()])
        # Not fitted: a treatment without a rate is not given.
        self.severity_rates = _Severity([*rates.values()])

    def fit(self, statistics: Float[Tensor, "n V S"]) -> None:
        """Sets the severities that stand for variables and formulas without a value."""
        self.severity_measured.fit(torch.cat(self._measured(statistics)))
        self.severity_computed.fit(self._computed(statistics))

    def forward(
        self, statistics: Float[Tensor, "B V S"], treatments: Float[Tensor, "B R 4"]
    ) -> Float[Tensor, "B K"]:
        if not self.names:
            return statistics.new_zeros(len(statistics), 0)
        worst, last = (self.severity_measured(values) for values in self._measured(statistics))
        computed = self.severity_computed(self._computed(statistics))
        rates = self.severity_rates(treatments[:, self.rates, _RATE])
        given = (treatments[:, :, _GIVEN] > 0).to(worst.dtype)
        return torch.cat([(worst + last) / 2, computed, rates, given], dim=1)

    def _measured(self, statistics: Float[Tensor, "B V S"]) -> tuple[Tensor, Tensor]:
        """The worst and the last values of the variables with findings, [B, K] each."""
        last = statistics[:, self.variables, STATISTICS.index("last")]
        return statistics[:, self.variables, self.worst], last

    def _computed(self, statistics: Float[Tensor, "B V S"]) -> Float[Tensor, "B K"]:
        def of(variable: str, statistic: str) -> Tensor:
            return statistics[:, self.index[variable], STATISTICS.index(statistic)]

        values = [formula(of) for formula in self.formulas]
        if not values:
            return statistics.new_zeros(statistics.shape[0], 0)
        return torch.stack(values, dim=1)
