"""The device that a process trains on, and the precision that it computes in."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.errors import UserError
from model.training.distributed import ALONE, Processes

DeviceName = Literal["auto", "cpu", "cuda"]


class DeviceError(UserError):
    """A device was asked for that is not there."""


@dataclass(frozen=True)
class Device:
    """Where members are trained.

    `bf16`: products of matrices in bfloat16 while a member learns. Weights, optimiser, running
    mean, losses, and all that is validated, calibrated and served are float32 in any case.
    `sharers`: processes that share the device.
    """

    where: torch.device
    bf16: bool = False
    sharers: int = 1

    @classmethod
    def choose(cls, name: DeviceName, processes: Processes = ALONE) -> "Device":
        """`auto` takes a CUDA GPU if there is one; a machine's processes are dealt to its GPUs.

        Raises DeviceError if CUDA was asked for and is not there.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if name == "cuda" and not gpus:
            built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
            raise DeviceError(
                f"device cuda: there is no CUDA GPU here (PyTorch {torch.__version__} is built "
                f"{built}); take auto or cpu, or install the GPU's driver and a PyTorch for it"
            )
        if name == "cpu" or not gpus:
            return CPU
        where = torch.device("cuda", processes.local_rank % gpus)
        torch.cuda.set_device(where)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return cls(where, bf16, -(-processes.local_size // gpus))

    def __str__(self) -> str:
        return f"{self.where} in {'bf16' if self.bf16 else 'fp32'}"

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.where.type, torch.bfloat16, enabled=self.bf16)

    def keep(self, tensor: Tensor) -> Tensor:
        """On the device if no more than half of its free memory is taken by it; else as it is."""
        if self.where.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.where)
            if tensor.nbytes > free / 2 / self.sharers:
                return tensor
        return tensor.to(self.where)


CPU = Device(torch.device("cpu"))
