"""The one way to write, hash, lock and cache a file."""

import ast
import errno
import functools
import glob
import hashlib
import math
import mmap
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
from filelock import FileLock, Timeout
from numpy.typing import DTypeLike
from safetensors import SafetensorError

from pacx import processes
from pacx.errors import DiskFullError, PacxError

#: Modules that carry what is made but do not decide what is in it.
_MACHINERY = {f"pacx{name}" for name in ("", ".errors", ".files", ".processes", ".profile", ".run")}

#: Python 3.11 fails now and then when two threads parse at once.
_PARSING = threading.Lock()


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A name to write to; the file takes its own when the block ends well, else it is removed.

    Raises:
        DiskFullError: What was begun can go on later.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_of(target)
    try:
        with naming_full_disk(target):
            yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """The same for a folder.

    Args:
        target: Its name at the end.
        replace: Take the place of a folder of that name.

    Raises:
        PacxError: Something of that name is there, and shall not be replaced.
        DiskFullError: What was begun can go on later.
    """
    if target.exists() and not replace:
        raise PacxError(f"{target} exists. Name a new folder, or remove that one.")
    partial = _partial_of(target)
    partial.mkdir(parents=True)
    try:
        with naming_full_disk(target):
            yield partial
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def naming_full_disk(target: Path) -> Iterator[None]:
    """Say which file or folder did not fit: what writes it often does not know, or not say so.

    Raises:
        DiskFullError: What was begun can go on later.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's, safetensors' own
        if all(os.strerror(code) not in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            raise
        raise DiskFullError(
            f"{target} does not fit on its disk. Make room there, or choose a folder elsewhere."
        ) from error


def owners_folder(folder: Path) -> Path:
    """Make a folder that its owner alone may open."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def replace_folder(new: Path, folder: Path) -> None:
    """Give `new` the name of `folder`, which is whole or absent at every moment."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


#: Seconds before a wait for another process is said: chapters that start together wait a few.
PATIENCE = 60


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep other commands from making the same; of joined processes the first has the lock.

    A process that dies gives its lock back. Some network disks know no locks: there, no process
    waits.

    Raises:
        PacxError: The folder cannot be written.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    if processes.rank() == 0:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            print(f"{target.name}: waiting for another process that makes it", file=sys.stderr)
            lock.acquire()
        except NotImplementedError:
            pass
        except OSError as error:
            raise PacxError(
                f"{target.parent} cannot be written ({error.strerror}). Check the path, or "
                "choose another folder."
            ) from error
    try:
        yield
    finally:
        if lock.is_locked:  # who waits for it notices that its file is gone, and makes another
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def fingerprint(*parts: object) -> str:
    """Hash of text, of files (`Path`), of arrays, and of whatever else says all in its `repr`.

    A whole memory map is told by the name of its file: a cached array has its key as its name.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        elif isinstance(part, np.memmap) and isinstance(part.base, mmap.mmap):
            content = Path(part.filename).name
        elif isinstance(part, np.ndarray):
            content = f"{part.shape} {hashlib.sha256(np.ascontiguousarray(part)).hexdigest()}"
        else:
            content = part if isinstance(part, str) else repr(part)
        # Names of files may hold bytes that are not UTF-8.
        digest.update(f"{len(content)} {content}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def content_of(file: Path, notes: Path) -> str:
    """`fingerprint` of a large file, read anew only where its place, size or time is another.

    Args:
        file: To hash.
        notes: Folder, a cache, that remembers the hash.
    """
    stat = file.stat()
    facts = fingerprint(file.resolve().as_posix(), stat.st_size, stat.st_mtime_ns)
    note = notes / f"{facts[:24]}.hash"
    if not note.is_file():
        with new_file(note) as partial:
            partial.write_text(fingerprint(file), encoding="utf-8")
    return note.read_text(encoding="utf-8")


def code_of(*modules: str) -> str:
    """Fingerprint of modules of `pacx` and of all that they import from it, machinery apart.

    Comments, docstrings and the texts of errors do not count. Files beside a module that its source
    names, such as a style sheet, do.
    """
    return fingerprint(*(f"{name} {_code(name)[0]}" for name in modules_of(*modules)))


def modules_of(*modules: str) -> list[str]:
    """Modules of `pacx` and all that they import from it, machinery apart."""
    found, waiting = set(), {name for name in modules if name.split(".")[0] == "pacx"}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= _code(name)[1] - found - _MACHINERY
    return sorted(found)


def imports_of(source: str) -> set[str]:
    """Modules of `pacx` that Python source names in its imports."""
    names = set()
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    names = {name for name in names if name.split(".")[0] == "pacx"}
    return {name for name in names if path_of(name) is not None}


def path_of(module: str) -> Path | None:
    """Source file of a module of `pacx`; None of what is no module."""
    path = Path(__file__).parent.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


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


def cached_array(
    cache: Path,
    key: tuple,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    fill: Callable[[np.ndarray], None],
) -> np.ndarray:
    """Return an array that is computed once for each key and memory-mapped afterwards.

    Of processes that train together the first computes, and all must call this.

    Args:
        cache: Folder of the arrays.
        key: Everything that the content depends on besides the code; see `fingerprint`.
        shape: Of the array.
        dtype: Of the array.
        fill: Writes the content into a memory map of that shape; called when it is not there yet.
            A change of its module, or of what that imports, makes another key.

    Returns:
        Read-only memory map.

    Raises:
        PacxError: The disk has no room.
    """
    target = cache / f"{fingerprint(*key, code_of(fill.__module__ or ''))[:24]}.npy"
    if processes.rank() == 0 and not target.is_file():
        with locked(target):
            if not target.is_file():  # made by the process that was waited for
                with new_file(target) as partial:
                    array = create_array(partial, dtype, shape)
                    fill(array)
                    array.flush()
    processes.wait()
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _partial_of(target: Path) -> Path:
    """A name of this process; what dead ones left, or one that had its number, is removed."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        process = int(left.suffixes[-2][1:])
        if process == os.getpid() or not psutil.pid_exists(process):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return target.with_name(f".{target.name}.{os.getpid()}.partial")


@functools.cache
def _code(module: str) -> tuple[str, set[str]]:
    """What a module does, as text, and what it imports; packages above it count as imported."""
    path = path_of(module)
    source = path.read_text(encoding="utf-8")
    tree = _WithoutWords().visit(_parse(source))
    named = re.findall(r'"([\w.]+)"', source)
    beside = [path.parent / name for name in named if (path.parent / name).exists()]
    files = [f for b in beside for f in ([b] if b.is_file() else b.glob("*.yaml"))]
    code = fingerprint(ast.dump(tree), *sorted(set(files)))
    above = module.rpartition(".")[0]
    return code, imports_of(source) | ({above} if above else set())


def _parse(source: str) -> ast.Module:
    with _PARSING:
        return ast.parse(source)


class _WithoutWords(ast.NodeTransformer):
    """Takes out docstrings, and what an error says."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()
