"""Weights on disk: safetensors beside a small JSON file, read back completely or not at all."""

import argparse
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from pacx.errors import PacxError
from pacx.files import new_file

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
#: Bytes that settings, and the names and shapes of tensors, may take: fifty times what ours need.
MOST_TEXT = 2**20
#: What code raises that reads values of another kind than it expects out of somebody's file.
MALFORMED = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError)


def save_checkpoint(module: nn.Module, config: Mapping, folder: str | Path) -> None:
    """Write `model.safetensors` and `config.json` into a folder, each under a temporary name first.

    `config` is what is needed to build the module again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share memory, hence the copies.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    with new_file(folder / WEIGHTS) as weights, new_file(folder / CONFIG) as settings:
        save_file(state, weights)
        settings.write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")


def read_checkpoint(folder: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read the two files that `save_checkpoint` wrote.

    Returns:
        The settings and the state dict, on the CPU.

    Raises:
        PacxError: A file is missing or is not what its name says.
    """
    config = read_config(folder)
    try:
        return config, load_file(Path(folder) / WEIGHTS)
    except SafetensorError as error:
        raise PacxError(f"{folder} cannot be read: {error}. Save the model again.") from error


def read_config(folder: str | Path) -> dict:
    """The settings alone.

    Raises:
        PacxError: One of the two files is missing, or this one is no JSON object of a normal size.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise PacxError(
                f"{folder} holds no {name}. A saved model is a folder with {WEIGHTS} and {CONFIG}; "
                "give that folder."
            )
    path = folder / CONFIG
    if path.stat().st_size > MOST_TEXT:
        raise PacxError(f"{path} is too large for settings. Save the model again.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PacxError(f"{folder} cannot be read: {error}. Save the model again.") from error
    if not isinstance(config, dict):
        raise PacxError(f"{path} is not a JSON object. Save the model again.")
    return config


def read_header(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors of a safetensors file without their values (on torch's device `meta`), and its texts.

    Raises:
        PacxError: The file is missing or damaged, or holds something else than 32-bit floats.
    """
    try:
        with path.open("rb") as start:
            if int.from_bytes(start.read(8), "little") > MOST_TEXT:
                raise ValueError("its header is too large")
        with safe_open(path, "pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            if other := [name for name, part in found.items() if part.get_dtype() != "F32"]:
                raise ValueError(f"{other[0]} is not of 32-bit floats")
            empty = {n: torch.empty(part.get_shape(), device="meta") for n, part in found.items()}
            return empty, file.metadata() or {}
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise PacxError(f"{path} cannot be read: {error}. Save it again.") from error


def read_finite(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file whose header was found right.

    Raises:
        PacxError: A value is not finite.
    """
    state = load_file(path)
    if broken := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise PacxError(f"{path} holds values that are not finite, first in {broken[0]}.")
    return state


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file from elsewhere; nothing in the file is executed.

    Raises:
        PacxError: The file is damaged, holds more than weights, or no state dict, or its content is
            larger than the file.
    """
    size = path.stat().st_size
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            if zipfile.is_zipfile(path):  # torch writes its archives without compression
                with zipfile.ZipFile(path) as archive:
                    if sum(part.file_size for part in archive.infolist()) > size:
                        raise ValueError("it inflates to more than it holds")
            # Many trainings put their arguments beside the weights: plain values under names.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its parsers stumble over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PacxError(
            f"{path} is damaged or holds more than weights, so it was not loaded ({reason}). "
            "Get it again, or have its author save the state dict alone."
        ) from error
    if isinstance(content, dict):
        # Lightning and ECGFounder say state_dict, the public MAE weights say model.
        content = content.get("state_dict", content.get("model", content))
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in content.values()
    ):
        raise PacxError(f"{path} holds no state dict (name to tensor), nor one in it.")
    # Tensors may share values; some would take far more room once each has its own.
    if sum(value.numel() * value.element_size() for value in content.values()) > 2 * size:
        raise PacxError(
            f"{path} was not loaded: its tensors are larger than the file that holds them."
        )
    return content


def load_matching(
    module: nn.Module, state: Mapping[str, torch.Tensor], source: str | Path
) -> nn.Module:
    """Load a state dict whose every name and shape matches into a module, and give that back.

    Raises:
        PacxError: Names are missing or unexpected, or shapes differ; `source` says of what weights.
    """
    wanted = module.state_dict()
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    found = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": shapes,
    }
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in found.items()
        if names
    ]
    if problems:
        raise PacxError(
            f"The weights in {source} do not fit {type(module).__name__}: of {len(wanted)} "
            f"tensors, {'; '.join(problems)}. Nothing was loaded: give the file that belongs to "
            "this model."
        )
    module.load_state_dict(dict(state), strict=True)
    return module
