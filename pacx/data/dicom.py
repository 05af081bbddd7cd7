"""DICOM X-rays as a viewer shows them."""

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    pixel_array,
)
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pacx.errors import PacxError

#: What reads the compressed transfer syntaxes that pydicom alone does not.
CODECS = "pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
#: Percentiles that become black and white where a file has no window: a marker or a dead pixel
#: shall not squeeze the tissue into a few grey levels.
RANGE = (1, 99)
MAX_PIXELS = 2**26  # more than any X-ray has: a file of some kilobytes can claim gigabytes


def is_dicom(path: Path) -> bool:
    """Whether a file's content says that it is DICOM: archives often keep them without a suffix."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path) -> np.ndarray:
    """Read a single-frame grey image; white is what a viewer shows white.

    In this order: stored bits, Modality LUT or rescale, VOI LUT or window (without either, `RANGE`
    of the values), polarity (MONOCHROME1, Presentation LUT Shape INVERSE). Padding takes no part in
    the range and becomes black. Palettes are looked up.

    Returns:
        (H, W) uint8.

    Raises:
        PacxError: The file is no DICOM, has no pixels, several frames or colours, an element is
            missing or wrong, its codec is not installed, or it has more than `MAX_PIXELS`; the
            message names the element.
    """
    try:
        _check_inflated(path)
        file = pydicom.dcmread(path)
    except PacxError:
        raise
    except Exception as error:  # pydicom raises many kinds for broken files
        raise PacxError(f"{path} is not a readable DICOM file: {error}") from error
    _check(file, path)
    raw = _decode(file, path)
    try:
        stored = _stored_bits(raw, file)
        padding = _padding(raw, stored, file)
        if file.PhotometricInterpretation == "PALETTE COLOR":
            shown = _look_up(stored, file, path)
        else:
            if "RescaleSlope" in file and "RescaleIntercept" not in file:
                file.RescaleIntercept = 0  # pydicom would pass over the slope
            values = apply_modality_lut(stored, file)
            if not (np.abs(values) <= np.finfo(np.float32).max).all():  # also true for NaN
                raise PacxError(f"{path} holds values that are not finite, or beyond float32.")
            shown = _window(values, padding, file)
    except PacxError:
        raise
    except Exception as error:
        raise PacxError(f"{path}: an element of the image is missing or wrong: {error}") from error
    if not np.isfinite(shown).all():
        raise PacxError(f"{path}: its Modality or VOI LUT gives values that are not finite.")
    if "MONOCHROME1" in file.PhotometricInterpretation or _is_inverse(file):
        shown = 1 - shown
    return np.round(255 * np.where(padding, 0, shown)).astype(np.uint8)


def stretch(values: np.ndarray, valid: np.ndarray | bool = True) -> np.ndarray:
    """Scale to [0, 1] from the robust range of the valid values; what lies outside is clipped."""
    chosen = values[np.broadcast_to(valid, values.shape)]
    low, high = np.percentile(chosen, RANGE)
    if low == high:  # nearly all have one value
        low, high = chosen.min(), chosen.max()
    return np.clip((values - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)


def _check_inflated(path: Path) -> None:
    """Look before pydicom inflates a deflated file as a whole, however large that is."""
    with path.open("rb") as file:
        file.seek(132)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        inflater, start, size = zlib.decompressobj(-zlib.MAX_WBITS), b"", 0
        while chunk := file.read(2**12):
            inflated = inflater.decompress(chunk)
            size += len(inflated)
            if len(start) < 2**20:
                start += inflated
            if size > 2.1 * MAX_PIXELS:  # two bytes each, and other elements
                raise PacxError(f"{path} inflates to more than any X-ray. It is not read.")
    beginning = read_dataset(BytesIO(start), False, True, stop_when=lambda tag, *_: tag > 0x280011)
    _check_size(beginning, path)


def _check_size(file: Dataset, path: Path) -> None:
    if (file.get("Rows") or 0) * (file.get("Columns") or 0) > MAX_PIXELS:
        raise PacxError(f"{path} has {file.Rows} × {file.Columns} pixels: more than any X-ray.")


def _check(file: Dataset, path: Path) -> None:
    for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if name in file:
            break
    else:
        raise PacxError(f"{path} has no PixelData: it is no image. Leave it out of the table.")
    needed = {"PhotometricInterpretation": file, "TransferSyntaxUID": file.file_meta}
    for name, holder in needed.items():
        if name not in holder:
            raise PacxError(f"{path} has no {name}, without which its pixels mean nothing.")
    kind = file.PhotometricInterpretation
    if kind not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR") or file.SamplesPerPixel != 1:
        raise PacxError(
            f"{path} is a colour image (PhotometricInterpretation {kind}, SamplesPerPixel "
            f"{file.get('SamplesPerPixel')}); a single grey frame is needed."
        )
    _check_size(file, path)
    frames = int(file.get("NumberOfFrames") or 1)
    if frames != 1:
        raise PacxError(f"{path} has NumberOfFrames {frames}; a single grey frame is needed.")


def _decode(file: Dataset, path: Path) -> np.ndarray:
    try:
        return pixel_array(file, raw=True, correct_unused_bits=False)
    except Exception as error:
        syntax = file.file_meta.TransferSyntaxUID
        if "missing" in str(error) and syntax.is_compressed:
            raise PacxError(
                f"{path} is compressed as {syntax.name}, which needs a codec. Install: "
                f"pip install {CODECS}"
            ) from error
        raise PacxError(f"{path}: its PixelData cannot be decoded: {error}") from error


def _stored_bits(raw: np.ndarray, file: Dataset) -> np.ndarray:
    """Values without what lies in the other bits, such as an overlay."""
    if raw.dtype.kind == "f":
        return raw
    raw = raw.astype(np.int64) >> max(0, int(file.HighBit) + 1 - int(file.BitsStored))
    size = 1 << int(file.BitsStored)
    stored = raw & (size - 1)
    if file.PixelRepresentation == 1:
        stored = np.where(stored >= size // 2, stored - size, stored)
    return stored


def _padding(raw: np.ndarray, stored: np.ndarray, file: Dataset) -> np.ndarray:
    """(H, W) bool: between PixelPaddingValue and its range limit, where the file has them."""
    if file.get("PixelPaddingValue") is None:
        return np.zeros(raw.shape, bool)
    limit = file.get("PixelPaddingRangeLimit")
    value = file.PixelPaddingValue
    low, high = sorted((value, value if limit is None else limit))
    # Some files pad with a value that needs more bits than are stored.
    fits = low >= stored.min() and high <= stored.max()
    values = stored if fits else raw
    return (low <= values) & (values <= high)


def _look_up(stored: np.ndarray, file: Dataset, path: Path) -> np.ndarray:
    colours = apply_color_lut(stored.astype(np.uint16), file)
    if (np.ptp(colours.astype(np.int64), axis=-1) > 0).any():
        raise PacxError(f"{path} is a colour image (PALETTE COLOR); a grey one is needed.")
    return colours[..., 0] / np.iinfo(colours.dtype).max


def _window(values: np.ndarray, padding: np.ndarray, file: Dataset) -> np.ndarray:
    """(H, W) in [0, 1], before polarity."""
    if padding.all():
        raise PacxError(f"{file.filename} holds nothing but padding (PixelPaddingValue).")
    if file.get("VOILUTSequence"):
        count, first, _ = file.VOILUTSequence[0].LUTDescriptor
        inside = np.clip(np.rint(values), first, first + (count or 2**16) - 1).astype(np.int64)
        ends = np.array([first, first + (count or 2**16) - 1])
        shown, table = apply_voi(inside, file), apply_voi(np.arange(ends[0], ends[1] + 1), file)
        low, high = float(table.min()), float(table.max())
        return (shown - low) / max(high - low, 1)
    if _has_window(file):
        # The range that pydicom maps to follows from the bits and turns round with a negative
        # slope: what is far below the window is black, far above it is white.
        far = np.array([-1e9, 1e9])
        with np.errstate(over="ignore"):
            low, high = apply_windowing(far, file)
            return (apply_windowing(values, file) - low) / (high - low)
    return stretch(values.astype(np.float64), ~padding)


def _has_window(file: Dataset) -> bool:
    """Whether there is a window that means something: viewers pass over one without a width."""
    if file.get("WindowCenter") is None or file.get("WindowWidth") is None:
        return False
    width = file.WindowWidth
    width = width[0] if file["WindowWidth"].VM > 1 else width
    return width > (1 if file.get("VOILUTFunction", "LINEAR") == "LINEAR" else 0)


def _is_inverse(file: Dataset) -> bool:
    return file.get("PresentationLUTShape") == "INVERSE"
