"""Scale: memory and time from CheXpert's files to the batches of one epoch, at growing sizes.

The data set has CheXpert's layout: JPEGs of 390 x 320 pixels, links to a few hundred different
ones, so that no disk is waited for. Its table is read and split by patient, the X-rays are decoded
into the cache and opened again, and every batch of an epoch is read in stage 1's order. Each size
is a process of its own. Anonymous memory is what a machine must have; the pages of mapped files,
which it may drop at any time, are told apart. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _measure import write_report

FILES = 200  # different images
LATERAL = 6  # of so many studies one has a lateral view, which is not read


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000, 191_000])
    parser.add_argument("--pixels", type=int, default=224, help="a side, in the cache")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(work(options.child, options.pixels)))
        return
    load, sizes = os.getloadavg()[0], []
    for images in options.images:
        with tempfile.TemporaryDirectory() as folder:
            kib = write_data(Path(folder, "chexpert"), images)
            command = [sys.executable, __file__, "--pixels", str(options.pixels), "--child", folder]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            sizes.append({"images": images, **json.loads(answer.splitlines()[-1])})
            print(json.dumps(sizes[-1]), file=sys.stderr)
    report = {
        "pixels": options.pixels,
        "kib_a_file": kib,
        "load_after": round(os.getloadavg()[0], 2),
        "sizes": sizes,
        "ratios": [growth(sizes[-1], part) for part in ("decode", "epoch")],
    }
    write_report(report, options.json, load)


def growth(size: dict, part: str) -> dict:
    """Whether the last images took longer than the first ones."""
    first, last = size[part]["cpu_seconds_a_thousand"]
    what = f"Scale, {size['images']:,} images, {part}: CPU time of the last tenth over the first"
    return {"what": what, "value": last / first, "target": 1.25, "at_most": True}


def write_data(root: Path, images: int) -> float:
    """CheXpert's layout with so many frontal views to train on; KiB of a file, on average."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    from pacx.constants import CHEXPERT_FINDINGS
    from pacx.phantom.radiograph import render_radiographs
    from pacx.phantom.state import sample_patients

    (root / "files").mkdir(parents=True)
    pixels, _ = render_radiographs(sample_patients(FILES, 1), 320, seed=1)
    files = [root / "files" / f"{number}.jpg" for number in range(FILES)]
    for file, picture in zip(files, pixels, strict=True):
        Image.fromarray(picture).resize((390, 320)).save(file, quality=90)
    rng = np.random.default_rng(0)
    for folder, table, rows in (("train", "train.csv", images), ("valid", "valid.csv", FILES)):
        studies = [f"{folder}/patient{i // 3 + 1:05}/study{i % 3 + 1}" for i in range(rows)]
        for i, study in enumerate(studies):
            (root / study).mkdir(parents=True)
            os.link(files[i % FILES], root / study / "view1_frontal.jpg")
        findings = rng.choice([1.0, 0.0, -1.0, np.nan], (rows, len(CHEXPERT_FINDINGS)))
        frontal = pd.DataFrame(findings, columns=list(CHEXPERT_FINDINGS))
        frontal.insert(0, "Path", [f"CheXpert-v1.0-small/{s}/view1_frontal.jpg" for s in studies])
        frontal.insert(1, "Frontal/Lateral", "Frontal")
        lateral = frontal[::LATERAL].assign(**{"Frontal/Lateral": "Lateral"})
        lateral["Path"] = lateral["Path"].str.replace("view1_frontal", "view2_lateral")
        pd.concat([frontal, lateral]).sort_values("Path").to_csv(root / table, index=False)
    return sum(file.stat().st_size for file in files) / FILES / 1024


def work(data_root: Path, size: int) -> dict[str, dict]:
    """All parts, one after the other: what each took."""
    from pacx.data.datasets import load_dataset
    from pacx.data.images import load_images
    from pacx.data.splits import make_splits
    from pacx.profile import load_profile
    from pacx.training.batches import parts_of_batches

    batch, cache, done = load_profile("paper").mae.batch_size, data_root / "cache", 0
    parts = {"start": memory()}
    with measured(parts, "table"):
        data = load_dataset("chexpert", data_root)
        make_splits(data.table["patient"], {"train": 0.8, "val": 0.1, "test": 0.1})
        names = list(data.split("train")["image"])
    with measured(parts, "decode", lambda: decoded_so_far(cache, len(names))):
        load_images(data.root, names, size, cache)
    with measured(parts, "open again"):
        decoded = load_images(data.root, names, size, cache)
    next(parts_of_batches([decoded], batch, 1, 0, 1))  # what is loaded once does not count
    with measured(parts, "epoch", lambda: done) as look:
        for (pixels,) in parts_of_batches([decoded], batch, 1, 0, len(decoded) // batch):
            if pixels.shape != (batch, size, size):
                raise SystemExit(f"A batch has the shape {tuple(pixels.shape)}.")
            done += batch
            look()
    return parts | {"cache_bytes": Path(decoded.filename).stat().st_size}


def decoded_so_far(cache: Path, images: int) -> int | None:
    """From the name of the file that is being filled; None while the files are hashed."""
    for file in cache.glob("*.partial"):
        return int(file.suffixes[0][1:])
    return images if list(cache.glob("*.npy")) else None


@contextmanager
def measured(
    parts: dict[str, dict], name: str, progress: Callable[[], int | None] = lambda: None
) -> Iterator[Callable[[], None]]:
    """Note a part's seconds and its peak memory, which the kernel keeps for both kinds together.

    Args:
        parts: Takes the facts.
        name: Of the part.
        progress: Images so far; gives seconds per 1,000 of the first and of the last tenth.

    Yields:
        Looks at memory and progress, which also happens a hundred times a second.
    """
    peak, marks, ended = memory(), [], threading.Event()

    def look() -> None:
        for kind, mib in memory().items():
            peak[kind] = max(peak[kind], mib)
        images = progress()
        if images is not None and (not marks or images != marks[-1][0]):
            marks.append((images, time.perf_counter(), time.process_time()))

    def sample() -> None:
        while not ended.wait(0.01):
            look()

    sampler = threading.Thread(target=sample)
    start, cpu = time.perf_counter(), time.process_time()
    look()
    sampler.start()
    yield look
    ended.set()
    sampler.join()
    look()
    parts[name] = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    parts[name] |= peak
    if marks:
        parts[name]["seconds_a_thousand"] = windows([(m[0], m[1]) for m in marks])
        parts[name]["cpu_seconds_a_thousand"] = windows([(m[0], m[2]) for m in marks])


def windows(marks: list[tuple[int, float]]) -> list[float]:
    """Seconds per 1,000 images, of the first and of the last tenth."""
    total = marks[-1][0]
    first = next(mark for mark in marks if mark[0] >= total / 10)
    last = [mark for mark in marks if mark[0] <= total * 0.9][-1]
    return [
        1000 * (end[1] - start[1]) / (end[0] - start[0])
        for start, end in ((marks[0], first), (last, marks[-1]))
    ]


def memory() -> dict[str, float]:
    """Anonymous memory and mapped pages of files that this process holds now, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return {"anonymous_mib": kib["RssAnon"] / 1024, "files_mib": kib["RssFile"] / 1024}


if __name__ == "__main__":
    main()
