"""`NetConfig`: the size and the form of the network."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.response import Modality

Share = Annotated[float, Field(ge=0, lt=1)]
# Group normalisation divides the channels into eight groups.
Channels = Annotated[int, Field(ge=8, le=4_096, multiple_of=8)]
TreeCount = Annotated[int, Field(ge=0, le=10_000)]
_INPUT_DROPOUT: dict[Modality, float] = {"tabular": 0.1, "series": 0.3, "notes": 0.2, "image": 0.3}
_TREES: dict[Modality, int] = {"tabular": 20, "series": 60}


class NetConfig(BaseModel):
    """The size and the form of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # "words", or the local Hugging Face folder of a BERT (Bio_ClinicalBERT, BioBERT).
    notes_encoder: str = "words"
    # "pixels", or the file with a DenseNet's weights (CheXNet, torchxrayvision, torchvision).
    image_encoder: str = "pixels"
    # The forms of `CrossTaskAttention`. "none" is a shared trunk without attention.
    attention: Literal["balanced", "published", "none"] = "balanced"
    # Whether findings add the log-odds of their expected effects (`model.knowledge`).
    clinical_effects: bool = True
    # Boosted trees of each member for each binary task, by modality. An empty table: none.
    trees: dict[Modality, TreeCount] = _TREES
    # Groups of tasks, by name. Each group has its own trunk, and attention stays within the group.
    # If there are groups, each task is in exactly one. Empty: all tasks share one trunk.
    groups: tuple[tuple[str, ...], ...] = ()
    width: int = Field(256, ge=1, le=65_536)
    task_width: int = Field(32, ge=1, le=4_096)
    image_channels: tuple[Channels, ...] = Field((8, 16, 32, 64), min_length=1)
    # Number of phenotypes: of 3 to 8, the number on which bootstraps of hospitals agree most
    # (eICU, k-means).
    clusters: int = Field(5, ge=1, le=1_000)
    dropout: Share = 0.5
    # Dropout on the representations. A modality that is not named keeps its default.
    input_dropout: dict[Modality, Share] = _INPUT_DROPOUT

    @field_validator("input_dropout")
    @classmethod
    def _add_defaults(cls, shares: dict[Modality, float]) -> dict[Modality, float]:
        return {**_INPUT_DROPOUT, **shares}

    @field_validator("trees")
    @classmethod
    def _check_trees(cls, counts: dict[Modality, int]) -> dict[Modality, int]:
        if not counts.keys() <= _TREES.keys():
            raise ValueError(f"the modalities with trees are {' and '.join(_TREES)}")
        return counts

    def tree_count(self, modality: Modality) -> int:
        """The trees of each member for a binary task."""
        return self.trees.get(modality, 0)

    @property
    def trunks(self) -> int:
        return max(1, len(self.groups))

    def group_of(self, task: str) -> int:
        """The number of the task's group; 0 if there are no groups."""
        return next((i for i, group in enumerate(self.groups) if task in group), 0)
