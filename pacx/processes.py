"""Several processes of one training: which of them this is, where it computes, and waiting.

A process that was started alone is number 0 of 1 and waits for no other.
"""

import os
import re
import signal
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn

from pacx.errors import PacxError

#: How long one process may be busy with what the others wait for, such as decoding a data set.
PATIENCE = timedelta(hours=12)


def join_processes() -> None:
    """Join the processes that `torchrun`, `accelerate launch` or SLURM's `srun` started together.

    Raises:
        PacxError: The starter says too little, or the others cannot be reached.
    """
    environment = os.environ
    if "RANK" not in environment and int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        environment |= _of_slurm(environment)
    if int(environment.get("WORLD_SIZE", 1)) == 1:
        return
    try:
        if torch.cuda.is_available():  # SLURM may show each process its own GPU only
            local = int(environment.get("LOCAL_RANK", 0))
            torch.cuda.set_device(local % torch.cuda.device_count())
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise PacxError(
            f"These processes cannot train together: {error} To train in one process, unset "
            "WORLD_SIZE, or in a SLURM job SLURM_STEP_NUM_TASKS."
        ) from error


def rank() -> int:
    """Number of this process; 0 keeps what all have made."""
    return distributed.get_rank() if world() > 1 else 0


def world() -> int:
    """How many processes train together."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def wait() -> None:
    """Go on when every process has come here."""
    if world() > 1:
        distributed.barrier()


def agree(value: bool) -> bool:
    """The value of the first process."""
    values = [value]
    if world() > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def mean(values: Tensor) -> Tensor:
    """The mean over all processes."""
    if world() > 1:
        distributed.all_reduce(values)
    return values / world()


def device() -> torch.device:
    """Where this process computes: its GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def end_quietly() -> None:
    """Let Ctrl-C end this worker without a word: its starter has one."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


@torch.no_grad()
def infer(
    model: nn.Module,
    call: Callable[..., Tensor],
    *arrays: np.ndarray | Tensor,
    size: int = 256,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """What a network makes of arrays, batch by batch on `device()`.

    Args:
        model: Moved there for this call, then back to the CPU.
        call: Takes a batch of each array as tensors on the device: the model, a method of it, or
            what uses it.
        *arrays: (N, ...) each.
        size: Rows of a batch.
        out: (N, ...) that is filled, such as a memory map; a new array when None.

    Returns:
        `out`.
    """
    model.to(device())
    for start in range(0, len(arrays[0]) or 1, size):
        rows = slice(start, start + size)
        batch = [torch.from_numpy(np.require(array[rows], None, "CW")) for array in arrays]
        part = call(*[tensor.to(device()) for tensor in batch]).cpu().numpy()
        if out is None:
            out = np.empty((len(arrays[0]), *part.shape[1:]), part.dtype)
        out[rows] = part
    model.cpu()
    return out


def _of_slurm(job: dict[str, str]) -> dict[str, str]:
    """What `torchrun` would have set; the first process is on the first machine of the list."""
    first = re.sub(r"\[(\d+).*", r"\1", job["SLURM_STEP_NODELIST"]).split(",")[0]
    return {
        "RANK": job["SLURM_PROCID"],
        "LOCAL_RANK": job["SLURM_LOCALID"],
        "WORLD_SIZE": job["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": job.get("MASTER_ADDR", first),
        "MASTER_PORT": job.get("MASTER_PORT", str(20_000 + int(job["SLURM_JOB_ID"]) % 20_000)),
    }
