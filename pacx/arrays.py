"""Arrays that are too large for the memory, in files."""

import math
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from pacx.errors import PacxError


def create_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """Return a new .npy file as a memory map whose disk space is reserved.

    Without the reservation, a disk that fills up later kills the process, and without a word.

    Raises:
        PacxError: The disk has no room, or the folder cannot be written.
    """
    try:
        array = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # macOS and Windows have none
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        size = math.prod(shape) * np.dtype(dtype).itemsize / 2**20
        raise PacxError(
            f"{path.parent} cannot take an array of {size:.1f} MiB ({error.strerror}). Make room "
            "there, or choose a folder on another disk."
        ) from error
    return array
