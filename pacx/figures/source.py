"""The library's own source, SQL and folders, shown where a chapter explains them."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

from IPython.display import Markdown

from pacx.figures.style import as_aggregate


def show_source(*objects: Callable | type) -> Markdown:
    """Source of functions, methods or classes as one highlighted block.

    What is shown is what runs: it is read from the installed package, never pasted. Docstrings of
    functions are left out.
    """
    return as_aggregate(Markdown("```python\n" + "\n\n\n".join(map(_code, objects)) + "\n```"))


def show_sql(*statements: str) -> Markdown:
    """SQL statements of the library as one highlighted block."""
    return as_aggregate(Markdown("```sql\n" + "\n\n".join(s.strip() for s in statements) + "\n```"))


def show_tree(root: Path, most: int = 6) -> Markdown:
    """Folders and files below `root`, at most so many of one folder, the first of them opened.

    Only the name of `root` is printed, not where it lies.
    """
    return Markdown("```text\n" + "\n".join([f"{root.name}/", *_branches(root, most)]) + "\n```")


def _code(thing: Callable | type) -> str:
    lines = textwrap.dedent(inspect.getsource(thing)).rstrip().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            docstring = node.body[0]
            places = range(docstring.lineno - 1, docstring.end_lineno)
            for place in places:
                lines[place] = None
            if lines[docstring.end_lineno : docstring.end_lineno + 1] == [""]:
                lines[docstring.end_lineno] = None
    return "\n".join(line for line in lines if line is not None)


def _branches(folder: Path, most: int) -> list[str]:
    entries = sorted(folder.iterdir(), key=lambda entry: (entry.is_file(), entry.name))
    lines = []
    for number, entry in enumerate(entries[:most]):
        lines.append(f"├── {entry.name}{'/' if entry.is_dir() else ''}")
        if entry.is_dir() and number == 0:
            lines += [f"│   {line}" for line in _branches(entry, most)]
    if len(entries) > most:
        lines.append(f"└── … and {len(entries) - most} more")
    return lines
