"""X-rays at a size for the eye, whatever the size that a model reads."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from pacx.data.images import load_images
from pacx.data.table import Dataset
from pacx.phantom.cohort import Cohort
from pacx.phantom.hospital import WRITERS, cohort_of


def large_pictures(dataset: Dataset, names: Sequence[str], size: int, cache: Path) -> np.ndarray:
    """X-rays (N, size, size) uint8; phantoms are drawn again where their files are smaller.

    A phantom drawn again has the same anatomy and devices, but other noise and fine texture.

    Args:
        dataset: Real, or phantoms such as `chexpert` and `phantom-truth`.
        names: N values of its column `image`.
        size: Pixels a side.
        cache: Folder of the cached arrays.
    """
    note = dataset.root / "phantom.json"
    settings = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    if settings is None or settings["image_size"] >= size:
        return load_images(dataset.root, list(names), size, cache)
    with TemporaryDirectory() as folder, tqdm(disable=True) as bar:
        again = cohort_of(settings, bar, _Again, root=Path(folder), names=names, size=size)
        WRITERS[settings["dataset"]](Path(folder), again)
    return np.stack([again.drawn[name] for name in names])


@dataclass(frozen=True)
class _Again(Cohort):
    """Keeps some X-rays, drawn larger, and writes none."""

    root: Path
    names: Sequence[str]
    size: int
    drawn: dict[str, np.ndarray] = field(default_factory=dict)

    def write_xrays(self, patients, paths, masks=None, stored=None) -> dict[str, np.ndarray]:
        files = [path.relative_to(self.root).as_posix() for path in paths]
        wanted = np.flatnonzero(np.isin(files, self.names))
        for rows, images, _ in self.xrays(patients, self.size, only=wanted):
            self.drawn.update(zip((files[row] for row in rows), images, strict=True))
        return {}
