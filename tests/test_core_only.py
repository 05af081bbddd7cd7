"""What notebooks need is installed without the extra `book`, which makes the pages."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import PROJECT

#: Modules that only `pacx run`, `pacx evidence` and `pacx book` need.
MAKE_PAGES = {
    f"pacx.book.{name}" for name in ("build", "colab", "execution", "parts", "replications")
}


def python(*arguments: str) -> subprocess.CompletedProcess:
    folders = [str(PROJECT / "tests" / "core_only"), str(PROJECT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=PROJECT)


def imports_of_notebooks() -> set[str]:
    lines = set()
    for source in (PROJECT / "notebooks").glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                lines.add(ast.unparse(node))
    return lines


def test_library_and_notebooks_import_nothing_of_the_extra():
    files = [file.relative_to(PROJECT) for file in (PROJECT / "pacx").rglob("*.py")]
    modules = {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}
    lines = [f"import {module}" for module in sorted(modules - MAKE_PAGES)]
    done = python("-c", "\n".join([*lines, *sorted(imports_of_notebooks())]))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["run", "book", "evidence"])
def test_making_pages_without_the_extra_says_what_to_install(command, tmp_path):
    done = python("-m", "pacx", command, "--profile", "smoke", "--runs", str(tmp_path))
    assert done.returncode == 1
    assert "pip install 'pacx[book]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
