"""Chapters as Colab and JupyterLab show them: no MyST, links that lead somewhere, folded code."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import PROJECT

from pacx.book.colab import FOLDED, write_notebook
from pacx.errors import PacxError

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
PUBLISHED = "https://pacx-book.github.io/pacx-mae-book/"
#: What Markdown shows as it stands: roles, directives, targets of links, links without a text.
MYST = re.compile(
    r"\{[\w:-]+\}`[^`]*`|^ *(?:`{3,}|:{3,}) *\{.*|^ *:{3,}.*|^\([\w-]+\)=|(?<!!)\[\]\(.*?\)", re.M
)

#: JupyterLab drops the command while the kernel starts.
RUN_ALL = """async () => {
    const session = jupyterapp.shell.currentWidget.sessionContext;
    await session.ready;
    await session.session.kernel.info;
    jupyterapp.commands.execute("notebook:run-all-cells");
}"""


def markdown(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def links(notebook: Path) -> set[str]:
    return set(re.findall(r"\]\(([^)\s]+)", markdown(notebook)))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_holds_no_myst(notebook):
    assert not MYST.findall(markdown(notebook))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_relative_links_are_notebooks_beside_it(notebook):
    relative = {link for link in links(notebook) if ":" not in link}
    assert relative <= {path.name for path in NOTEBOOKS}
    assert relative  # each chapter leads to another


def test_links_to_the_book_lead_to_its_pages_and_terms(html):
    published = set().union(*map(links, NOTEBOOKS))
    pages = {link.removeprefix(PUBLISHED) for link in published if link.startswith(PUBLISHED)}
    assert any(page.startswith("book/glossary.html#term-") for page in pages)
    for page in pages:
        file, _, anchor = page.partition("#")
        text = (html / file).read_text(encoding="utf-8")
        assert not anchor or f'id="{anchor}"' in text, page


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_the_book_folds_is_folded(notebook):
    for cell in nbformat.read(notebook, as_version=4).cells:
        folded = bool(FOLDED & set(cell.metadata.get("tags", [])))
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == folded
        assert (cell.metadata.get("cellView") == "form") == folded
        assert cell.source.startswith("# @title ") == folded


def test_downloads_of_the_pages_hold_no_myst_but_outputs(html):
    for notebook in (html / "_sources" / "notebooks").glob("*.ipynb"):
        assert not MYST.findall(markdown(notebook))
        assert any(cell.get("outputs") for cell in nbformat.read(notebook, as_version=4).cells)


def write(text: str, folder: Path) -> str:
    source = folder / "x.py"
    lines = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    source.write_text(f"# %% [markdown]\n{lines}\n", encoding="utf-8")
    write_notebook(source, folder / "x.ipynb", PROJECT)
    return markdown(folder / "x.ipynb")


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("``{term}`LoRA` `` and `[a](b)`", "``{term}`LoRA` `` and `[a](b)`"),
        ("```python\n[a](b)\n```", "```python\n[a](b)\n```"),
        (
            "{cite:t}`holm1979simple,chestx6`",
            "[Holm (1979)](https://www.jstor.org/stable/4615733), "
            "[ChestX6](https://www.kaggle.com/datasets/mohamedasak/chest-x-ray-6-classes-dataset)",
        ),
        (
            "{cite:p}`gichoya2022race,jain2019attention`",
            "([Gichoya et al., 2022](https://doi.org/10.1016/S2589-7500%2822%2900063-2); "
            "[Jain and Wallace, 2019](https://doi.org/10.18653/v1/N19-1357))",
        ),
        (
            "[a](../book/limits#b) [c](https://d.org/#e)",
            f"[a]({PUBLISHED}book/limits.html#b) [c](https://d.org/#e)",
        ),
        (
            "````{dropdown} Answer\nSee [it](01_cohort):\n```python\nx = 1\n```\n````",
            "<details><summary>Answer</summary>\n\nSee [it](01_cohort.ipynb):\n"
            "```python\nx = 1\n```\n\n</details>",
        ),
        (
            ":::{admonition} Why?\n:class: tip\nFor *this*.\n:::\n\nText",
            "> **Why?**\n> \n> For *this*.\n\nText",
        ),
        (":::{note} So\nit is.\n:::", "> **Note**\n> \n> So\n> it is."),
    ],
)
def test_myst_becomes_markdown(myst, plain, tmp_path):
    assert write(myst, tmp_path) == plain


def test_term_has_its_own_text_and_its_meaning(tmp_path):
    shown = write("{term}`the\nleaks <Leakage>`", tmp_path)
    assert shown.startswith(f"[the leaks]({PUBLISHED}book/glossary.html#term-Leakage")
    assert re.search(r' "[^"]{20,}"\)$', shown)


@pytest.mark.parametrize(
    "unknown",
    ["{term}`no such term`", "{cite:p}`nobody2000`", "{eq}`loss`", "[a](13_none)",
     "[a](../README)", "```{include} x.md\n```"],
)  # fmt: skip
def test_what_a_notebook_cannot_show_is_named(unknown, tmp_path):
    with pytest.raises(PacxError) as caught:
        write(unknown, tmp_path)
    assert unknown.splitlines()[0].removeprefix("[a") in str(caught.value)
    assert not (tmp_path / "x.ipynb").exists()


@pytest.fixture
def lab(tmp_path, smoke_runs):
    """Address of a JupyterLab that shows chapter 03, set to the smoke run, and chapter 01."""
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(PROJECT / "notebooks" / "01_cohort.ipynb", root)
    text = (PROJECT / "notebooks" / "03_lab_autoencoder.ipynb").read_text(encoding="utf-8")
    for old, new in (("demo", "smoke"), ("runs", str(smoke_runs))):
        assert text.count(f'= \\"{old}\\"') == 1
        text = text.replace(f'= \\"{old}\\"', f'= \\"{new}\\"')
    (root / "03_lab_autoencoder.ipynb").write_text(text, encoding="utf-8")
    tracker = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    # All cells are in the page, also those out of sight.
    (tracker / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    folders = {
        name: str(tmp_path / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    folders["JUPYTERLAB_SETTINGS_DIR"] = str(tmp_path / "settings")
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
        f"--ServerApp.root_dir={root}", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0",
        "--IdentityProvider.token=t", "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | folders)
    try:
        until = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"{found[0]}/lab/tree/03_lab_autoencoder.ipynb?token=t"
    finally:
        server.terminate()
        server.wait(30)


def test_jupyterlab_shows_a_chapter_as_the_book_does_and_runs_it(lab, browser):
    cells = nbformat.read(PROJECT / "notebooks" / "03_lab_autoencoder.ipynb", as_version=4).cells
    folded = sum("cellView" in cell.metadata for cell in cells)
    tab = browser.new_page()
    tab.set_default_timeout(120_000)
    tab.goto(lab)
    notebook = tab.locator(".jp-Notebook")
    notebook.locator("summary", has_text="Answer").first.wait_for()
    tab.evaluate(RUN_ALL)
    notebook.get_by_text("All checks passed.", exact=True).wait_for()

    rendered = notebook.locator(".jp-RenderedMarkdown, .jp-RenderedHTMLCommon").all_inner_texts()
    # That of outputs as well.
    assert len(rendered) > sum(cell.cell_type == "markdown" for cell in cells)
    assert not MYST.findall("\n".join(rendered))
    assert notebook.locator(".jp-InputPlaceholder:visible").count() == folded
    assert notebook.locator(".jp-OutputArea img, .jp-OutputArea svg").count() > 3
    assert not notebook.locator("[data-mime-type='application/vnd.jupyter.error']").count()
    term = notebook.locator("a", has_text="percentile").first
    assert "median" in term.get_attribute("title")
    notebook.locator("a", has_text="chapter 01").first.click()
    tab.locator(".jp-Notebook h1", has_text="cohort").wait_for()
    tab.close()
