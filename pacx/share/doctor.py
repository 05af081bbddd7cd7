"""What this machine has, and what it lacks."""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import psutil
import torch
from packaging.requirements import Requirement
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pacx.data.dicom import CODECS
from pacx.profile import available_profiles, load_profile

#: Compressed transfer syntaxes that X-rays come in.
COMPRESSIONS = {
    "JPEG": JPEGBaseline8Bit, "JPEG lossless": JPEGLosslessSV1, "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless, "RLE": RLELossless,
}  # fmt: skip


def facts(runs: Path) -> dict[str, object]:
    """What decides whether a run will go well: versions, cores, memory, disk, GPU, profiles."""
    browsers = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    parent = next(p for p in (runs.resolve(), *runs.resolve().parents) if p.is_dir())
    table = {
        "pacx": metadata.version("pacx"),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "disk": f"{shutil.disk_usage(parent).free / 2**30:.1f} GiB free for {runs}",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none, not needed",
        "pages": "pip install 'pacx[book]' first" if unmet_requirements("book") else "can be made",
        "Chromium": next(filter(None, browsers), "none, only the browser tests need it"),
    }
    for name, syntax in COMPRESSIONS.items():
        has_codec = get_decoder(syntax).is_available
        table[f"DICOM {name}"] = "read" if has_codec else f"no codec: pip install {CODECS}"
    for name in available_profiles():
        profile = load_profile(name)
        table[f"profile {name}"] = profile.description
        if (weights := profile.ecg.weights) is not None:
            state = "found" if weights.is_file() else "missing"
            table[f"profile {name}"] += f" ECG weights {weights}: {state}."
    return table


def unmet_requirements(extra: str = "") -> list[str]:
    """Requirements of `pacx`, or with an extra also its, that are missing or of another version."""
    unmet = []
    for line in metadata.requires("pacx") or []:
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": extra}):
            continue
        try:
            if not need.specifier.contains(metadata.version(need.name), prereleases=True):
                unmet.append(f"{need} (found {metadata.version(need.name)})")
        except metadata.PackageNotFoundError:
            unmet.append(str(need))
    return unmet
