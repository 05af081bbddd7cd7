"""The library's own source, SQL and folders, shown where a chapter explains them."""

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

from IPython.display import Markdown


def show_source(*objects: Callable | type) -> Markdown:
    """Source of functions, methods or classes as one highlighted block.

    What is shown is what runs: it is read from the installed package, never pasted.

    Args:
        *objects: Anything that `inspect.getsource` can find.
    """
    parts = [textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in objects]
    return Markdown("```python\n" + "\n\n\n".join(parts) + "\n```")


def show_sql(*statements: str) -> Markdown:
    """SQL statements of the library as one highlighted block."""
    return Markdown("```sql\n" + "\n\n".join(s.strip() for s in statements) + "\n```")


def show_tree(root: Path, most: int = 6) -> Markdown:
    """Folders and files below `root`; of each folder's subfolders only the first is opened.

    Args:
        root: Folder to show; only its name is printed, not where it lies.
        most: Entries shown of one folder.
    """
    return Markdown("```text\n" + "\n".join([f"{root.name}/", *_branches(root, most)]) + "\n```")


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
