"""From executed chapters and prose to the book's HTML."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from pacx.book.colab import write_notebook
from pacx.book.execution import sources_of
from pacx.book.parts import write_parts
from pacx.book.privacy import inspect_site, withhold
from pacx.errors import PacxError
from pacx.files import locked, new_folder, replace_folder
from pacx.run import Run


def build(run: Run, project: Path = Path()) -> Path:
    """Build the HTML from the prose and the executed chapters.

    Any warning of the build is an error. The HTML that was there stays until the new one is whole.
    Another command that builds it is waited for.

    Returns:
        The first page.

    Raises:
        PacxError: A chapter has not been executed, the build warned, or the site would publish
            patients; the message says what.
    """
    names = [source.stem for source in sources_of(project)]
    if missing := [name for name in names if not (run.notebooks / f"{name}.ipynb").exists()]:
        raise PacxError(
            f"Not executed yet: {', '.join(missing)}. Run: pacx run --profile {run.profile.name}"
        )
    output = run.folder / ".html.partial"
    with locked(run.folder / "html"):
        book = _assemble(run, project)
        try:
            html = _build(run, project, book, output)
            replace_folder(html, run.folder / "html")
        finally:
            shutil.rmtree(output, ignore_errors=True)  # what was refused may show patients
    return run.folder / "html" / "index.html"


def toc_pages(project: Path = Path()) -> list[str]:
    """Every page of `_toc.yml`, such as `book/index` or `notebooks/01_cohort`."""
    toc = yaml.safe_load((project / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [c["file"] for section in toc["parts"] for c in section["chapters"]]
    return [toc["root"], *chapters]


def _build(run: Run, project: Path, book: Path, output: Path) -> Path:
    """Build and inspect the site in `output`, and say where in it."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    options = ["--path-output", str(output), "-W", "-n", "--keep-going"]
    done = subprocess.run([*command, str(book), *options], capture_output=True, text=True)
    printed = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)  # without colours
    log = run.folder / "book.log"
    log.write_text(printed, encoding="utf-8")
    html = output / "_build" / "html"
    pages = [f"{page}.html" for page in toc_pages(project)]
    lost = [page for page in pages if not (html / page).is_file()]
    if done.returncode or lost:
        problems = [line for line in printed.splitlines() if re.search("WARNING|ERROR", line)]
        problems += [f"missing page: {page}" for page in lost]
        raise PacxError(f"The book did not build, see {log}:\n" + "\n".join(problems[:20]))
    for page in html.rglob("*.html"):
        # Two extensions declare Thebe's address, which is a script error: keep the first.
        text = page.read_text(encoding="utf-8")
        for script in set(re.findall(r"<script>const THEBE_JS_URL[^<]*</script>", text)):
            text = text.replace(script, "", text.count(script) - 1)
        page.write_text(text, encoding="utf-8")
    for notebook in (html / "_sources" / "notebooks").glob("*.ipynb"):  # what readers download
        write_notebook(notebook, notebook, project)
    if not run.is_phantom:  # they have no outputs
        import nbformat

        for source in (html / "_sources").rglob("*.ipynb"):
            notebook = nbformat.read(source, as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs = []
            nbformat.write(notebook, source)
    inspect_site(run, html, book, log)
    return html


def _assemble(run: Run, project: Path) -> Path:
    """Lay out what Jupyter Book reads: prose, executed chapters, generated parts."""
    import nbformat  # comes with the extra `book`

    with new_folder(run.folder / "book", replace=True) as partial:
        shutil.copytree(project / "book", partial / "book")
        for name in ("_config.yml", "_toc.yml"):
            shutil.copy(project / name, partial / name)
        (partial / "notebooks").mkdir()
        for source in sources_of(project):
            notebook = nbformat.read(run.notebooks / f"{source.stem}.ipynb", as_version=4)
            if not run.is_phantom:  # of an older pacx, or put there by hand
                withhold(notebook, f"private/{source.stem}.ipynb")
            nbformat.write(notebook, partial / "notebooks" / f"{source.stem}.ipynb")
        generated = partial / "book" / "_generated"
        generated.mkdir()
        write_parts(run, project, generated)
    return run.folder / "book"
