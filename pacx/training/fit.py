"""What all stages share: batches of arrays, AdamW with warm-up and cosine, one training loop."""

import logging
import math
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler
from tqdm import tqdm

from pacx import processes
from pacx.errors import PacxError
from pacx.profile import OptimiserSettings, Precision
from pacx.run import CHECKPOINT

CHECKPOINT_SECONDS = 300  # between two checkpoints; shorter trainings write none

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Stage(L.LightningModule):
    """A training stage: one AdamW, linear warm-up, cosine to zero, and a history of losses.

    Subclasses write `training_step` and return the loss.
    """

    betas = (0.9, 0.999)
    #: Whether biases, norms and other 1-D weights are left out of the weight decay.
    decay_matrices_only = False

    def __init__(self, settings: OptimiserSettings, seed: int):
        super().__init__()
        self.settings = settings
        # Augmentation and hidden labs draw from here, the same on every device. The MAE's masks and
        # dropout draw from torch's own generator.
        self.draws = torch.Generator().manual_seed(processes.own_seed(seed))
        self.history: list[dict[str, float]] = []

    def note(self, **terms: torch.Tensor) -> None:
        """Keep the terms of this batch's loss for the training curve, the mean over processes."""
        values = torch.stack([term.detach().float() for term in terms.values()])
        if processes.world() > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")
        self.history.append(dict(zip(terms, values.tolist(), strict=True)))

    def configure_optimizers(self):
        """AdamW, stepped once a batch through warm-up and cosine."""
        trained = [p for p in self.parameters() if p.requires_grad]
        free = [p for p in trained if p.ndim < 2] if self.decay_matrices_only else []
        decayed = [p for p in trained if not (self.decay_matrices_only and p.ndim < 2)]
        # A fused optimiser unscales 16-bit gradients in its step, too late to clip them.
        clips_half = self.trainer.gradient_clip_val and self.trainer.precision != "32-true"
        optimiser = torch.optim.AdamW(
            [{"params": decayed}, {"params": free, "weight_decay": 0.0}],
            lr=self.settings.learning_rate,
            betas=self.betas,
            weight_decay=self.settings.weight_decay,
            fused=None if clips_half else True,
        )
        total = self.trainer.estimated_stepping_batches
        warmup = max(1, round(self.settings.warmup_share * total))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def fit(
    stage: Stage,
    arrays: list[np.ndarray],
    label: str,
    *,
    folder: Path | None = None,
    steps: int = -1,
    clip: float | None = None,
    accumulate: int = 1,
    precision: Precision = "32-true",
) -> pd.DataFrame:
    """Train a stage on arrays held in memory (or mapped), whole batches only.

    Processes that have joined (`pacx.processes`) share every batch: each takes its part of the
    rows, and gradients are averaged.

    Args:
        stage: The module; `stage.settings` says how long and how fast.
        arrays: Arrays with the same first axis; a batch is one slice of each, in this order.
        label: Shown by the progress bar.
        folder: Where a long training keeps a checkpoint; one that is there is gone on from, bit
            for bit on a CPU.
        steps: Stop after so many steps instead of `settings.epochs`.
        clip: Largest norm of the gradient.
        accumulate: Parts that a batch is cut into, one after another, to save memory.
        precision: Of the forward and backward pass, in Lightning's words.

    Returns:
        One row a step: the terms that the stage noted, the mean over the parts of the batch.

    Raises:
        PacxError: There are fewer rows than a batch, a batch cannot be divided, the processor
            has no such precision, or the loss became NaN or infinite.
    """
    batch, rows = stage.settings.batch_size, len(arrays[0])
    if rows < batch:
        raise PacxError(f"{label}: {rows} training rows are fewer than one batch of {batch}.")
    if batch % (processes.world() * accumulate):
        raise PacxError(
            f"{label}: a batch of {batch} cannot be divided among {processes.world()} processes "
            f"in {accumulate} parts. Change batch_size, accumulate or the number of processes."
        )
    if precision == "16-mixed" and processes.device().type == "cpu":
        raise PacxError(f"{label}: precision 16-mixed needs a GPU. Choose bf16-mixed or 32-true.")
    total = steps if steps > 0 else stage.settings.epochs * (rows // batch)
    order = _Order(rows, batch, total, accumulate)
    if processes.rank():
        torch.manual_seed(processes.own_seed(torch.initial_seed()))  # of dropout and masks
    loader = DataLoader(_Arrays(arrays), sampler=order, batch_size=None)
    callbacks, start = [_Progress(label, total)], None
    if folder is not None:
        callbacks.append(_Checkpoints(folder / CHECKPOINT, order))
        start = folder / CHECKPOINT if (folder / CHECKPOINT).is_file() else None
    trainer = L.Trainer(
        max_steps=total,
        max_epochs=-1,
        gradient_clip_val=clip,
        accumulate_grad_batches=accumulate,
        precision=precision,
        use_distributed_sampler=False,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **processes.trainer_settings(),
    )
    with warnings.catch_warnings():
        # The arrays are in memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # `_Checkpoints` winds the order of batches on, which Lightning cannot see.
        warnings.filterwarnings("ignore", ".*dataloader is not resumable.*")
        trainer.fit(stage, loader, ckpt_path=start, weights_only=True)
    parts = pd.DataFrame(stage.history)
    history = parts.groupby(np.arange(len(parts)) // accumulate).mean()
    return history.assign(step=np.arange(1, len(history) + 1))


class _Order(Sampler):
    """Row numbers of this process's batches for a whole training, each epoch shuffled anew.

    The order is seeded by the number of rows: encoders that are compared see the same batches
    whatever their seed, and processes that train together agree.

    Attributes:
        done: How many batches to pass over.
        random: State of torch's generators after them.
    """

    def __init__(self, rows: int, batch: int, total: int, parts: int):
        self.rows, self.batch, self.total, self.parts = rows, batch, total, parts
        self.done, self.random = 0, None

    def __len__(self) -> int:
        return self.total * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        shuffled = RandomSampler(
            range(self.rows), generator=torch.Generator().manual_seed(self.rows)
        )
        epoch = BatchSampler(shuffled, self.batch, drop_last=True)
        for step in range(self.total):
            if step == self.done and self.random is not None:
                torch.set_rng_state(self.random["cpu"])
                torch.cuda.set_rng_state_all(self.random["cuda"])
            if step % len(epoch) == 0:
                batches = iter(epoch)
                if step:  # a loader draws once for each epoch, Lightning has seen only one
                    torch.empty((), dtype=torch.int64).random_()
            batch = next(batches)
            if step >= self.done:
                own = batch[processes.rank() :: processes.world()]
                yield from (own[part :: self.parts] for part in range(self.parts))


class _Checkpoints(L.Callback):
    """Writes a checkpoint now and then, with what Lightning leaves out: order and randomness."""

    def __init__(self, file: Path, order: _Order):
        self.file, self.order, self.written = file, order, time.monotonic()

    def on_train_batch_end(self, trainer, stage, outputs, batch, batch_idx):
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        due = whole and time.monotonic() - self.written >= CHECKPOINT_SECONDS
        if trainer.strategy.broadcast(due):
            partial = self.file.with_suffix(".partial")
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                os.replace(partial, self.file)
            self.written = time.monotonic()

    def on_save_checkpoint(self, trainer, stage, checkpoint):
        own = {
            "random": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
            "draws": {name: draws.get_state() for name, draws in _draws_of(stage)},
        }
        checkpoint["pacx"] = {
            "done": trainer.global_step,
            "history": stage.history,
            "processes": processes.gather(own),
        }

    def on_load_checkpoint(self, trainer, stage, checkpoint):
        kept = checkpoint["pacx"]
        if len(kept["processes"]) != processes.world():
            raise PacxError(
                f"{self.file} is of a training in {len(kept['processes'])} processes, this one "
                f"has {processes.world()}. Start as many, or delete the file to start anew."
            )
        own = kept["processes"][processes.rank()]
        self.order.done, self.order.random = kept["done"], own["random"]
        for name, draws in _draws_of(stage):
            draws.set_state(own["draws"][name].cpu())
        stage.history[:] = kept["history"]


def _draws_of(stage: Stage) -> list[tuple[str, torch.Generator]]:
    """The generators of a stage and its parts."""
    return [(name, m.draws) for name, m in stage.named_modules() if hasattr(m, "draws")]


class _Arrays(Dataset):
    def __init__(self, arrays: list[np.ndarray]):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: list[int]) -> list[torch.Tensor]:
        return [torch.from_numpy(np.ascontiguousarray(array[rows])) for array in self.arrays]


class _Progress(L.Callback):
    """Shows how far a training is, and ends one whose loss is no longer a number."""

    def __init__(self, label: str, total: int):
        self.label, self.total = label, total

    def on_train_start(self, trainer, stage):
        self.bar = tqdm(
            total=self.total,
            initial=trainer.global_step,
            desc=self.label,
            unit="step",
            leave=False,
            disable=processes.rank() > 0,
        )

    def on_train_batch_end(self, trainer, stage, outputs, batch, batch_idx):
        self.bar.update(trainer.global_step - self.bar.n)
        if not all(map(math.isfinite, stage.history[-1].values())):
            self.bar.close()
            raise PacxError(
                f"{self.label}: the loss became NaN or infinite. Lower the learning rate."
            )

    def on_train_end(self, trainer, stage):
        self.bar.close()
