"""A short distillation that `test_training_processes.py` starts alone and under torchrun.

to_train_together.py OUT            no augmentation, no dropout: only the sharing differs
to_train_together.py OUT DIR STOP   both on; checkpoints after every step in DIR; step STOP fails
"""

import sys
from pathlib import Path

import lightning as L
import numpy as np
import torch

from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.encoder import add_lora, build_encoder
from pacx.processes import join_processes, rank
from pacx.profile import load_profile
from pacx.training import distill, fit

ROWS, STEPS = 16, 3


class Watch(L.Callback):
    """Keeps the gradients that the optimiser gets, and fails at a step."""

    def __init__(self, stop: int):
        self.seen, self.stop = [], stop

    def on_train_batch_start(self, trainer, stage, batch, batch_idx):
        if trainer.global_step == self.stop:
            raise InterruptedError

    def on_before_optimizer_step(self, trainer, stage, optimiser):
        named = [(n, p.grad.clone()) for n, p in stage.named_parameters() if p.grad is not None]
        self.seen.append(dict(named))


def main(out: Path, folder: Path | None = None, stop: int = -1) -> None:
    """Train, and write the losses and gradients of every step."""
    join_processes()
    torch.manual_seed(0)
    drop = 0.0 if folder is None else 0.3
    student = add_lora(build_encoder(32, 8, 24, 1, 2), rank=2, dropout=drop)
    widths = {"ecg": 12, "labs": 10}
    heads = DistillationHeads(24, widths, 8, dropout=drop)
    settings = load_profile("smoke").distill.model_copy(update={"batch_size": ROWS})
    stage = distill.Distillation(student, heads, DistillationLoss(), settings, seed=0)
    if folder is None:
        distill.augment = lambda images, how, draws: (images.float(), None)
    fit.CHECKPOINT_SECONDS = 0
    watch, trainer = Watch(stop), fit.L.Trainer
    fit.L.Trainer = lambda callbacks, **kw: trainer(callbacks=[*callbacks, watch], **kw)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * ROWS, 32, 32), dtype=np.uint8)
    teachers = [rng.normal(size=(2 * ROWS, width)).astype(np.float32) for width in widths.values()]
    arrays = [images, *teachers]
    history = fit.fit(stage, arrays, "together", folder=folder, steps=STEPS, clip=1.0)
    if rank() == 0:
        torch.save({"gradients": watch.seen, "losses": history.to_dict("list")}, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(Path, sys.argv[2:3]), *map(int, sys.argv[3:4]))
