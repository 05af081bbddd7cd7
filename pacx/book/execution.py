"""Chapters executed end to end, each in a kernel of its own."""

import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event

from joblib import cpu_count
from tqdm import tqdm

from pacx.book.privacy import withhold
from pacx.errors import NoDataError, PacxError
from pacx.files import (
    code_of,
    fingerprint,
    imports_of,
    modules_of,
    naming_full_disk,
    new_file,
    owners_folder,
    path_of,
)
from pacx.processes import device
from pacx.run import Run

try:
    import jupytext
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config
except ModuleNotFoundError as error:  # notebooks run without them
    raise PacxError(
        f"Running chapters and making pages needs {error.name}, which is not installed. Install: "
        "pip install 'pacx[book]'"
    ) from error

_TRAINING = 5  # chapters that train what the others need


def execute(run: Run, only: str | None = None, force: bool = False, project: Path = Path()) -> None:
    """Execute the chapters into `run.notebooks`, each in a kernel of its own.

    Of phantoms on a CPU, two chapters at once: each makes what it needs and waits for what another
    one is making. A chapter is skipped when it, the code that it imports, the files that this code
    reads, the profile, the pinned versions and the data are the ones it was executed with. What
    was executed before a failure stays, so the next call goes on. Of real data, `run.private` has
    the whole chapter, and `run.notebooks` what its code declared to be aggregates.

    Args:
        run: Where to write.
        only: Number or name of one chapter, such as `05` or `05_distillation`.
        force: Execute although nothing has changed.
        project: Folder that holds `notebooks/`.

    Raises:
        PacxError: There is no such chapter or folder, or a cell failed (a chapter that the run has
            no data for is only left out); the message names
            chapter and cell, and the notebook is kept as `<chapter>.failed.ipynb`; on real data
            in `private/`, and the message keeps what it says to itself.
    """
    sources = sources_of(project, only)
    # Spinning OpenMP threads starve the other processes of a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    run.notebooks.mkdir(parents=True, exist_ok=True)
    at_once = 1
    if run.is_phantom and device().type == "cpu":
        at_once = min(2, cpu_count())
        # Threads of several processes that take turns on a core mostly wait for each other.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // 2)))

    interrupted = Event()

    def work(source: Path) -> str:
        key = key_of(source, run, project)
        about = signature_of(run.notebooks / f"{source.stem}.ipynb")
        if about.get("key") == key and not force:
            return f"{source.stem}: unchanged"
        try:
            return f"{source.stem}: {_execute_one(source, run, key, project, interrupted):.0f} s"
        except NoDataError as error:
            return f"{source.stem}: left out. {error}"

    # Of the chapters that need trained encoders, the long ones start first: none is left over.
    rest = sorted(sources[_TRAINING:], key=lambda source: source.stat().st_size, reverse=True)
    with (
        ThreadPoolExecutor(at_once) as pool,
        tqdm(total=len(sources), unit="chapter", disable=None) as bar,
    ):
        running = [pool.submit(work, s) for s in sources[:_TRAINING] + rest]
        try:
            for done in as_completed(running):
                if done.exception():
                    pool.shutdown(cancel_futures=True)  # what runs may end
                tqdm.write(done.result())
                bar.update()
        except KeyboardInterrupt:  # the kernels are dead
            interrupted.set()
            pool.shutdown(cancel_futures=True)
            raise


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
    """Fingerprint of all that decides what an executed chapter says.

    Of the committed files, those in the folders of `book/` that the chapter or its code names.
    """
    text = source.read_text(encoding="utf-8")
    modules = modules_of(*imports_of(text))
    code = [text, *(path_of(name).read_text(encoding="utf-8") for name in modules)]
    folders = {name for content in code for name in re.findall(r'"book" / "(\w+)"', content)}
    read = sorted(file for name in folders for file in (project / "book" / name).glob("*"))
    return fingerprint(
        text, project / "constraints.txt", *read, code_of(*modules), run.settings_hash,
        run.fingerprint_of_data,
    )  # fmt: skip


def _execute_one(source: Path, run: Run, key: str, project: Path, interrupted: Event) -> float:
    kept = run.notebooks if run.is_phantom else owners_folder(run.private)
    partial = kept / f".{source.stem}.partial.ipynb"
    failed = kept / f"{source.stem}.failed.ipynb"
    failed.unlink(missing_ok=True)
    nbformat.write(jupytext.read(source), partial)
    parameters = {
        "profile": str((run.folder / "profile.yaml").resolve()),
        "runs": str(run.folder.parent.resolve()),
    }
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="pacx-") as sockets, naming_full_disk(partial):
            papermill.execute_notebook(
                str(partial),
                str(partial),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                progress_bar={"leave": False, "position": 1, "desc": "cells", "disable": None},
                resources={"metadata": {"path": str(project.resolve())}},
                config=_kernel(Path(sockets)),
            )
    except (PapermillExecutionError, DeadKernelError) as error:
        if interrupted.is_set():
            partial.unlink(missing_ok=True)
            raise
        if getattr(error, "ename", "") == NoDataError.__name__:
            partial.unlink()
            raise NoDataError(error.evalue) from error
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
    whole = _sign(partial, {**run.provenance(), "key": key, "seconds": seconds})
    if not run.is_phantom:
        withhold(whole, f"private/{source.stem}.ipynb")
        with new_file(run.notebooks / f"{source.stem}.ipynb") as shown:
            nbformat.write(whole, shown)
    partial.replace(kept / f"{source.stem}.ipynb")
    return seconds


def _kernel(folder: Path) -> Config:
    """A kernel that says nothing of Ctrl-C, and whose cells no other user of the machine can read.

    Cells and outputs travel through files of this user, not through TCP ports. The folder is one
    kernel's own: kernels with one name for their files would read each other's messages.
    """
    quiet = {"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"]}
    if os.name != "posix":
        return Config({"NotebookClient": quiet})
    files = {"transport": "ipc", "ip": str(folder / "kernel")}
    return Config({"NotebookClient": quiet, "KernelManager": files})


def _sign(notebook: Path, about: dict) -> nbformat.NotebookNode:
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
    return content
