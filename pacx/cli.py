"""The command line. Heavy imports wait inside the commands, so that `--help` answers at once."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from pacx.errors import PacxError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="PaCX-MAE, the executable book: run its chapters, build its pages, make its patients.",
)

Profile = Annotated[
    str, typer.Option(help="Name of a profile (`pacx doctor` lists them), or a .yaml file.")
]
Runs = Annotated[Path, typer.Option(help="Folder of the runs; a profile's run is a folder in it.")]
Project = Annotated[Path, typer.Option(help="Checkout of the book's repository.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of the real data sets; replaces the profile's own `data_root`."),
]


def main() -> None:
    """Run a command. Bad input: one line on stderr and exit code 1, no traceback."""
    try:
        app()
    except PacxError as error:
        print(f"pacx: {error}", file=sys.stderr)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("pacx"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    profile: Profile = "demo",
    only: Annotated[
        str | None, typer.Option(help="One chapter, by number or name: 05 or 05_distillation.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Execute chapters that have not changed, too.")
    ] = False,
    data_root: DataRoot = None,
    runs: Runs = Path("runs"),
    project: Project = Path(),
) -> None:
    """Execute the chapters. What is up to date is skipped; a stopped run goes on from there."""
    from pacx.book import execute

    execute(_open(profile, runs, data_root), only=only, force=force, project=project)


@app.command()
def book(
    profile: Profile = "demo",
    data_root: DataRoot = None,
    runs: Runs = Path("runs"),
    project: Project = Path(),
) -> None:
    """Build the HTML from executed chapters, and print where it is."""
    from pacx.book import build

    print(f"The book is at {build(_open(profile, runs, data_root), project=project).resolve()}")


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Folder to write into; data sets in it are kept.")],
    profile: Profile = "demo",
) -> None:
    """Write the phantom hospital: every data set, in the layout of the real one."""
    from pacx.profile import load_profile

    settings = load_profile(profile).phantom

    from pacx.phantom.hospital import write_hospital

    write_hospital(out, settings.patients, settings.image_size, settings.ecg_hz, settings.seed)
    print(f"The phantom hospital is at {out.resolve()}")


@app.command()
def doctor(runs: Runs = Path("runs")) -> None:
    """Say what this machine has, and what is missing. Exit code 1 when something needed is."""
    import os
    import platform
    import shutil

    import psutil
    import torch

    from pacx.profile import available_profiles, load_profile

    browsers = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    parent = next(p for p in (runs.resolve(), *runs.resolve().parents) if p.is_dir())
    facts = {
        "pacx": metadata.version("pacx"),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "disk": f"{shutil.disk_usage(parent).free / 2**30:.1f} GiB free for {runs}",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none, not needed",
        "Chromium": next(filter(None, browsers), "none, only the browser tests need it"),
    }
    for name in available_profiles():
        weights = load_profile(name).ecg.weights
        facts[f"profile {name}"] = load_profile(name).description
        if weights is not None:
            found = "found" if weights.is_file() else "missing"
            facts[f"profile {name}"] += f" ECG weights {weights}: {found}."
    for name, value in facts.items():
        print(f"{name + ':':<18}{value}")
    if problems := _unmet_requirements():
        raise PacxError(f"Missing: {', '.join(problems)}. Run: make book")


def _unmet_requirements() -> list[str]:
    from packaging.requirements import Requirement

    unmet = []
    for line in metadata.requires("pacx") or []:
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            if not need.specifier.contains(metadata.version(need.name), prereleases=True):
                unmet.append(f"{need} (found {metadata.version(need.name)})")
        except metadata.PackageNotFoundError:
            unmet.append(str(need))
    return unmet


def _open(profile: str, runs: Path, data_root: Path | None):
    from pacx.profile import load_profile
    from pacx.run import open_run

    return open_run(load_profile(profile, data_root), runs)
