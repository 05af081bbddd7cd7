"""How every chapter starts."""

import warnings
from pathlib import Path

from IPython.display import HTML

from pacx.data.datasets import require_data
from pacx.errors import NoDataError
from pacx.figures.style import use_style
from pacx.phantom.hospital import write_hospital
from pacx.run import Run, open_run


def open_chapter(profile: str = "demo", runs: str | Path = "runs", needs: str | None = None) -> Run:
    """Open the run, make sure that it has patients, and set the figure style.

    With `data_root: null` the phantom hospital is written to `runs/<profile>/data` once; otherwise
    the reader's own data are used and nothing is written there.

    Args:
        profile: Name of a profile, or path of a YAML file.
        runs: Folder of all runs.
        needs: What the chapter cannot do without: `symile-mimic`, or a stage that
            `pacx.data.datasets.lacking` knows.

    Raises:
        NoDataError: The run has no such data.
        PacxError: The profile is unknown or wrong, the run folder cannot be written, or its phantom
            hospital cannot: a data set or split is unknown, a number impossible, or a folder in
            `data` holds something else.

    Example:
        >>> run = open_chapter("smoke")
    """
    run = open_run(profile, runs)
    if needs == "symile-mimic" != run.profile.pairs:
        raise NoDataError(f"This chapter reads {needs}; the profile's pairs are another data set.")
    if needs is not None:
        require_data(run, needs)
    if run.is_phantom:
        write_hospital(run.data_root, **run.profile.phantom.model_dump())
    use_style()
    # Chapters show results, not the deprecation notices of the packages they use.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    return run


def banner(run: Run) -> HTML:
    """What a reader must know about a page's numbers: whose patients, which profile, when."""
    made = run.provenance()
    if run.is_phantom:
        data = (
            "<b>Simulated patients.</b> Differences between models are informative; absolute "
            "scores do not transfer to real patients."
        )
    else:
        data = f"<b>Real data</b>, read from {run.data_root.name}."
    return HTML(
        f'<div class="admonition note"><p class="admonition-title">Profile {made["profile"]}</p>'
        f"<p>{data} Cohort {made['cohort']}, seed {made['seed']}, "
        f"made {made['made'][:10]} from {made['commit']}. {run.profile.description}</p></div>"
    )
