"""Phantom X-rays as DICOM files, the way detectors store them."""

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

BITS = 12  # of a detector, stored in 16


def write_dicom(image: np.ndarray, path: Path) -> None:
    """Write a single-frame grey X-ray; every third file is MONOCHROME1, stored inverted.

    Args:
        image: (H, W) uint8, bright = dense.
        path: Its stem, hexadecimal, becomes the UID and decides the photometric interpretation.
    """
    number = int(path.stem[:24], 16)
    pixels = image.astype("<u2") << (BITS - 8)
    inverted = number % 3 == 0
    if inverted:
        pixels = (2**BITS - 1) - pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID(f"2.25.{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID = meta.MediaStorageSOPClassUID
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    file.Modality = "DX"
    file.Rows, file.Columns = image.shape
    file.SamplesPerPixel = 1
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, BITS, BITS - 1
    file.PixelRepresentation = 0
    file.WindowCenter, file.WindowWidth = 2 ** (BITS - 1), 2**BITS
    file.PixelData = pixels.astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)
