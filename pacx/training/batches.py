"""The batches of a training, and the randomness of its steps."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pacx import processes


def seed_step(seed: int, step: int) -> torch.Generator:
    """Seed all randomness of a step: a function of the seed, the step and the process."""
    entropy = np.random.SeedSequence([seed, step, processes.rank()])
    own, torchs = (int(word) for word in entropy.generate_state(2, np.uint64))
    torch.manual_seed(torchs)
    return torch.Generator().manual_seed(own)


def parts_of_batches(
    arrays: list[np.ndarray], batch: int, accumulate: int, first: int, total: int
) -> Iterator[list[Tensor]]:
    """This process's part of every batch, from the step `first` on; each epoch is shuffled anew.

    The order is seeded by the number of rows, not by the stage: models that are compared see the
    same batches.
    """
    rows, epoch_of_order = len(arrays[0]), -1
    for step in range(first, total):
        epoch, start = divmod(step, rows // batch)
        if epoch != epoch_of_order:
            order, epoch_of_order = np.random.default_rng([rows, epoch]).permutation(rows), epoch
        own = order[start * batch : (start + 1) * batch][processes.rank() :: processes.world()]
        for part in (own[i::accumulate] for i in range(accumulate)):
            yield [torch.from_numpy(np.ascontiguousarray(array[part])) for array in arrays]


def to_device(parts: Iterator[list[Tensor]], device: torch.device) -> Iterator[list[Tensor]]:
    """Copy to the device; to a GPU on a stream beside its computing: the host is a step ahead."""
    copies = torch.cuda.Stream() if device.type == "cuda" else None
    for part in parts:
        if copies is None:
            part = [tensor.to(device) for tensor in part]
        else:
            with torch.cuda.stream(copies):
                part = [tensor.pin_memory().to(device, non_blocking=True) for tensor in part]
            torch.cuda.current_stream().wait_stream(copies)
            for tensor in part:
                tensor.record_stream(torch.cuda.current_stream())
        yield part
