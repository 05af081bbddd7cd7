"""A run: one folder that holds everything that a profile has produced.

Below `runs/<profile>/` lie `profile.yaml`, `data/` (phantoms), `cache/`, `artefacts/<name>/`,
`results/*.parquet` and `notebooks/`; the command line adds `book/` and `html/`. On data that are
not open `notebooks/` shows aggregates only, and `private/` has the whole chapters.
"""

import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path

import pandas as pd
import yaml

from pacx import processes
from pacx.errors import DiskFullError, PacxError
from pacx.files import (
    code_of,
    content_of,
    fingerprint,
    locked,
    naming_full_disk,
    new_file,
    replace_folder,
)
from pacx.profile import Profile, load_profile

#: What a long training leaves, in the folder that it fills, to go on from after it was killed.
CHECKPOINT = "training.ckpt"

_CHAPTERS = {
    "mae": "02_cxr_mae", "labs": "03_lab_autoencoder", "ecg": "04_ecg_teacher",
    "pacx": "05_distillation", "supervised": "06_clinical_transfer",
}  # fmt: skip


class Run:
    """Typed paths of one run, and the two ways to fill it: artefacts and results.

    Making one touches no file: `open_run` starts a run, `find_run` reads one that is there.
    """

    def __init__(self, profile: Profile, root: str | Path = "runs"):
        self.profile = profile
        self.folder = Path(root) / profile.name
        self.cache = self.folder / "cache"
        self.artefacts = self.folder / "artefacts"
        self.results = self.folder / "results"
        self.notebooks = self.folder / "notebooks"
        self.private = self.folder / "private"

    @property
    def data_root(self) -> Path:
        """Where the data sets lie: the reader's own, or the phantom hospital of this run."""
        return self.profile.data_root or self.folder / "data"

    @property
    def is_phantom(self) -> bool:
        """Whether every patient in this run is made up."""
        return self.profile.data_root is None

    @property
    def fingerprint_of_data(self) -> str:
        """Changes with the phantoms' settings and code, or with the real data's tables.

        Of the files, name and content count, not where they lie. Phantoms follow from profile and
        code.
        """
        if self.is_phantom:
            return fingerprint(self.profile.phantom, code_of("pacx.phantom.hospital"))
        tables = "*/*.csv", "*/*/*.csv", "*/dataset.yaml"
        files = [f for at in tables for f in self.data_root.glob(at)]
        files = [f for f in sorted(files) if f.is_file()]
        names = (f.relative_to(self.data_root).as_posix() for f in files)
        used = self.profile.pretraining, self.profile.pairs
        return fingerprint(*used, *names, *(content_of(f, self.cache) for f in files))

    def artefact(self, name: str) -> Path:
        """Folder of an artefact that an earlier chapter made.

        Raises:
            PacxError: It is not there; the message names the chapter to run.
        """
        folder = self.artefacts / name
        if not (folder / "made.json").is_file():
            chapter = _CHAPTERS.get(name.split("-")[0], "01_cohort")
            raise PacxError(
                f"{folder} is missing. Run chapter {chapter} first: "
                f"pacx run --profile {self.profile.name} --only {chapter[:2]}"
            )
        return folder

    def build(self, name: str, make: Callable[[Path], None], *settings: object) -> Path:
        """Return `artefacts/<name>`, made now unless a valid one is there.

        `make` fills a temporary folder, which takes its name only when `make` has returned, so a
        killed run leaves nothing half-made; of what it left, only `CHECKPOINT` is kept, and only
        for the same artefact. An artefact is valid as long as `settings`, the data and the code
        of `make`'s module, with all that it imports, are the ones it was made with. Processes
        that train together all call this; what the first has made is kept. Another command that
        makes the same artefact is waited for.

        Args:
            name: Folder name, a model name such as `mae` or `pacx-shuffled`.
            make: Writes the artefact into the folder that it is given.
            *settings: Everything else that `make` depends on, see `pacx.files.fingerprint`.
        """
        folder = self.artefacts / name
        key = fingerprint(self.fingerprint_of_data, code_of(make.__module__), *settings)
        if not _is_made(folder, key):
            with locked(folder):
                if not _is_made(folder, key):  # by the process that was waited for
                    self._make(folder, key, make)
        return folder

    def save_results(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write a tidy table to `results/<name>.parquet` and give it back."""
        with new_file(self.results / f"{name}.parquet") as partial:
            frame.to_parquet(partial, index=False)
        return frame

    def find_results(self, name: str) -> pd.DataFrame | None:
        """Read what `save_results` wrote; None where no chapter of this run has written it yet."""
        source = self.results / f"{name}.parquet"
        return pd.read_parquet(source) if source.is_file() else None

    def load_results(self, name: str) -> pd.DataFrame:
        """Read what `save_results` wrote.

        Raises:
            PacxError: No chapter of this run has written it yet.
        """
        table = self.find_results(name)
        if table is None:
            raise PacxError(
                f"{self.results / f'{name}.parquet'} is missing. Run the earlier chapters first: "
                f"pacx run --profile {self.profile.name}"
            )
        return table

    def provenance(self) -> dict:
        """Who made a number: profile, seeds, commit, versions, machine, time (UTC)."""
        packages = ("torch", "timm", "peft", "numpy", "scikit-learn")
        return {
            "profile": self.profile.name,
            "seed": self.profile.seed,
            "cohort": self.profile.phantom.seed if self.is_phantom else "real data",
            "commit": _commit(),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        }

    @cached_property
    def settings_hash(self) -> str:
        """Short hash of the whole profile, but for where real data lie."""
        return fingerprint(_settings(self.profile))[:12]

    def _make(self, folder: Path, key: str, make: Callable[[Path], None]) -> None:
        partial = folder.with_name(f".{folder.name}.partial")
        if processes.rank() == 0:
            _empty(partial, key)
        processes.wait()
        started = time.perf_counter()
        if processes.rank():
            _help(make, partial)
            return
        try:
            with naming_full_disk(folder):
                make(partial)
        except PacxError as error:
            if not isinstance(error, DiskFullError):  # what was wrong will be mended: begin anew
                shutil.rmtree(partial)
            raise
        made = {"key": key, "seconds": time.perf_counter() - started, **self.provenance()}
        text = json.dumps(made, indent=1, default=str)
        (partial / "made.json").write_text(text, encoding="utf-8")
        for file in (CHECKPOINT, "key"):
            (partial / file).unlink(missing_ok=True)
        replace_folder(partial, folder)
        processes.wait()


def open_run(profile: str | Path | Profile = "demo", root: str | Path = "runs") -> Run:
    """Open, or start, the run of a profile.

    Notebooks and results that were made with other settings are set aside as `notebooks.before` and
    `results.before`, so that one folder holds one profile's numbers.

    Args:
        profile: Name of a profile, path of a YAML file, or a `Profile`.
        root: Folder that holds all runs.

    Raises:
        PacxError: The profile is unknown or wrong, or the run folder cannot be written.
    """
    run = Run(profile if isinstance(profile, Profile) else load_profile(profile), root)
    if processes.rank() == 0:
        _claim(run)
    return run


def find_run(profile: str | Path | Profile, root: str | Path = "runs") -> Run:
    """Open a run that was started before with the same settings; nothing in it is changed.

    Raises:
        PacxError: There is none, or its settings are others.
    """
    run = Run(profile if isinstance(profile, Profile) else load_profile(profile), root)
    stamp, name = run.folder / "profile.yaml", run.profile.name
    if not stamp.is_file():
        raise PacxError(f"{run.folder} holds no run. Start it: pacx run --profile {name}")
    if not _is_of(stamp, run.profile):
        raise PacxError(
            f"{run.folder} was run with other settings than those of profile {name} now. "
            f"Give its own, --profile {stamp}, or run it anew: pacx run --profile {name}"
        )
    return run


def _claim(run: Run) -> None:
    """Note the profile in the run's folder, and set aside what another one has made there."""
    stamp = run.folder / "profile.yaml"
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        if stamp.is_file() and not _is_of(stamp, run.profile):
            _set_aside(run)
        text = yaml.safe_dump(run.profile.model_dump(mode="json"), sort_keys=False)
        with new_file(stamp) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PacxError(
            f"The run folder {run.folder} cannot be written ({error.strerror}). "
            "Choose another one with --runs."
        ) from error


def _is_of(stamp: Path, profile: Profile) -> bool:
    try:
        return _settings(load_profile(stamp)) == _settings(profile)
    except PacxError:  # of an older pacx, say
        return False


def _settings(profile: Profile) -> dict:
    """All that decides what is made: data may be moved."""
    return profile.model_dump(mode="json") | {"data_root": profile.data_root is not None}


def _set_aside(run: Run) -> None:
    for made in (run.notebooks, run.results):
        if made.is_dir() and any(made.iterdir()):
            before = made.with_name(f"{made.name}.before")
            older = " in place of older ones" if before.exists() else ""
            print(f"The settings of {run.folder} changed: {made.name} go to {before}{older}.")
            shutil.rmtree(before, ignore_errors=True)
            made.rename(before)


def _is_made(folder: Path, key: str) -> bool:
    """Whether an artefact is valid, as the first of all processes sees it."""
    stamp = folder / "made.json"
    made = stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8"))["key"] == key
    return processes.agree(made)


def _help(make: Callable[[Path], None], partial: Path) -> None:
    """Take part in a training that the first process keeps, and go on from its checkpoint."""
    with tempfile.TemporaryDirectory() as own:
        (Path(own) / CHECKPOINT).symlink_to(partial.resolve() / CHECKPOINT)
        make(Path(own))
    processes.wait()


def _empty(partial: Path, key: str) -> None:
    """Start a partial folder, with the checkpoint that a killed process left for the same key."""
    stamp, kept = partial / "key", []
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == key:
        kept = [stamp, partial / CHECKPOINT]
    if not kept:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        stamp.write_text(key, encoding="utf-8")
    for left in set(partial.iterdir()) - {stamp, *kept}:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _commit() -> str:
    here = Path(str(resources.files("pacx")))

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "run.py")  # else it lies in another repository's .venv
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return f"pacx {metadata.version('pacx')}"
