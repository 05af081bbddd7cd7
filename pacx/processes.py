"""Several processes of one training: which of them this is, and waiting for the others.

A process that was started alone is number 0 of 1 and waits for nobody. Lightning is imported where
it is needed: that takes a second, and only trainings need it.
"""

import os
from datetime import timedelta

import torch
from torch import distributed

from pacx.errors import PacxError

#: How long one process may be busy with what the others wait for, such as decoding a data set.
PATIENCE = timedelta(hours=12)


def join_processes() -> None:
    """Join the other processes that `torchrun` or SLURM's `srun` started for this training.

    Raises:
        PacxError: What the starter says of their number does not fit together.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
    from lightning.fabric.strategies import DDPStrategy

    kinds = [kind for kind in (TorchElasticEnvironment, SLURMEnvironment) if kind.detect()]
    try:
        together = kinds[0]().world_size() if kinds else 1
        if together > 1:
            Fabric(strategy=DDPStrategy(timeout=PATIENCE), **_layout(together)).launch()
    except (ValueError, RuntimeError) as error:
        raise PacxError(
            f"These processes cannot train together: {error} To train in this one alone inside a "
            "SLURM job, unset SLURM_NTASKS."
        ) from error


def trainer_settings() -> dict:
    """What Lightning's `Trainer` must be told: all joined processes, or this one alone."""
    if world() > 1:
        return {"strategy": "ddp", **_layout(world())}
    from lightning.fabric.plugins.environments import LightningEnvironment

    # Alone also inside a job that was given more, and on a machine with several GPUs.
    return {"devices": 1, "plugins": [LightningEnvironment()]}


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


def gather(value: object) -> list:
    """The values of all processes, in their order."""
    values = [value] * world()
    if world() > 1:
        distributed.all_gather_object(values, value)
    return values


def own_seed(seed: int) -> int:
    """A seed of this process, so that no two of them augment or drop alike."""
    return seed + rank()


def device() -> torch.device:
    """Where this process computes: its GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _layout(together: int) -> dict[str, int]:
    """Processes on each machine, and machines, as the starter says."""
    on_each = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE")
    on_each = int(on_each or together // int(os.environ.get("SLURM_NNODES", "1")))
    return {"devices": on_each, "num_nodes": max(1, together // on_each)}
