"""As if `pacx` were installed without its extra `book`: Python refuses to import what that brings.

Every Python process that has this folder in `PYTHONPATH` reads the file as it starts. `traitlets`
is let through: IPython, which notebooks need, is built on it.
"""

import sys
from importlib.abc import MetaPathFinder

BOOK = {"jupyter_book", "jupyterlab", "jupytext", "nbclient", "nbformat", "papermill", "sphinx"}


class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in BOOK:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


sys.meta_path.insert(0, Refuse())
