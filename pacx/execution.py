"""Chapters executed end to end, each in a kernel of its own."""

import hashlib
import os
import tempfile
import time
from importlib import resources
from pathlib import Path

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm
from traitlets.config import Config

from pacx.errors import PacxError
from pacx.run import Run


def execute(run: Run, only: str | None = None, force: bool = False, project: Path = Path()) -> None:
    """Execute the chapters into `run.notebooks`, each in a kernel of its own.

    A chapter is skipped when it, the library, the profile, the pinned versions and the tables of
    real data are the ones it was executed with. What was executed before a failure stays, so the
    next call goes on.

    Args:
        run: Where to write.
        only: Number or name of one chapter, such as `05` or `05_distillation`.
        force: Execute although nothing has changed.
        project: Folder that holds `notebooks/`.

    Raises:
        PacxError: There is no such chapter or folder, or a cell failed; the message names
            chapter and cell, and the notebook is kept as `<chapter>.failed.ipynb`; on real data
            in `private/`, and the message keeps what it says to itself.
    """
    sources = sources_of(project, only)
    # Spinning OpenMP threads starve the other processes of a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    run.notebooks.mkdir(parents=True, exist_ok=True)
    with tqdm(sources, unit="chapter", disable=None) as bar:
        for source in bar:
            bar.set_description(source.stem)
            key = key_of(source, run, project)
            about = signature_of(run.notebooks / f"{source.stem}.ipynb")
            if about.get("key") == key and not force:
                tqdm.write(f"{source.stem}: unchanged")
            else:
                seconds = _execute_one(source, run, key, project)
                tqdm.write(f"{source.stem}: {seconds:.0f} s")


def signature_of(notebook: Path) -> dict:
    """What `_execute_one` noted in the notebook; empty when there is none."""
    if not notebook.is_file():
        return {}
    return nbformat.read(notebook, as_version=4).metadata.get("pacx", {})


def sources_of(project: Path, only: str | None = None) -> list[Path]:
    """The chapters' sources in `notebooks/`, in their order; or one, by its number or name.

    Raises:
        PacxError: There are none, or not that one.
    """
    sources = sorted((project / "notebooks").glob("[0-9][0-9]_*.py"))
    if not sources:
        raise PacxError(
            f"No chapters in {(project / 'notebooks').resolve()}. Run this in a checkout of the "
            "book's repository, or point --project at one."
        )
    if only is None:
        return sources
    chosen = [s for s in sources if only in (s.stem, s.stem.split("_")[0])]
    if not chosen:
        names = ", ".join(s.stem for s in sources)
        raise PacxError(f"There is no chapter '{only}'. Choose one of {names}.")
    return chosen


def key_of(source: Path, run: Run, project: Path) -> str:
    """Hash of all that decides what an executed chapter says."""
    package = Path(str(resources.files("pacx")))
    code = [*sorted(package.rglob("*.py")), package / "paper.yaml"]
    digest = hashlib.sha256("\n".join([run.settings_hash, *run.tables]).encode())
    for file in (source, project / "constraints.txt", *code):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _execute_one(source: Path, run: Run, key: str, project: Path) -> float:
    partial = run.notebooks / f".{source.stem}.partial.ipynb"
    kept = run.notebooks if run.is_phantom else run.private
    failed = kept / f"{source.stem}.failed.ipynb"
    failed.unlink(missing_ok=True)
    nbformat.write(jupytext.read(source), partial)
    parameters = {
        "profile": str((run.folder / "profile.yaml").resolve()),
        "runs": str(run.folder.parent.resolve()),
    }
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="pacx-") as sockets:
            papermill.execute_notebook(
                str(partial),
                str(partial),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                progress_bar={"leave": False, "position": 1, "desc": "cells", "disable": None},
                cwd=str(project.resolve()),
                config=_private_kernel(Path(sockets)),
            )
    except (PapermillExecutionError, DeadKernelError) as error:
        failed.parent.mkdir(exist_ok=True)
        partial.replace(failed)
        if isinstance(error, DeadKernelError):
            why = "lost its Python process, most often for want of memory"
        else:
            why = f"failed in cell {error.cell_index}: {error.ename}"
            if run.is_phantom:  # a message may name a patient
                why = f"{why}: {error.evalue}".strip().splitlines()[-1]
        raise PacxError(
            f"Chapter {source.stem} {why}. See {failed}; what came before it is kept."
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    seconds = time.perf_counter() - started
    _sign(partial, {**run.provenance(), "key": key, "seconds": seconds})
    partial.replace(run.notebooks / f"{source.stem}.ipynb")
    return seconds


def _private_kernel(folder: Path) -> Config:
    """Cells and outputs travel through files of this user, not through TCP ports of the machine.

    The folder is one kernel's own: kernels with one name for their files would read each other's
    messages.
    """
    if os.name != "posix":
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "kernel")}})


def _sign(notebook: Path, about: dict) -> None:
    """Note how the notebook was made, and drop what papermill adds: paths of this machine."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("papermill", None)
    content.metadata["pacx"] = about
    for cell in content.cells:
        cell.metadata.pop("papermill", None)
    content.cells = [
        c for c in content.cells if "injected-parameters" not in c.metadata.get("tags", [])
    ]
    nbformat.write(content, notebook)
