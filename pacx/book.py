"""From notebooks to the book: execute every chapter, then build the HTML."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm
from traitlets.config import Config

from pacx import paper
from pacx.errors import PacxError
from pacx.figures.style import MODELS
from pacx.run import Run

#: Result tables that stand beside a published one: results/<name>.parquet.
_COMPARED = ("transfer", "label_efficiency", "alignment", "components")

#: Cells and outputs travel through files of this user, not through TCP ports of the machine.
_PRIVATE_KERNEL = Config({"KernelManager": {"transport": "ipc"}} if os.name == "posix" else {})


def execute(run: Run, only: str | None = None, force: bool = False, project: Path = Path()) -> None:
    """Execute the chapters into `run.notebooks`, each in a kernel of its own.

    A chapter is skipped when it, the library, the profile and the pinned versions are the ones
    it was executed with. What was executed before a failure stays, so the next call goes on.

    Args:
        run: Where to write.
        only: Number or name of one chapter, such as `05` or `05_distillation`.
        force: Execute although nothing has changed.
        project: Folder that holds `notebooks/`.

    Raises:
        PacxError: There is no such chapter or folder, or a cell failed; the message names
            chapter and cell, and the notebook is kept as `<chapter>.failed.ipynb`.
    """
    sources = _sources(project)
    if only is not None:
        chosen = [s for s in sources if only in (s.stem, s.stem.split("_")[0])]
        if not chosen:
            names = ", ".join(s.stem for s in sources)
            raise PacxError(f"There is no chapter '{only}'. Choose one of {names}.")
        sources = chosen
    # Spinning OpenMP threads starve the other processes of a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    run.notebooks.mkdir(parents=True, exist_ok=True)
    with tqdm(sources, unit="chapter", disable=None) as bar:
        for source in bar:
            bar.set_description(source.stem)
            key = _key(source, run, project)
            about = _about(run.notebooks / f"{source.stem}.ipynb")
            if about.get("key") == key and not force:
                tqdm.write(f"{source.stem}: unchanged")
            else:
                seconds = _execute_one(source, run, key, project)
                tqdm.write(f"{source.stem}: {seconds:.0f} s")


def build(run: Run, project: Path = Path()) -> Path:
    """Build the HTML from the prose and the executed chapters.

    Any warning of the build is an error. The HTML that was there stays until the new one is whole.

    Returns:
        The first page.

    Raises:
        PacxError: A chapter has not been executed, or the build warned; the message says what.
    """
    missing = [
        s.stem for s in _sources(project) if not (run.notebooks / f"{s.stem}.ipynb").exists()
    ]
    if missing:
        raise PacxError(
            f"Not executed yet: {', '.join(missing)}. Run: pacx run --profile {run.profile.name}"
        )
    book = _assemble(run, project)
    output = run.folder / ".html.partial"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    options = ["--path-output", str(output), "-W", "-n", "--keep-going"]
    done = subprocess.run([*command, str(book), *options], capture_output=True, text=True)
    said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)  # without colours
    log = run.folder / "book.log"
    log.write_text(said, encoding="utf-8")
    html = output / "_build" / "html"
    pages = [f"{page}.html" for page in toc_pages(project)]
    lost = [page for page in pages if not (html / page).is_file()]
    if done.returncode or lost:
        problems = [line for line in said.splitlines() if re.search("WARNING|ERROR", line)]
        problems += [f"missing page: {page}" for page in lost]
        raise PacxError(f"The book did not build, see {log}:\n" + "\n".join(problems[:20]))
    for page in html.rglob("*.html"):
        # Two extensions declare Thebe's address, which is a script error: keep the first.
        text = page.read_text(encoding="utf-8")
        for script in set(re.findall(r"<script>const THEBE_JS_URL[^<]*</script>", text)):
            text = text.replace(script, "", text.count(script) - 1)
        page.write_text(text, encoding="utf-8")
    target = run.folder / "html"
    shutil.rmtree(target, ignore_errors=True)
    html.rename(target)
    shutil.rmtree(output)
    return target / "index.html"


def toc_pages(project: Path = Path()) -> list[str]:
    """Every page of `_toc.yml`, such as `book/index` or `notebooks/01_cohort`."""
    toc = yaml.safe_load((project / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [toc["root"], *chapters]


def _sources(project: Path) -> list[Path]:
    sources = sorted((project / "notebooks").glob("[0-9][0-9]_*.py"))
    if not sources:
        raise PacxError(
            f"No chapters in {(project / 'notebooks').resolve()}. Run this in a checkout of the "
            "book's repository, or point --project at one."
        )
    return sources


def _key(source: Path, run: Run, project: Path) -> str:
    package = Path(str(resources.files("pacx")))
    code = [*sorted(package.rglob("*.py")), package / "paper.yaml"]
    digest = hashlib.sha256(run.settings_hash.encode())
    for file in (source, project / "constraints.txt", *code):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _about(notebook: Path) -> dict:
    """What `_execute_one` noted in the notebook; empty when there is none."""
    if not notebook.is_file():
        return {}
    return nbformat.read(notebook, as_version=4).metadata.get("pacx", {})


def _execute_one(source: Path, run: Run, key: str, project: Path) -> float:
    partial = run.notebooks / f".{source.stem}.partial.ipynb"
    failed = run.notebooks / f"{source.stem}.failed.ipynb"
    failed.unlink(missing_ok=True)
    nbformat.write(jupytext.read(source), partial)
    parameters = {
        "profile": str((run.folder / "profile.yaml").resolve()),
        "runs": str(run.folder.parent.resolve()),
    }
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            str(partial),
            str(partial),
            parameters=parameters,
            kernel_name="python3",
            language="python",
            progress_bar={"leave": False, "position": 1, "desc": "cells", "disable": None},
            cwd=str(project.resolve()),
            config=_PRIVATE_KERNEL,
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        partial.replace(failed)
        if isinstance(error, DeadKernelError):
            why = "lost its Python process, most often for want of memory"
        else:
            last_line = f"{error.ename}: {error.evalue}".strip().splitlines()[-1]
            why = f"failed in cell {error.cell_index}: {last_line}"
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


def _assemble(run: Run, project: Path) -> Path:
    """Lay out what Jupyter Book reads: prose, executed chapters, generated parts."""
    partial = run.folder / ".book.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(project / "book", partial / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(project / name, partial / name)
    (partial / "notebooks").mkdir()
    for source in _sources(project):
        shutil.copy(run.notebooks / f"{source.stem}.ipynb", partial / "notebooks")
    generated = partial / "book" / "_generated"
    generated.mkdir()
    for name in (*_COMPARED, "settings"):
        (generated / f"{name}_published.md").write_text(paper.markdown_table(name) + "\n")
    for name in _COMPARED:
        (generated / f"{name}_ours.md").write_text(_ours(run, name) + "\n")
    (generated / "status.md").write_text(_status(run, project) + "\n")
    (generated / "downloads.md").write_text(_downloads(run, generated) + "\n")
    (generated / "api.md").write_text(_api() + "\n")
    target = run.folder / "book"
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def _ours(run: Run, name: str) -> str:
    """The run's own table: 95 % intervals where it has them, and paired differences from MAE."""
    kind = "phantom patients" if run.is_phantom else "real data"
    about = f"This run, profile `{run.profile.name}`, {kind}."
    if not (run.results / f"{name}.parquet").is_file():
        return f"{about} It holds no table `{name}`."
    frame = run.load_results(name)
    if "low" in frame:
        about += " In brackets 95 % intervals."
    if "difference_value" in frame:
        paired = frame[(frame["model"] == "pacx") & (frame["reference"] == "mae")]
        paired = paired.drop(columns=["value", "low", "high"])
        paired = paired.rename(columns=lambda column: column.removeprefix("difference_"))
        frame = pd.concat([frame, paired.assign(model="PaCX - MAE")])
    frame["value"] = [
        f"{row.value:.3f}" + (f" [{row.low:.3f}, {row.high:.3f}]" if row.low == row.low else "")
        for row in frame.reindex(columns=["value", "low", "high"]).itertuples()
    ]
    frame["model"] = [MODELS[model][0] if model in MODELS else model for model in frame["model"]]
    keys = [c for c in ("dataset", "target", "task", "metric", "fraction") if c in frame]
    table = paper.wide_table(frame[[*keys, "model", "value"]]).fillna("")
    return f"{about}\n\n{paper.pipe_table(table)}"


def _status(run: Run, project: Path) -> str:
    rows = []
    for source in _sources(project):
        about = _about(run.notebooks / f"{source.stem}.ipynb")
        current = about["key"] == _key(source, run, project)
        rows.append(
            {
                "chapter": f"[](../notebooks/{source.stem})",
                "seconds": f"{about['seconds']:.0f}",
                "profile": about["profile"],
                "commit": about["commit"],
                "made, UTC": about["made"][:16].replace("T", " "),
                "state": "executed without error" if current else "made by earlier code",
            }
        )
    versions = {k: v for k, v in about.items() if k not in ("key", "seconds", "made", "commit")}
    table = pd.DataFrame({"what": versions.keys(), "value": versions.values()})
    return f"{paper.pipe_table(pd.DataFrame(rows))}\n\n{paper.pipe_table(table)}"


def _downloads(run: Run, folder: Path) -> str:
    """Copy the profile and every result table beside the page that links to them."""
    shutil.copy(run.folder / "profile.yaml", folder)
    lines = ["- {download}`profile.yaml <_generated/profile.yaml>`"]
    for source in sorted(run.results.glob("*.parquet")):
        pd.read_parquet(source).to_csv(folder / f"{source.stem}.csv", index=False)
        lines.append(f"- {{download}}`{source.stem}.csv <_generated/{source.stem}.csv>`")
    return "\n".join(lines)


def _api() -> str:
    """One section a module of the library, filled from its docstrings."""
    package = Path(str(resources.files("pacx")))
    sections = []
    for file in sorted(package.rglob("*.py")):
        name = ".".join(file.relative_to(package.parent).with_suffix("").parts)
        if file.read_text(encoding="utf-8").strip() and name not in ("pacx.cli", "pacx.__main__"):
            name = name.removesuffix(".__init__")
            directive = f".. automodule:: {name}\n   :members:\n   :member-order: bysource"
            sections.append(f"## {name}\n\n```{{eval-rst}}\n{directive}\n```")
    return "\n\n".join(sections)
