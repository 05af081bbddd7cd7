"""The encoder as a folder that timm, the Hugging Face hub and ONNX Runtime take as it is."""

import copy
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD
from pacx.errors import PacxError
from pacx.files import new_file
from pacx.models.checkpoints import (
    MALFORMED,
    WEIGHTS,
    load_matching,
    read_config,
    read_finite,
    read_header,
    save_checkpoint,
)
from pacx.models.encoder import build_encoder, encode, encoder_config

#: Of the exported ONNX graphs; the first one that has no gaps for a vision transformer is 17.
OPSET = 18
ONNX = {"fp32": "onnx/model.onnx", "fp16": "onnx/model_fp16.onnx"}
#: Machines differ by 1e-5 in the answer to the test image, another number of heads by 0.1.
TOLERANCE = 1e-3
#: Our arguments of `build_encoder` and timm's for the same.
_TIMM_NAMES = {
    "image_size": "img_size", "patch_size": "patch_size", "width": "embed_dim", "depth": "depth",
    "heads": "num_heads", "mlp_ratio": "mlp_ratio",
}  # fmt: skip


def export_encoder(encoder: VisionTransformer, folder: str | Path) -> None:
    """Write `model.safetensors` with timm's key names, and `config.json` as the hub wants it.

    `timm.create_model("local-dir:FOLDER")`, `transformers.AutoModel.from_pretrained("FOLDER")` and,
    once uploaded, `timm.create_model("hf-hub:NAME")` build the same plain vision transformer.

    Raises:
        PacxError: The encoder has adapters, or is not of the kind that `build_encoder` makes.
    """
    plain = build_encoder(**encoder_config(encoder))
    load_matching(plain, encoder.state_dict(), "this encoder")
    output = [round(value, 6) for value in _test_output(plain.eval()).tolist()]
    save_checkpoint(encoder, timm_config(encoder) | {"test_output": output}, folder)


def load_exported(folder: str | Path) -> VisionTransformer:
    """Read what `export_encoder` wrote: every tensor, or an error.

    The weights are only read when their names, shapes and types are those of the configuration. No
    tensor tells the number of heads: the encoder must answer to a test image as it did when it was
    exported.

    Returns:
        The encoder in evaluation mode.

    Raises:
        PacxError: Files are missing or damaged, the folder holds another kind of network, its
            images are normalised in another way, a weight is not finite, or its answer is another.
    """
    folder = Path(folder)
    config, (header, _) = read_config(folder), read_header(folder / WEIGHTS)
    blocks = len({name.split(".")[1] for name in header if name.startswith("blocks.")})
    try:
        shape = {ours: config["model_args"][theirs] for ours, theirs in _TIMM_NAMES.items()}
        if any(type(value) is not int for name, value in shape.items() if name != "mlp_ratio"):
            raise TypeError("its sizes must be whole numbers")
        if shape["depth"] != blocks:
            raise ValueError(f"depth {shape['depth']} does not fit weights of {blocks} blocks")
        with torch.device("meta"):
            empty = build_encoder(**shape)
        wanted = timm_config(empty)["pretrained_cfg"]
        given = {key: config["pretrained_cfg"][key] for key in wanted}
        stored = np.array(config["test_output"], dtype=float)
    except MALFORMED as e:
        reason = repr(e).split(r"\n")[0]  # torch adds its stack
        raise PacxError(
            f"{folder / 'config.json'} is not that of an exported encoder ({reason}). "
            "Make such a folder with: pacx export RUN --to FOLDER"
        ) from e
    other = [key for key in wanted if given[key] != wanted[key]]
    if other:
        raise PacxError(
            f"{folder / 'config.json'} prepares images in another way (pretrained_cfg: "
            f"{', '.join(other)}). Export the encoder again with: pacx export"
        )
    load_matching(empty, header, folder)
    encoder = load_matching(build_encoder(**shape), read_finite(folder / WEIGHTS), folder).eval()
    output = _test_output(encoder)
    if stored.shape != output.shape or not np.abs(stored - output).max() < TOLERANCE:
        raise PacxError(
            f"{folder} answers to a test image in another way than when it was exported: a weight "
            f"or the number of heads ({shape['heads']}) has changed. Export the encoder again."
        )
    return encoder


@torch.inference_mode()
def _test_output(encoder: VisionTransformer) -> np.ndarray:
    """The first eight channels of the CLS token of waves that grow shorter to the lower right."""
    size = encoder.patch_embed.img_size[0]
    place = torch.arange(size, dtype=torch.float64)
    waves = (2 * torch.sin(place[:, None] * place / size)).float()
    return encode(encoder, waves.expand(1, 3, -1, -1))[0][0, :8].numpy()


def timm_config(encoder: VisionTransformer) -> dict:
    """The hub's `config.json`: architecture, its arguments, and how images are prepared."""
    shape = encoder_config(encoder)
    size = shape["image_size"]
    return {
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": shape["width"],
        "global_pool": "token",
        "model_args": {theirs: shape[ours] for ours, theirs in _TIMM_NAMES.items()},
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def onnx_missing() -> list[str]:
    """Packages that an ONNX export lacks on this machine."""
    return [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]


def export_onnx(encoder: VisionTransformer, folder: str | Path) -> None:
    """Write the encoder as ONNX graphs, opset `OPSET`, with a free batch size.

    Input `pixel_values` (N, 3, H, W) float32, normalised as for the encoder; outputs `cls` (N, D)
    and `patches` (N, L, D) float32. The graph of half precision takes and gives float32, too.

    Raises:
        PacxError: A package is missing; the message says how to install it.
    """
    if missing := onnx_missing():
        raise PacxError(
            f"ONNX needs {' and '.join(missing)}. Install: pip install {' '.join(missing)}"
        )
    _write_graph(encoder, Path(folder) / ONNX["fp32"])
    _write_graph(copy.deepcopy(encoder).half(), Path(folder) / ONNX["fp16"])


class _Tokens(nn.Module):
    """The encoder in its own precision, with float32 outside."""

    def __init__(self, encoder: VisionTransformer):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """CLS token (N, D) and patch tokens (N, L, D) of (N, 3, H, W)."""
        cls, patches = encode(self.encoder, pixel_values.to(self.encoder.cls_token.dtype))
        return cls.float(), patches.float()


def _write_graph(encoder: VisionTransformer, path: Path) -> None:
    images = torch.zeros(2, 3, *encoder.patch_embed.img_size)
    names = {"input_names": ["pixel_values"], "output_names": ["cls", "patches"]}
    free = {name: {0: "batch"} for group in names.values() for name in group}
    with warnings.catch_warnings(), new_file(path) as partial:
        warnings.simplefilter("ignore")  # it announces its successor
        # The exporter through torch.export needs another package and fifty times longer, for a
        # graph that gives the same numbers.
        torch.onnx.export(
            _Tokens(encoder).eval(), (images,), str(partial),
            opset_version=OPSET, dynamic_axes=free, dynamo=False, **names,
        )  # fmt: skip
