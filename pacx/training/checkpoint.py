"""What a stopped training goes on from."""

import time
from pathlib import Path
from typing import Any

import torch

from pacx import processes
from pacx.errors import PacxError
from pacx.files import new_file
from pacx.run import CHECKPOINT

CHECKPOINT_SECONDS = 300  # between two checkpoints; shorter trainings write none


class Checkpoint:
    """Weights, optimiser, losses and the step: all that the randomness does not follow from.

    Args:
        folder: Of `CHECKPOINT`; None keeps none.
        **states: What has a `state_dict`, by name.
    """

    def __init__(self, folder: Path | None, **states: Any):
        self.file = folder and folder / CHECKPOINT
        self.states, self.written = states, time.monotonic()

    def load(self) -> tuple[int, list[dict[str, float]]]:
        """Restore the states of a stopped training: the steps it took and its losses.

        Raises:
            PacxError: It ran in another number of processes.
        """
        if self.file is None or not self.file.is_file():
            return 0, []
        saved = torch.load(self.file, map_location="cpu", weights_only=True)
        if saved["processes"] != processes.world():
            raise PacxError(
                f"{self.file} is of a training in {saved['processes']} processes, this one has "
                f"{processes.world()}. Start as many, or delete the file to start anew."
            )
        for name, holder in self.states.items():
            holder.load_state_dict(saved[name])
        return saved["step"], saved["history"]

    def save(self, step: int, history: list[dict[str, float]]) -> None:
        """Write the checkpoint, unless the last one is recent."""
        due = self.file and time.monotonic() - self.written >= CHECKPOINT_SECONDS
        if due and processes.rank() == 0:
            saved = {name: holder.state_dict() for name, holder in self.states.items()}
            saved |= {"step": step, "history": history, "processes": processes.world()}
            with new_file(self.file) as partial:
                torch.save(saved, partial)
            self.written = time.monotonic()
