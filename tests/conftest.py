"""What several test files share: one smoke run of the whole book, made without a network."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

PROJECT = Path(__file__).parents[1]
#: Real recordings, where this machine has any.
REAL = Path(os.environ.get("PACX_REAL", PROJECT.parent / "shared" / "real"))
#: Makes Python processes refuse the network, where the system cannot take it away.
REFUSING = {"PYTHONPATH": str(Path(__file__).parent / "offline")}

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process makes the book for `test_pages` while another tests what needs none."""
    first = PROJECT / "tests" / "book" / "test_pages.py"
    items.sort(key=lambda item: (item.path != first, item.path.parent == first.parent))


def pacx(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command line as a reader without a network does."""
    prefix, environment = cut_off()
    command = [*prefix, sys.executable, "-m", "pacx", *arguments]
    return subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, env=os.environ | environment
    )


@functools.cache
def cut_off() -> tuple[list[str], dict[str, str]]:
    """What goes before a command, and its environment, so that nothing below it has a network."""
    prefix = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"]).returncode:
        return prefix, {}
    return [], REFUSING


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """Folder that the processes of one test session share (`make test` has two)."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def smoke_runs(shared) -> Path:
    """Folder of runs with every chapter executed in profile smoke, once a test session."""
    runs, done = shared / "runs", shared / "runs.done"
    with FileLock(shared / "runs.lock"):
        if not done.exists():
            run = pacx("run", "--profile", "smoke", "--runs", str(runs))
            assert run.returncode == 0, run.stderr
            done.touch()
    return runs


@pytest.fixture(scope="session")
def html(shared, smoke_runs):
    with FileLock(shared / "html.lock"):
        if not (smoke_runs / "smoke" / "html").is_dir():
            book = pacx("book", "--profile", "smoke", "--runs", str(smoke_runs))
            assert book.returncode == 0, book.stderr
            assert "index.html" in book.stdout
    return smoke_runs / "smoke" / "html"


@pytest.fixture(scope="session")
def site(html):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
