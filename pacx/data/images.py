"""X-rays from disk to a decoded, memory-mapped cache that every stage reads."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import functional as vision
from tqdm import tqdm

from pacx import processes
from pacx.constants import IMAGENET_MEAN, IMAGENET_STD
from pacx.data.dicom import MAX_PIXELS, is_dicom, read_dicom, stretch
from pacx.errors import PacxError
from pacx.files import code_of, create_array, fingerprint, locked

#: What Pillow may try, whatever a file calls itself: some other formats start programs.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
#: Formats that files with the suffix of another one turn out to be: where they say so, and how.
_OTHERS = {
    "WebP": (8, b"WEBP"), "GIF": (0, b"GIF8"), "HEIC or AVIF": (4, b"ftyp"), "PDF": (0, b"%PDF"),
    "JPEG 2000": (4, b"jP  "), "a ZIP archive": (0, b"PK\3\4"), "gzip": (0, b"\x1f\x8b"),
    "a web page or SVG": (0, b"<"), "a NumPy array": (0, b"\x93NUMPY"),
}  # fmt: skip
#: Tags of TIFF.
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
BLOCK = 1024  # images after which a decode has come so far for good


def read_image(path: str | Path) -> np.ndarray:
    """Read one X-ray as a viewer shows it: 8-bit grey, white = dense.

    PNG, JPEG, TIFF and BMP, grey or in colour, turned as their orientation says, white where they
    say that 0 is white; more than 8 bits are scaled by `pacx.data.dicom.stretch`. Colour profiles
    are not applied. DICOM of whatever name: see `pacx.data.dicom.read_dicom`.

    Returns:
        (H, W) uint8.

    Raises:
        PacxError: The file is missing, truncated, too large, or not a single image; its content is
            of another format than these; a value is not finite; a part is transparent; its colours
            are false or its depth is cut; or it shows one grey value only.

    Example:
        >>> grey = read_image("chest.dcm")
    """
    pixels = _read(Path(path))
    if (value := pixels.flat[0]) == pixels.max() == pixels.min():
        raise PacxError(f"{path} shows nothing: every pixel is {value}. Leave it out.")
    if pixels.dtype == np.uint8:
        return pixels
    return np.round(255 * stretch(pixels)).astype(np.uint8)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a segmentation mask: (H, W) bool, anything brighter than half grey is inside.

    Masks of more than 8 bits are scaled from their own minimum and maximum.

    Raises:
        PacxError: As of `read_image`, or nothing is brighter, yet something is there.
    """
    grey = _read(Path(path))
    if grey.dtype != np.uint8:  # constant: covers everything, or nothing
        low, high = grey.min(), grey.max()
        return (grey - low) * 2 > high - low if high > low else grey > 0
    if 0 < grey.max() <= 127:
        raise PacxError(
            f"Mask {path} would be read as empty: its brightest value is {grey.max()} of 255. "
            "Store 0 outside and 255 inside."
        )
    return grey > 127


def load_images(
    root: Path, names: list[str], size: int, cache: Path, *, masks: bool = False
) -> np.ndarray:
    """Decode and resize images once; afterwards map the same array from the cache.

    Images are squashed to a square, as the paper's evaluation does. They go straight to a file on
    disk, so a data set larger than the memory is no problem, and a decode that was killed goes on
    where it was. The cache is keyed by the files' names and content and by the settings: a changed
    file is decoded again, a data set that has moved is not. Of processes that train together the
    first decodes, and all must call this.

    Args:
        root: Folder that `names` are relative to.
        names: Relative paths.
        size: Pixels a side.
        cache: Folder of the cached arrays.
        masks: Read masks instead (1 = inside), resized with nearest neighbours.

    Returns:
        (N, size, size) uint8 (masks: 0 or 1), read-only memory map.

    Raises:
        PacxError: A file is missing or unreadable; the message names it. Or the disk has no room.
    """
    target = cache / f"{_content_key(root, names, size, masks)[:24]}.npy"
    if processes.rank() == 0 and not target.is_file():
        with locked(target):
            if not target.is_file():  # made by the process that was waited for
                _decode(target, names, size, lambda name: _squash(root / name, size, masks))
    processes.wait()
    return np.load(target, mmap_mode="r", allow_pickle=False)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Grey bytes to the encoder's input: ImageNet statistics on three equal channels.

    Args:
        images: (N, H, W) uint8, or float in [0, 255].

    Returns:
        (N, 3, H, W) float32.
    """
    grey = images.float()[:, None]
    mean = torch.tensor(IMAGENET_MEAN, device=grey.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=grey.device)[:, None, None]
    return torch.addcmul(-mean / std, grey, 1 / (255 * std))


def _decode(target: Path, names: list[str], size: int, read: Callable[[str], np.ndarray]) -> None:
    """Fill `target` block by block, in a file that takes its name only when it is complete.

    Until then its name holds how many images it has: a decode that was killed goes on from there.
    """

    def with_images(count: int) -> Path:
        return target.with_suffix(f".{count}.partial")

    left = list(target.parent.glob(f"{target.stem}.*.partial"))
    if left:
        done = int(left[0].suffixes[0][1:])
        array = np.lib.format.open_memmap(with_images(done), "r+")
    else:
        done = 0
        array = create_array(with_images(0), np.uint8, (len(names), size, size))

    def fill(i: int) -> None:
        array[i] = read(names[i])

    try:
        # Decoding releases the GIL; a thread pool keeps every core busy without copies.
        with (
            ThreadPoolExecutor() as pool,
            tqdm(desc="decode images", total=len(names), initial=done, leave=False) as bar,
        ):
            while done < len(names):
                stop = min(done + BLOCK, len(names))
                for _ in pool.map(fill, range(done, stop)):
                    bar.update()
                array.flush()
                with_images(done).rename(with_images(stop))
                done = stop
    except PacxError:
        with_images(done).unlink()  # the broken file will change, and with it the key
        raise
    os.replace(with_images(done), target)


def _read(path: Path) -> np.ndarray:
    """(H, W): uint8 as shown, or float64 with a range of its own."""
    # Not `Path.is_file`, which raises where a name is too long.
    if not os.path.isfile(path):  # a pipe or a device would be waited for
        what = "is no file" if os.path.exists(path) else "is missing"
        raise PacxError(f"Image {path} {what}.")
    if path.suffix.lower() in (".dcm", ".dicom") or is_dicom(path):
        return read_dicom(path)
    try:
        # Given a name, Pillow maps the file, and scrambles a TIFF that is to be turned.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if (frames := getattr(image, "n_frames", 1)) != 1:
                raise PacxError(f"{path} holds {frames} images; a single one is needed.")
            if image.width * image.height > MAX_PIXELS:
                raise PacxError(f"{path} has {image.width} x {image.height} pixels: no X-ray has.")
            return _shown(image, path)
    except PacxError:
        raise
    except Exception as error:  # Pillow raises whatever its parsers stumble over
        raise PacxError(_why_unreadable(path, error)) from error


def _shown(image: Image.Image, path: Path) -> np.ndarray:
    wide = ";16" in str(image.tile)  # 16 bits a channel, of which Pillow drops the lower 8
    tags = getattr(image, "tag_v2", {})  # of TIFF
    image.load()  # turns a TIFF, which must not be turned again
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        return _wide(np.asarray(image), tags, path)
    if tags.get(SAMPLE_FORMAT, (1,))[0] != 1:
        raise PacxError(f"{path} has signed samples of {tags[BITS][0]} bits; store it as PNG.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        low, high = image.getchannel("A").getextrema()
        if low != high:
            raise PacxError(
                f"{path} is transparent in parts, which viewers show as what lies behind it. "
                "Flatten it onto black."
            )
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
        _check_colours(image, path)
    grey = np.asarray(image.convert("L"))
    if wide and (levels := len(np.unique(grey))) <= 16:
        raise PacxError(
            f"{path} has 16 bits a channel, of which the upper 8 hold {levels} grey values only. "
            "Store it as 16-bit grey."
        )
    return grey


def _wide(pixels: np.ndarray, tags: Mapping[int, Any], path: Path) -> np.ndarray:
    """(H, W) float64: what Pillow leaves as it is stored, white = high."""
    bits, format = tags.get(BITS, (16,))[0], tags.get(SAMPLE_FORMAT, (1,))[0]
    if bits == 32 and format == 1:  # Pillow takes them for signed
        pixels = pixels.view(np.uint32)
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise PacxError(f"{path} holds values that are not finite.")
    if tags.get(PHOTOMETRIC) == 0:  # white is 0
        values = (2**bits - 1 if format == 1 else 0) - values
    return values


def _check_colours(image: Image.Image, path: Path) -> None:
    """Refuse a colour map: where one channel falls while another rises, grey is not what it was."""
    small = image.resize((64, 64), Image.Resampling.BOX)
    channels = np.asarray(small, np.float64).reshape(-1, 3).T
    spread = channels - channels.mean(axis=1, keepdims=True)
    together = spread @ spread.T
    if (together < 0).any():
        raise PacxError(f"{path} is in false colours; an X-ray in shades of one colour is needed.")


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        error = "it is none, or of a kind that is not read. Store it as PNG of 8 or 16 bits"
    with path.open("rb") as file:
        start = file.read(16)
    for format, (at, magic) in _OTHERS.items():
        if start[at : at + len(magic)] == magic:
            return f"{path}: this is {format}, which is not read. Convert it to PNG."
    return f"{path} is not a readable image: {error}."


def _squash(path: Path, size: int, mask: bool) -> np.ndarray:
    image = read_mask(path).astype(np.uint8) if mask else read_image(path)
    if image.shape == (size, size):
        return image
    mode = vision.InterpolationMode.NEAREST if mask else vision.InterpolationMode.BILINEAR
    pixels = torch.from_numpy(np.array(image))[None]
    return vision.resize(pixels, [size, size], interpolation=mode, antialias=True)[0].numpy()


def _content_key(root: Path, names: list[str], size: int, masks: bool) -> str:
    def digest_of(name: str) -> str:
        try:
            if (root / name).exists() and not (root / name).is_file():  # a pipe would be waited for
                raise OSError("it is no file")
            return fingerprint(root / name)
        except OSError as error:
            raise PacxError(f"Image {root / name} is missing or unreadable: {error}") from error

    hashes = []
    # Reading and hashing release the GIL. Block by block, since a pool queues all that it is given.
    with (
        ThreadPoolExecutor() as pool,
        tqdm(desc="hash images", total=len(names), leave=False) as bar,
    ):
        for start in range(0, len(names), BLOCK):
            hashes += pool.map(digest_of, names[start : start + BLOCK])
            bar.update(len(hashes) - start)
    facts = list(zip(names, hashes, strict=True))
    return fingerprint(size, masks, code_of(__name__), facts)
