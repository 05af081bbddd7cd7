"""Arrays that are expensive to make and cheap to keep."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike


def cached_array(
    cache: Path,
    key: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    fill: Callable[[np.ndarray], None],
) -> np.ndarray:
    """Return an array that is computed once for each key and memory-mapped afterwards.

    Args:
        cache: Folder of the arrays.
        key: Everything that the content depends on, as text.
        shape: Of the array.
        dtype: Of the array.
        fill: Writes the content into a memory map of that shape; called when it is not there yet.

    Returns:
        Read-only memory map.
    """
    target = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.partial")
        try:
            array = np.lib.format.open_memmap(partial, "w+", dtype=dtype, shape=shape)
            fill(array)
            array.flush()
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r", allow_pickle=False)
