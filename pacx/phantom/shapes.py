"""Smooth shapes in continuous coordinates, for radiographs of any size."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np


def step(distance: np.ndarray, softness: float) -> np.ndarray:
    """0 to 1 as `distance` goes from -softness to +softness, smoothly."""
    t = np.clip(distance * np.float32(0.5 / softness) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def blob(dx: np.ndarray, dy: np.ndarray, width: float, height: float) -> np.ndarray:
    """A Gaussian hill of height 1."""
    dx, dy = dx / width, dy / height
    return np.exp(-(dx * dx + dy * dy))


def softplus(z: np.ndarray) -> np.ndarray:
    """About 0 below -1, about z above 1: a sign that only sick patients show."""
    return np.log1p(np.exp(np.clip(2 * z, -30, 30))) / 2


def coordinates(p: SimpleNamespace, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels' centres in the patient, each `(B, H, W)` float32.

    No two patients have the same proportions: an affine map, then a smooth elastic one.
    """
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = axis[None, None, :] - p.shift_x, axis[None, :, None] - p.shift_y
    cos, sin = np.cos(p.tilt), np.sin(p.tilt)
    x, y = (x * cos + y * sin) / p.scale_x, (y * cos - x * sin) / p.scale_y
    cells = p.warp.shape[-1]
    moved = _smooth(p.warp, (np.arange(size, dtype=np.float32) + 0.5) * ((cells - 1) / size))
    return x + moved[:, 0], y + moved[:, 1]


def cloud(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Random fields `(B, H, W)` whose power falls with the frequency as it does in tissue."""
    across, down = np.fft.rfftfreq(size, 1 / size), np.fft.fftfreq(size, 1 / size)
    frequency = np.hypot(across, down[:, None]).astype(np.float32)
    amplitude = 1 / (frequency + 3) ** 1.8
    amplitude[0, 0] = 0
    white = np.fft.rfft2(rng.standard_normal((count, size, size), np.float32))
    field = np.fft.irfft2(white * amplitude, s=(size, size)).astype(np.float32)
    # Frequencies that the smallest pictures resolve make up the unit: any size is as mottled.
    power = (np.where(frequency <= 28, amplitude, 0) ** 2).sum() * 2 / size**2
    return field / np.float32(np.sqrt(power))


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Images `(B, H, W)` under a Gaussian of `sigma` pixels: a detector's point spread."""
    place = np.arange(images.shape[1], dtype=np.float32)
    weights = np.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ images @ weights.T


def _smooth(grid: np.ndarray, place: np.ndarray) -> np.ndarray:
    """A smooth field `(..., H, H)` through a grid `(..., c, c)` of unit variance, at `place`."""
    weights = np.exp(-((place[:, None] - np.arange(grid.shape[-1], dtype=np.float32)) ** 2) / 0.8)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return weights @ grid @ weights.T


def texture(count: int, size: int, rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth random fields `(B, H, W)` of about unit variance; `cells` grains along an edge."""
    grid = rng.standard_normal((count, cells + 4, cells + 4), np.float32)
    return _smooth(grid, (np.arange(size, dtype=np.float32) + 0.5) * (cells / size) + 1.5)


def curve(x: np.ndarray, y: np.ndarray, start, bend, end, pieces: int = 8) -> np.ndarray:
    """Distance of every pixel to a quadratic Bezier curve drawn as `pieces` straight lines.

    The control points are pairs of numbers or of `(B, 1, 1)` arrays.
    """
    nearest = np.full_like(x, 9.0)
    t = np.linspace(0, 1, pieces + 1, dtype=np.float32)
    points = [
        tuple(
            (1 - k) ** 2 * a + 2 * k * (1 - k) * b + k * k * c
            for a, b, c in zip(start, bend, end, strict=True)
        )
        for k in t
    ]
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = np.float32(bx - ax), np.float32(by - ay)
        px, py = x - np.float32(ax), y - np.float32(ay)
        along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        px, py = px - along * dx, py - along * dy
        nearest = np.minimum(nearest, px * px + py * py)
    return np.sqrt(nearest)
