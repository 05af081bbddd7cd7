"""What all stages share: batches of arrays, AdamW with warm-up and cosine, one training loop."""

import logging
import math
import warnings

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from tqdm import tqdm

from pacx.errors import PacxError
from pacx.profile import OptimiserSettings

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
        # Augmentation and masks draw from here, so they do not depend on the device.
        self.draws = torch.Generator().manual_seed(seed)
        self.history: list[dict[str, float]] = []

    def note(self, **terms: torch.Tensor) -> None:
        """Keep the terms of this step's loss for the training curve."""
        self.history.append({name: float(term.detach()) for name, term in terms.items()})

    def configure_optimizers(self):
        """AdamW, stepped once a batch through warm-up and cosine."""
        trained = [p for p in self.parameters() if p.requires_grad]
        free = [p for p in trained if p.ndim < 2] if self.decay_matrices_only else []
        decayed = [p for p in trained if not (self.decay_matrices_only and p.ndim < 2)]
        optimiser = torch.optim.AdamW(
            [{"params": decayed}, {"params": free, "weight_decay": 0.0}],
            lr=self.settings.learning_rate,
            betas=self.betas,
            weight_decay=self.settings.weight_decay,
            fused=True,
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
    steps: int = -1,
    clip: float | None = None,
) -> pd.DataFrame:
    """Train a stage on arrays held in memory (or mapped), whole batches only.

    Args:
        stage: The module; `stage.settings` says how long and how fast.
        arrays: Arrays with the same first axis; a batch is one slice of each, in this order.
        label: Shown by the progress bar.
        steps: Stop after so many steps instead of `settings.epochs`.
        clip: Largest norm of the gradient.

    Returns:
        One row a step: the terms that the stage noted.

    Raises:
        PacxError: There are fewer rows than a batch, or the loss became NaN or infinite.
    """
    batch, rows = stage.settings.batch_size, len(arrays[0])
    if rows < batch:
        raise PacxError(f"{label}: {rows} training rows are fewer than one batch of {batch}.")
    shuffled = RandomSampler(range(rows), generator=torch.Generator().manual_seed(rows))
    loader = DataLoader(
        _Arrays(arrays), sampler=BatchSampler(shuffled, batch, drop_last=True), batch_size=None
    )
    total = steps if steps > 0 else stage.settings.epochs * len(loader)
    trainer = L.Trainer(
        max_steps=total,
        max_epochs=-1,
        gradient_clip_val=clip,
        callbacks=[_Progress(label, total)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        # The arrays are in memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        trainer.fit(stage, loader)
    history = pd.DataFrame(stage.history)
    if not np.isfinite(history.to_numpy()).all():
        raise PacxError(f"{label}: the loss became NaN or infinite. Lower the learning rate.")
    return history.assign(step=np.arange(1, len(history) + 1))


class _Arrays(Dataset):
    def __init__(self, arrays: list[np.ndarray]):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: list[int]) -> list[torch.Tensor]:
        return [torch.from_numpy(np.ascontiguousarray(array[rows])) for array in self.arrays]


class _Progress(L.Callback):
    def __init__(self, label: str, total: int):
        self.label, self.total = label, total

    def on_train_start(self, trainer, stage):
        self.bar = tqdm(total=self.total, desc=self.label, unit="step", leave=False)

    def on_train_batch_end(self, trainer, stage, outputs, batch, batch_idx):
        self.bar.update()

    def on_train_end(self, trainer, stage):
        self.bar.close()
