"""How every chapter starts."""

import warnings
from pathlib import Path

from pacx.figures.style import use_style
from pacx.phantom.hospital import write_hospital
from pacx.run import Run, open_run


def open_chapter(profile: str = "demo", runs: str | Path = "runs") -> Run:
    """Open the run, make sure that it has patients, and set the figure style.

    With `data_root: null` the phantom hospital is written to `runs/<profile>/data` once; otherwise
    the reader's own data are used and nothing is written there.

    Args:
        profile: Name of a profile, or path of a YAML file.
        runs: Folder of all runs.

    Raises:
        PacxError: The profile is unknown, or the run folder cannot be written.
    """
    run = open_run(profile, runs)
    if run.is_phantom:
        phantom = run.profile.phantom
        write_hospital(
            run.data_root, phantom.patients, phantom.image_size, phantom.ecg_hz, phantom.seed
        )
    use_style()
    # Chapters show results, not the deprecation notices of the packages they use.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    return run
