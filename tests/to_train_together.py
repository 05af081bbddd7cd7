"""A short distillation that `test_training_processes.py` starts alone and under torchrun.

to_train_together.py OUT            no augmentation, no dropout: only the sharing differs
to_train_together.py OUT DIR STOP   both on; checkpoints after every step in DIR; step STOP fails
"""

import sys
from pathlib import Path

import numpy as np
import torch

from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.encoder import add_lora, build_encoder
from pacx.processes import join_processes, rank
from pacx.profile import load_profile
from pacx.training import checkpoint, distill, fit

ROWS, STEPS = 16, 3


class Watch:
    """Keeps the gradients that the optimiser gets, and fails at a step."""

    def __init__(self, stage: distill.Distillation, stop: int):
        self.stage, self.stop, self.seen, self.adamw = stage, stop, [], fit._adamw

    def __call__(self, stage):
        optimiser = self.adamw(stage)
        optimiser.register_step_pre_hook(self.keep)
        return optimiser

    def keep(self, *_):
        if len(self.seen) == self.stop:
            raise InterruptedError
        grads = {n: p.grad.clone() for n, p in self.stage.named_parameters() if p.grad is not None}
        self.seen.append(grads)


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
        distill.augment = lambda images, how, generator: (images.float(), None)
    checkpoint.CHECKPOINT_SECONDS, fit.LOOK_EVERY = 0, 1
    fit._adamw = watch = Watch(stage, stop)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * ROWS, 32, 32), dtype=np.uint8)
    teachers = [rng.normal(size=(2 * ROWS, width)).astype(np.float32) for width in widths.values()]
    arrays = [images, *teachers]
    history = fit.fit(stage, arrays, "together", folder=folder, steps=STEPS, clip=1.0)
    if rank() == 0:
        torch.save({"gradients": watch.seen, "losses": history.to_dict("list")}, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(Path, sys.argv[2:3]), *map(int, sys.argv[3:4]))
