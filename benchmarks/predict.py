"""`pacx predict` on a folder of PNG, against decoding and resizing the same files alone.

The encoder is untrained: its weights do not change how long it takes. The three ways take turns, so
that a busy moment slows all of them; each turn of `predict` starts anew and writes everything.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from _measure import write_report
from PIL import Image
from torchvision.transforms.v2 import functional as vision

from pacx.data.images import read_image
from pacx.models.encoder import build_encoder
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients
from pacx.profile import load_profile
from pacx.share.export import export_encoder
from pacx.share.predict import predict

#: Different phantoms; each is written many times, as it takes a second to draw one.
DRAWN = 20


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--pixels", type=int, default=1024, help="a side, of the files")
    parser.add_argument("--profile", default="demo", help="shape of the encoder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    shape = load_profile(options.profile).vit.model_dump()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "x-rays").mkdir()
        pixels, _ = render_radiographs(sample_patients(DRAWN, 1), options.pixels, seed=1)
        files = [root / "x-rays" / f"{i:04d}.png" for i in range(options.images)]
        for i, file in enumerate(files):
            Image.fromarray(pixels[i % DRAWN]).save(file)
        export_encoder(build_encoder(**shape), root / "encoder")

        def decode() -> None:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda file: squash(file, shape["image_size"]), files))

        def answer(overlay: bool) -> None:
            predict([root / "x-rays"], root / "encoder", root / "out", overlay=overlay)
            shutil.rmtree(root / "out")

        ways = {
            "decode and resize": decode,
            "predict": lambda: answer(False),
            "predict with overlays": lambda: answer(True),
        }
        seconds = {name: [] for name in ways}
        for way in ways.values():
            way()  # warms up
        for _ in range(options.repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    # Of each turn, then the median: what slows a whole turn does not count.
    ratios = {
        name: statistics.median(np.divide(seconds[name], seconds["decode and resize"]))
        for name in list(ways)[1:]
    }
    report = {
        "images": options.images,
        "pixels": options.pixels,
        "encoder": shape,
        "seconds": seconds,
        "ratios": [
            {
                "what": f"{name}, seconds over those of decoding and resizing alone",
                "value": ratio,
                "target": target,
                "at_most": True,
            }
            for (name, ratio), target in zip(ratios.items(), (2, 4), strict=True)
        ],
    }
    write_report(report, options.json, load)


def squash(file: Path, size: int) -> torch.Tensor:
    """One film (size, size) uint8, as training and `predict` see it."""
    picture = torch.from_numpy(np.array(read_image(file)))[None]
    return vision.resize(picture, [size, size], antialias=True)[0]


if __name__ == "__main__":
    main()
