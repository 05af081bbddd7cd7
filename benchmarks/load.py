"""Load: seconds and peak memory of a large table and a large image cache, one after the other.

The table is CheXpert's in shape, `--rows` long: it is read, checked, split by patient, and audited
for patients in two splits. `--images` of its X-rays, JPEGs of 390 x 320 pixels, are decoded into
the cache at 224 pixels and read back in batches, as a training does. This happens in a process of
its own, so its peak memory is that of the work. Exit code 1 when that is more than 4 GiB.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_MIB = 4096
FILES = 100  # different images; the others are links to them
BATCH = 256


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way = {"write": write_data, "read": read_data}[options.child[0]]
        way(Path(options.child[1]), options.rows, options.images)
        return
    result = {"rows": options.rows, "images": options.images, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        in_child("write", folder, options)
        result["load_before"] = round(os.getloadavg()[0], 2)
        result |= json.loads(in_child("read", folder, options).splitlines()[-1])
    text = json.dumps(result | {"limit_mib": LIMIT_MIB}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    if result["peak_mib"] > LIMIT_MIB:
        raise SystemExit(f"The peak memory is more than {LIMIT_MIB} MiB.")


def in_child(way: str, folder: str, options: argparse.Namespace) -> str:
    """Run one way in a process of its own. This one stays small: a child inherits its peak."""
    sizes = ["--rows", str(options.rows), "--images", str(options.images)]
    command = [sys.executable, __file__, *sizes, "--child", way, folder]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def write_data(root: Path, rows: int, images: int) -> None:
    """CheXpert's layout with so many rows, the first of which have an image."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    from pacx.constants import CHEXPERT_FINDINGS

    rng, folder = np.random.default_rng(0), root / "chexpert"
    (folder / "files").mkdir(parents=True)
    for number in range(FILES):
        small = Image.fromarray(rng.integers(0, 256, (32, 39), dtype=np.uint8))
        small.resize((390, 320)).save(folder / "files" / f"{number}.jpg", quality=90)
    patients = np.arange(rows) // 3 + 1  # three studies each
    studies = np.arange(rows) % 3 + 1
    paths = [
        f"train/patient{patient:05}/study{study}/view1_frontal.jpg"
        for patient, study in zip(patients, studies, strict=True)
    ]
    for number, path in enumerate(paths[:images]):
        (folder / path).parent.mkdir(parents=True)
        os.link(folder / "files" / f"{number % FILES}.jpg", folder / path)
    labels = rng.choice([1.0, 0.0, -1.0, np.nan], (rows, len(CHEXPERT_FINDINGS)))
    table = pd.DataFrame(labels, columns=list(CHEXPERT_FINDINGS))
    table.insert(0, "Path", [f"CheXpert-v1.0-small/{path}" for path in paths])
    table.insert(1, "Frontal/Lateral", "Frontal")
    table[:-3].to_csv(folder / "train.csv", index=False)
    table[-3:].to_csv(folder / "valid.csv", index=False)


def read_data(root: Path, rows: int, images: int) -> None:
    """The work that is measured: print seconds of each part and the peak memory."""
    import torch

    from pacx.data.datasets import load_dataset
    from pacx.data.images import load_images, normalise
    from pacx.data.splits import make_splits

    seconds, started = {}, time.perf_counter()

    def note(part: str) -> None:
        nonlocal started
        seconds[part] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()

    data = load_dataset("chexpert", root)
    note("read the table")
    split = make_splits(data.table["patient"], {"train": 0.8, "val": 0.1, "test": 0.1})
    both = data.table.assign(split=split).groupby("patient")["split"].nunique()
    if len(data.table) != rows or both.max() != 1:
        raise SystemExit("The table was not read or not split as it should be.")
    note("split it by patient and audit the split")
    names = data.table["image"][:images].tolist()
    cached = load_images(data.root, names, 224, root / "cache")
    note("decode the images into the cache")
    for start in range(0, images, BATCH):
        normalise(torch.from_numpy(cached[start : start + BATCH].copy()))
    note("read the cache in batches")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": round(peak)}))


if __name__ == "__main__":
    main()
