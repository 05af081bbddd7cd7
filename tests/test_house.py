"""The house is in order: packages, addresses, notebooks and sources agree with each other."""

import subprocess
import sys
import tomllib

import jupytext
import nbformat
import pytest
import yaml
from conftest import PROJECT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pacx.book.build import toc_pages
from pacx.book.colab import write_notebook
from pacx.evaluation import paper

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.py"))


def requirements(*extras: str) -> dict[str, Requirement]:
    """What the package needs, with these extras, by name."""
    lines = list(PYPROJECT["project"]["dependencies"])
    for extra in extras:
        lines += PYPROJECT["project"]["optional-dependencies"][extra]
    needs = {canonicalize_name(need.name): need for need in map(Requirement, lines)}
    needs.pop("pacx", None)  # an extra that takes in others
    return needs


def pins() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_environment_follows_pyproject():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    conda, pip = environment["dependencies"][:-1], environment["dependencies"][-1]["pip"]
    assert f"python{PYPROJECT['project']['requires-python']}" in conda
    assert "--editable .[book,onnx]" in pip
    for line in pip:
        if not line.startswith("--"):
            need = Requirement(line)
            asked = requirements("book")[canonicalize_name(need.name)]
            assert need.specifier == asked.specifier, line


def test_constraints_satisfy_pyproject():
    for name, need in requirements("book", "onnx", "test").items():
        version = pins()[name]
        assert need.specifier.contains(version), f"{need} but {version}"


def test_licences_of_all_dependencies_are_listed():
    listed = (PROJECT / "LICENSES.md").read_text()
    named = requirements("book", "onnx")
    assert not [name for name in named if f"| {name} |" not in listed]


def test_repository_is_the_same_everywhere():
    url = PYPROJECT["project"]["urls"]["Repository"]
    assert yaml.safe_load((PROJECT / "_config.yml").read_text())["repository"]["url"] == url
    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["repository-code"] == url


def test_every_page_of_the_toc_has_a_source_and_every_source_is_in_the_toc():
    prose = {f"book/{path.stem}" for path in (PROJECT / "book").glob("*.md")}
    chapters = {f"notebooks/{path.stem}" for path in NOTEBOOKS}
    assert set(toc_pages(PROJECT)) == prose | chapters


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_pair(source, tmp_path):
    text = jupytext.read(source)
    assert text.metadata["kernelspec"]["name"] == "python3"
    tags = [cell.metadata.get("tags", []) for cell in text.cells]
    assert sum("parameters" in tag for tag in tags) == 1
    prose = [cell.source.splitlines() for cell in text.cells if cell.cell_type == "markdown"]
    assert not [line for lines in prose for line in lines if line.startswith("%")], "MyST hides it"

    written = tmp_path / "written.ipynb"
    write_notebook(source, written, PROJECT)
    assert source.with_suffix(".ipynb").read_bytes() == written.read_bytes(), "run make sync"
    assert "jupytext" not in nbformat.read(written, as_version=4).metadata, "edits would cross over"


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_defines_no_class(source):
    assert not [line for line in source.read_text().splitlines() if line.startswith("class ")]


def test_no_path_of_a_machine_in_what_readers_see():
    folders = [PROJECT / name for name in ("book", "notebooks", "pacx")]
    files = [
        f for d in folders for f in d.rglob("*") if f.suffix in (".py", ".md", ".yaml", ".ipynb")
    ]
    for file in [*files, PROJECT / "README.md", PROJECT / "constraints.txt"]:
        for word in ("../shared", "/home/", "/root/", "/work/", "file://"):
            assert word not in file.read_text(encoding="utf-8"), f"{file}: {word}"


def test_no_large_file_is_tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = {name: (PROJECT / name).stat().st_size for name in listed.stdout.splitlines()}
    assert not {name: size for name, size in sizes.items() if size > 1_000_000}


def test_imports_only_point_to_earlier_modules():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as m; m()"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_published_changes_follow_from_published_scores():
    scores = paper.published("transfer").set_index(["dataset", "metric", "model"])["value"]
    change = 100 * (scores["VinDr-CXR", "F1", "pacx"] - scores["VinDr-CXR", "F1", "mae"])
    assert round(change, 1) == 6.5


def test_published_retrieval_is_whole_hits_of_464():
    table = paper.published("alignment").query("metric == 'R@5'")
    hits = table["value"] * 464
    assert ((hits - hits.round()).abs() < 0.03).all()
    assert sorted(set(hits.round().astype(int))) == [7, 17, 24, 26]
    # Chapter 08 speaks of these differences.
    by = hits.round().groupby([table["target"], table["model"]]).sum().unstack()
    assert (by["pacx"] - by["mae"]).to_dict() == {"ecg": 2, "labs": 0}


@pytest.mark.parametrize("name", ["transfer", "components", "settings"])
def test_published_tables_are_rectangular_markdown(name):
    rows = paper.pipe_table(paper.published(name)).splitlines()
    assert len({row.count("|") for row in rows}) == 1
