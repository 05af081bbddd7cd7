"""X-rays from disk to a decoded, memory-mapped cache that every stage reads."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms.v2 import functional as vision
from tqdm import tqdm

from pacx.data.cache import cached_array
from pacx.errors import PacxError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def read_image(path: str | Path) -> np.ndarray:
    """Read one X-ray as an 8-bit grey image, white = dense.

    PNG and JPEG of 8 or 16 bit, grey, RGB or RGBA; DICOM, with MONOCHROME1 inverted. Sixteen-bit
    and DICOM images are scaled from their own minimum and maximum.

    Returns:
        (H, W) uint8.

    Raises:
        PacxError: The file is missing, truncated, or not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise PacxError(f"Image {path} is missing.")
    try:
        if path.suffix.lower() in (".dcm", ".dicom"):
            return _read_dicom(path)
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                return _to_uint8(np.asarray(image, dtype=np.float32))
            if image.mode in ("RGBA", "LA", "P"):
                image = image.convert("RGB")
            return np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PacxError(f"{path} is not a readable image: {error}") from error


def read_mask(path: str | Path) -> np.ndarray:
    """Read a segmentation mask: (H, W) bool, anything brighter than half grey is inside."""
    return read_image(path) > 127


def load_images(
    root: Path, names: list[str], size: int, cache: Path, *, masks: bool = False
) -> np.ndarray:
    """Decode and resize images once; afterwards map the same array from the cache.

    Images are squashed to a square, as the paper's evaluation does. The cache is keyed by the
    files' names, sizes and times, so a changed file is decoded again.

    Args:
        root: Folder that `names` are relative to.
        names: Relative paths.
        size: Pixels a side.
        cache: Folder of the cached arrays.
        masks: Read masks instead, resized with nearest neighbours.

    Returns:
        (N, size, size) uint8 (masks: 0 or 1), read-only memory map.

    Raises:
        PacxError: A file is missing or unreadable; the message names it.
    """
    def decode(array: np.ndarray) -> None:
        # Decoding releases the GIL; a thread pool keeps every core busy without copies.
        with ThreadPoolExecutor() as pool:
            decoded = pool.map(lambda name: _squash(root / name, size, masks), names)
            for i, image in enumerate(tqdm(decoded, f"decode {root.name}", len(names), leave=False)):
                array[i] = image

    key = _content_key(root, names, size, masks)
    return cached_array(cache, key, (len(names), size, size), np.uint8, decode)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Grey bytes to the encoder's input: ImageNet statistics on three equal channels.

    Args:
        images: (N, H, W) uint8, or float in [0, 255].

    Returns:
        (N, 3, H, W) float32.
    """
    grey = images.float().div(255.0)[:, None]
    mean = torch.tensor(IMAGENET_MEAN, device=grey.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=grey.device)[:, None, None]
    return (grey - mean) / std


def _read_dicom(path: Path) -> np.ndarray:
    import pydicom

    try:
        file = pydicom.dcmread(path)
        pixels = file.pixel_array.astype(np.float32)
    except Exception as error:  # pydicom raises many kinds for broken headers
        raise PacxError(f"{path} is not a readable DICOM image: {error}") from error
    if pixels.ndim != 2:
        raise PacxError(f"{path} has shape {pixels.shape}; a single-frame grey image is needed.")
    if file.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = pixels.max() - pixels
    return _to_uint8(pixels)


def _to_uint8(pixels: np.ndarray) -> np.ndarray:
    low, high = float(pixels.min()), float(pixels.max())
    return np.round((pixels - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)


def _squash(path: Path, size: int, mask: bool) -> np.ndarray:
    image = read_mask(path).astype(np.uint8) if mask else read_image(path)
    if image.shape == (size, size):
        return image
    mode = vision.InterpolationMode.NEAREST if mask else vision.InterpolationMode.BILINEAR
    pixels = torch.from_numpy(np.array(image))[None]
    return vision.resize(pixels, [size, size], interpolation=mode, antialias=True)[0].numpy()


def _content_key(root: Path, names: list[str], size: int, masks: bool) -> str:
    digest = hashlib.sha256(f"{size} {masks} {root.resolve()}".encode())
    for name in names:
        path = root / name
        if not path.is_file():
            raise PacxError(f"Image {path} is missing.")
        facts = path.stat()
        digest.update(f"{name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
