"""A network of some of the tasks, with its losses."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.network.checkpoint import build_net
from model.network.losses import Losses
from model.training.preparation import PreparedTraining
from schemas.tasks import select_tasks


class TaskNetwork:
    """A new network of all tasks, or of `tasks` by name, with its losses.

    A network of some tasks starts with the weights that a network of all tasks has for them.
    """

    def __init__(self, prepared: PreparedTraining, *, tasks: Sequence[str] | None = None) -> None:
        self.prepared, self.config = prepared, prepared.config
        self.device, self.processes = prepared.device, prepared.processes
        all_tasks = prepared.facts.tasks
        names = [t.name for t in all_tasks] if tasks is None else tasks
        self.columns = [i for i, t in enumerate(all_tasks) if t.name in names]
        own_tasks = select_tasks(all_tasks, names)
        self.facts = prepared.facts.model_copy(update={"tasks": own_tasks})
        torch.manual_seed(self.config.seed)
        self.net = build_net(self.facts)
        self.net.encoders.load_state_dict(prepared.label_free(), strict=False)
        if tasks is not None:
            torch.manual_seed(self.config.seed)
            complete = build_net(prepared.facts)
            complete.encoders.load_state_dict(prepared.label_free(), strict=False)
            self.net.copy_from(complete, self.columns)
        self.losses = Losses(list(own_tasks), self.facts.prevalence, prepared.prototypes)
        self.losses.to(self.device.torch_device)

    def losses_of(
        self, raw: dict[str, Tensor], rows: Tensor, active: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The mean losses by kind, for the raw outputs of the samples `rows`."""
        device, columns = self.device.torch_device, self.columns
        losses: dict[str, Tensor] = self.losses(
            raw,
            self.prepared.data.outcomes[rows][:, columns].to(device),
            self.prepared.offset[rows][:, columns].to(device),
            self.prepared.statistics[rows].to(device),
            active,
        )
        return losses
