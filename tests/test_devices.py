"""Whatever is heavy computes on the accelerator, if there is one: shown on a pretend one."""

import os
import subprocess
import sys

import pytest
from conftest import PROJECT
from torch.utils import backend_registration


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch cannot register an accelerator from Python",
)
def test_networks_compute_on_the_accelerator_as_on_the_cpu():
    """In a process of its own, since an accelerator cannot be unregistered."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/on_phonygpu.py"],
        cwd=PROJECT, capture_output=True, text=True, env=os.environ | {"TQDM_DISABLE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
