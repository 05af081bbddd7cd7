"""What only a phantom hospital knows: labels on the patients' true state, and exact masks."""

from pathlib import Path

from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS
from pacx.data.table import Dataset, make_dataset, read_csv


def read(root: Path) -> Dataset:
    """Read the physiology and anatomy tasks; columns `state_*` keep the latent state."""
    labels = [*PHYSIOLOGY_TASKS, *ANATOMY_TASKS]
    ids = ["patient", "image"]
    table = read_csv(root / "labels.csv", [*ids, "split", *labels], ids)
    table = table.assign(study=table["image"])
    return make_dataset("phantom-truth", "multilabel", labels, table, root)
