"""Usage counts for the dashboard (`GET /usage`): totals since the start, and no patient's value.

`/metrics` has more detail and is for the cluster. `/usage` is for every caller of the service.
"""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict, Field

from schemas.response import MODALITIES, Modality


class Usage(BaseModel):
    """Counts since the service started, summed over all workers."""

    model_config = ConfigDict(frozen=True)

    predictions: int = Field(description="Number of predictions; each item of a batch counts")
    requests: Mapping[str, int] = Field(description="Number of responses by HTTP status")
    modalities: Mapping[Modality, int] = Field(
        description="Number of predictions whose request had the modality"
    )
    variables: Mapping[str, int] = Field(
        description="Number of predictions whose request had a usable value of the variable"
    )
    ignored: Mapping[str, int] = Field(description="Number of ignored inputs by reason")


def parse_usage(metrics: bytes) -> Usage:
    """Reads the usage counts from metrics in the Prometheus text format."""
    families = {
        family.name: family.samples for family in text_string_to_metric_families(metrics.decode())
    }

    def sum_by(name: str, label: str) -> dict[str, int]:
        sums: dict[str, int] = {}
        for sample in families.get(name, []):
            if sample.name == f"{name}_total":
                key = sample.labels.get(label, "")
                sums[key] = sums.get(key, 0) + int(sample.value)
        return sums

    present = sum_by("m3h_modality_present", "modality")
    return Usage(
        predictions=sum(sum_by("m3h_predictions", "").values()),
        requests=sum_by("m3h_requests", "status"),
        modalities={modality: present.get(modality, 0) for modality in MODALITIES},
        variables=sum_by("m3h_variable_present", "variable"),
        ignored=sum_by("m3h_input_ignored", "reason"),
    )
