"""The loop that trains every stage: whole batches, AdamW, warm-up and cosine."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from pacx import processes
from pacx.errors import PacxError
from pacx.profile import OptimiserSettings, Precision
from pacx.training.batches import parts_of_batches, seed_step, to_device
from pacx.training.checkpoint import Checkpoint

LOOK_EVERY = 10  # steps between two looks at the losses: on a GPU, each look waits for it
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Stage(nn.Module):
    """What is trained: the networks, how fast they learn, and `forward`, the loss of one batch.

    `forward(*batch, generator)` takes the batch's arrays as tensors and a CPU generator for
    augmentation; it returns the loss, a scalar, and the terms to log by name. Dropout and masks
    draw from torch's own generator. Both are seeded anew for each step.
    """

    betas = (0.9, 0.999)
    #: Whether biases, norms and other 1-D weights are left out of the weight decay.
    decay_matrices_only = False

    def __init__(self, settings: OptimiserSettings, seed: int):
        super().__init__()
        self.settings, self.seed = settings, seed


def fit(
    stage: Stage,
    arrays: list[np.ndarray],
    label: str,
    *,
    folder: Path | None = None,
    steps: int | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    precision: Precision = "fp32",
) -> pd.DataFrame:
    """Train a stage on arrays held in memory (or mapped), whole batches only.

    Processes that have joined (`pacx.processes`) share every batch: each takes its part of the
    rows, and gradients are averaged.

    Args:
        stage: What is trained; `stage.settings` says how long and how fast.
        arrays: Arrays with the same first axis; a batch is one slice of each, in this order.
        label: Shown by the progress bar.
        folder: Gets `history.csv`, what is returned, and of a long training a checkpoint. One that
            was stopped goes on from there, bit for bit on a CPU.
        steps: Stop after so many steps instead of `settings.epochs`.
        clip: Largest norm of the gradient.
        accumulate: Parts that a batch is cut into, one after another, to save memory.
        precision: Of the forward pass: `fp32`, `bf16` or, on a GPU only, `fp16`.

    Returns:
        One row a step: the logged terms, their mean over the parts of the batch.

    Raises:
        PacxError: There are fewer rows than a batch, a batch cannot be divided, the processor
            has no such precision, or the loss became NaN or infinite.
    """
    device, settings = processes.device(), stage.settings
    half = _HALF.get(precision)
    _check(len(arrays[0]), settings.batch_size, accumulate, precision, label)
    total = steps or settings.epochs * (len(arrays[0]) // settings.batch_size)
    stage.to(device).train()
    model = DistributedDataParallel(stage) if processes.world() > 1 else stage
    optimiser = _adamw(stage)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    checkpoint = Checkpoint(folder, stage=stage, optimiser=optimiser, scaler=scaler)
    done, history, unread = *checkpoint.load(), []
    parts = parts_of_batches(arrays, settings.batch_size, accumulate, done, total)
    parts = to_device(parts, device)
    progress = tqdm(total=total, initial=done, desc=label, unit="step",
                    leave=False, disable=processes.rank() > 0)  # fmt: skip

    for step in range(done, total):
        generator = seed_step(stage.seed, step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step, total)
        for _ in range(accumulate):
            with torch.autocast(device.type, half, enabled=half is not None):
                loss, terms = model(*next(parts), generator=generator)
            scaler.scale(loss / accumulate).backward()
            values = [term.detach().float() for term in terms.values()]
            unread.append(torch.stack(values))
        scaler.unscale_(optimiser)
        if clip:
            nn.utils.clip_grad_norm_(stage.parameters(), clip)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()

        if (step + 1) % LOOK_EVERY == 0 or step + 1 == total:
            losses = processes.mean(torch.stack(unread))
            rows = losses.unflatten(0, (-1, accumulate)).mean(1).tolist()
            history += [dict(zip(terms, row, strict=True)) for row in rows]
            unread.clear()
            if not losses.isfinite().all():
                raise PacxError(f"{label}: the loss is NaN or infinite. Lower the learning rate.")
            progress.update(step + 1 - progress.n)
            checkpoint.save(step + 1, history)
    progress.close()
    stage.cpu()
    table = pd.DataFrame(history).assign(step=np.arange(1, total + 1))
    if folder is not None:
        table.to_csv(folder / "history.csv", index=False)
    return table


def learning_rate(settings: OptimiserSettings, step: int, total: int) -> float:
    """The rate of a step: a linear warm-up, then a cosine to zero."""
    warmup = max(1, round(settings.warmup_share * total))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _adamw(stage: Stage) -> torch.optim.AdamW:
    trained = [p for p in stage.parameters() if p.requires_grad]
    free = [p for p in trained if stage.decay_matrices_only and p.ndim < 2]
    decayed = [p for p in trained if not (stage.decay_matrices_only and p.ndim < 2)]
    groups = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    decay = stage.settings.weight_decay
    return torch.optim.AdamW(groups, betas=stage.betas, weight_decay=decay, fused=True)


def _check(rows: int, batch: int, accumulate: int, precision: Precision, label: str) -> None:
    if rows < batch:
        raise PacxError(f"{label}: {rows} training rows are fewer than one batch of {batch}.")
    if batch % (processes.world() * accumulate):
        raise PacxError(
            f"{label}: a batch of {batch} cannot be divided among {processes.world()} processes "
            f"in {accumulate} parts. Change batch_size, accumulate or the number of processes."
        )
    if precision == "fp16" and processes.device().type == "cpu":
        raise PacxError(f"{label}: precision fp16 needs a GPU. Choose bf16 or fp32.")
