"""Radial power spectrum of real chest X-rays and of phantoms, at the size that encoders see.

Real images are no part of the book: what is written are the two mean spectra, which say nothing of
a patient. The real ones here are of NIH ChestX-ray14; another folder of X-rays works as well.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from _measure import write_report
from PIL import Image

from pacx.data.images import read_image
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients

SOURCE = "NIH ChestX-ray14 (Wang et al. 2017), NIH Clinical Center; a sample with much pneumonia"
TERMS = "no restriction on use; aggregates only"
MOST_APART = 2.0


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, required=True, help="folder with images/*.png")
    parser.add_argument("--size", type=int, default=56, help="pixels a side")
    parser.add_argument("--most", type=int, default=400, help="images of each kind")
    parser.add_argument("--seed", type=int, default=101, help="of the phantoms")
    parser.add_argument("--source", default=SOURCE, help="where the real images are from")
    parser.add_argument("--terms", default=TERMS, help="what their licence allows")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    files = sorted((options.real / "images").glob("*.png"))[: options.most]
    if not files:
        raise SystemExit(f"{options.real / 'images'} holds no PNG file.")
    square = (options.size, options.size)
    real = np.stack(
        [
            np.asarray(Image.fromarray(read_image(file)).resize(square, Image.Resampling.BICUBIC))
            for file in files
        ]
    )
    patients = sample_patients(options.most, options.seed)
    phantoms, _ = render_radiographs(patients, options.size, options.seed)
    spectra = {"real": radial_spectrum(real), "phantom": radial_spectrum(phantoms)}
    ratio = spectra["phantom"] / spectra["real"]
    report = {
        "source": options.source,
        "terms": options.terms,
        "images": {"real": len(real), "phantom": len(phantoms)},
        "size": options.size,
        "frequency": list(range(1, options.size // 2 + 1)),  # cycles an image
        "power": {name: [float(f"{v:.5g}") for v in power] for name, power in spectra.items()},
        "ratio": [float(f"{value:.4g}") for value in ratio],
        "within_a_factor_of_two": bool(((ratio <= MOST_APART) & (ratio >= 1 / MOST_APART)).all()),
    }
    write_report(report, options.json, load)


def radial_spectrum(images: np.ndarray) -> np.ndarray:
    """Mean power at each whole number of cycles an image.

    Args:
        images: (N, S, S) grey values.

    Returns:
        (S // 2,) squared grey values at 1, 2, ... cycles: mean over images and directions, under a
        Hann window of unit mean square, so that the images' edges do not count.
    """
    size = images.shape[1]
    window = np.outer(np.hanning(size), np.hanning(size))
    window /= np.sqrt((window**2).mean())
    flat = images - images.mean((1, 2), keepdims=True, dtype=np.float64)
    power = (np.abs(np.fft.fft2(flat * window)) ** 2).mean(0) / size**2
    cycles = np.fft.fftfreq(size, 1 / size)
    radius = np.rint(np.hypot(cycles[:, None], cycles)).astype(int)
    return np.array([power[radius == k].mean() for k in range(1, size // 2 + 1)])


if __name__ == "__main__":
    main()
