"""Images a second into the encoder: decoded cache and batch augmentation against one by one.

One by one: a PNG is decoded, augmented by torchvision's transforms and normalised, in a DataLoader
with two workers. Ours: decoded bytes come from the memory-mapped cache, and the batch is augmented
and normalised at once. The augmentations of stage 2 with the same probabilities, 224 px, phantoms.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _measure import write_report
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from pacx.data.augment import DISTILLATION, augment
from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD, load_images, normalise
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients

SIZE = 224
BATCH = 64


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--pixels", type=int, default=320, help="a side, of the files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pixels, _ = render_radiographs(sample_patients(options.images, 1), options.pixels, seed=1)
        names = [f"{i}.png" for i in range(options.images)]
        for name, picture in zip(names, pixels, strict=True):
            Image.fromarray(picture).save(root / name)
        start = time.perf_counter()
        cached = load_images(root, names, SIZE, root / "cache")
        decode = time.perf_counter() - start  # once in a run, not once in an epoch
        one_by_one = DataLoader(
            Files(root, names), BATCH, num_workers=2, persistent_workers=True, shuffle=True
        )
        ways = {
            "ours": lambda: drain(batches(cached)),
            "one by one, two workers": lambda: drain(one_by_one),
        }
        seconds = {name: [] for name in ways}
        for way in ways.values():
            way()  # warms up, starts the workers
        for _ in range(options.repeats):  # in turn, so that a busy moment slows all of them
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    rates = {name: options.images / statistics.median(s) for name, s in seconds.items()}
    what = "Input, images a second: ours over one by one"
    ratio = {"what": what, "value": rates["ours"] / rates["one by one, two workers"]}
    report = {
        "images": options.images,
        "pixels": options.pixels,
        "decode_seconds": decode,
        "images_a_second": rates,
        "ratios": [ratio | {"target": None}],
    }
    write_report(report, options.json, load)


def batches(cached: np.ndarray):
    """Our way: augmented, normalised batches in random order."""
    draws = torch.Generator().manual_seed(0)
    for rows in torch.randperm(len(cached)).split(BATCH):
        images = torch.from_numpy(cached[rows.numpy()])
        yield normalise(augment(images, DISTILLATION, draws)[0])


class Files(Dataset):
    """The usual way: one file, one chain of transforms."""

    def __init__(self, root: Path, names: list[str]):
        self.paths = [root / name for name in names]
        how = DISTILLATION
        jitter = v2.ColorJitter(brightness=how.jitter, contrast=how.jitter)
        self.transforms = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomResizedCrop(SIZE, scale=how.crop, ratio=(1.0, 1.0), antialias=True),
                v2.RandomApply([v2.RandomRotation(how.degrees)], how.rotate),
                v2.RandomApply([jitter], how.jitter_p),
                v2.RandomApply([v2.GaussianBlur(3)], how.blur),
                v2.ToDtype(torch.float32, scale=True),
                v2.RandomErasing(how.erase, scale=(0.02, 0.1), value=0.5),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            return self.transforms(image.convert("RGB"))


def drain(loader) -> None:
    """Take every batch (N, 3, H, W), as a training does."""
    for batch in loader:
        if batch.shape[1:] != (3, SIZE, SIZE):
            raise SystemExit(f"A batch has the shape {tuple(batch.shape)}.")


if __name__ == "__main__":
    main()
