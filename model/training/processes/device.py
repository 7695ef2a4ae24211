"""The device of a process, and the precision of its matrix products."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.errors import UserError
from model.training.processes.distributed import SINGLE_PROCESS, ProcessGroup

DeviceName = Literal["auto", "cpu", "cuda"]


class DeviceError(UserError):
    """The requested device does not exist."""


@dataclass(frozen=True)
class Device:
    """The device on which members are trained.

    `bf16`: whether matrix products of the training use bfloat16. Weights, optimiser, averaged
    weights, losses, validation, calibration and all served numbers are float32 in any case.
    `sharers`: the number of processes that share the device.
    """

    torch_device: torch.device
    bf16: bool = False
    sharers: int = 1

    @classmethod
    def choose(cls, name: DeviceName, processes: ProcessGroup = SINGLE_PROCESS) -> "Device":
        """`auto` is a CUDA GPU if there is one. The processes of a machine take turns on its GPUs.

        Raises DeviceError if `name` is cuda and there is no CUDA GPU.
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
        torch_device = torch.device("cuda", processes.local_rank % gpus)
        torch.cuda.set_device(torch_device)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return cls(torch_device, bf16, -(-processes.local_size // gpus))

    def __str__(self) -> str:
        return f"{self.torch_device} in {'bf16' if self.bf16 else 'fp32'}"

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.bf16)

    def move_if_fits(self, tensor: Tensor) -> Tensor:
        """The tensor on the device; unchanged if it would take over half of this process's share
        of the free memory.
        """
        if self.torch_device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.torch_device)
            if tensor.nbytes > free / 2 / self.sharers:
                return tensor
        return tensor.to(self.torch_device)


CPU = Device(torch.device("cpu"))
