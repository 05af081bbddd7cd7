"""Arrays that are expensive to make and cheap to keep."""

import functools
import hashlib
import mmap
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import DTypeLike

from pacx import processes
from pacx.arrays import create_array


def cached_array(
    cache: Path,
    key: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    fill: Callable[[np.ndarray], None],
    *code: str,
) -> np.ndarray:
    """Return an array that is computed once for each key and memory-mapped afterwards.

    Of processes that train together the first computes, and all must call this.

    Args:
        cache: Folder of the arrays.
        key: Everything that the content depends on besides the code, as text.
        shape: Of the array.
        dtype: Of the array.
        fill: Writes the content into a memory map of that shape; called when it is not there yet.
        *code: Folders of `pacx` that decide the content besides `data`, such as `models`: a change
            in one of them makes another key.

    Returns:
        Read-only memory map.

    Raises:
        PacxError: The disk has no room.
    """
    facts = f"{key} {digest_of_code('data', *code)}"
    target = cache / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.npy"
    if processes.rank() == 0 and not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        for left in left_behind(target):
            left.unlink(missing_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.partial")
        array = create_array(partial, dtype, shape)
        try:
            fill(array)
            array.flush()
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    processes.wait()
    return np.load(target, mmap_mode="r", allow_pickle=False)


def identity_of(array: np.ndarray) -> str:
    """Text for cache keys: the file of a whole memory map; of anything else, slices too, a hash."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
        return str(array.filename)
    return f"{array.shape} {hashlib.sha256(np.ascontiguousarray(array)).hexdigest()}"


def left_behind(target: Path) -> list[Path]:
    """Unfinished files of `target` that nobody works on: `<stem>.<...>.<process>.partial`.

    Their process is dead, or had the number of this one, as in containers, or was this one.
    """

    def is_free(partial: Path) -> bool:
        process = int(partial.suffixes[-2][1:])
        return process == os.getpid() or not psutil.pid_exists(process)

    return [path for path in target.parent.glob(f"{target.stem}.*.partial") if is_free(path)]


@functools.cache
def digest_of_code(*folders: str) -> str:
    """Text that changes with the source in these folders of `pacx`, or with its constants."""
    package = Path(str(resources.files("pacx")))
    files = [f for folder in folders for f in sorted((package / folder).rglob("*.py"))]
    code = "".join(f.read_text(encoding="utf-8") for f in [package / "constants.py", *files])
    return hashlib.sha256(code.encode()).hexdigest()
