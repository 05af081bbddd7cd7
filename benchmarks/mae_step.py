"""One MAE training step: ours against facebookresearch/mae's model, at ViT-B/16 and 224 px.

Forward, backward and AdamW on one batch, 90 % masked: seconds a step, images a second, peak memory.
With `--reference`, a checkout of facebookresearch/mae, its `mae_vit_base_patch16` runs unchanged:
once with the plain attention of the timm that it asks for, once with the fused attention of the
timm that is installed. On a GPU it uses its own 16-bit AMP, on a CPU our precision. Both start from
the same weights and must give the same loss. Without `--reference` only our variants are compared.
"""

import argparse
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

from _measure import serve, take_turns, write_report

MASK_RATIO = 0.9
#: In the order of `_measure.take_turns`; "ours" is what the others are held against.
REFERENCES = ("reference", "reference, fused attention")
TYPES = {"bf16": "bfloat16", "fp16": "float16"}


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, help="checkout of facebookresearch/mae")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", *TYPES), default="fp32")
    parser.add_argument("--bf16", action="store_true", help="also bf16; slow where emulated")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--depth", type=int, default=12, help="fewer blocks for a quick look")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for the share reached")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(lambda: make(*options.child, options))
        return
    ways = {"ours": ("ours", options.precision)}
    if options.bf16:
        ways["ours, bf16"] = ("ours", "bf16")
    if options.compile and shutil.which("g++"):
        ways["ours, compiled"] = ("compiled", options.precision)
    if options.reference:
        theirs = "fp16" if options.device == "cuda" else options.precision
        ways |= {name: (name, theirs) for name in REFERENCES}
    load = os.getloadavg()[0]
    shared = ["--batch", str(options.batch), "--device", options.device]
    shared += ["--depth", str(options.depth)]
    if options.reference:
        shared += ["--reference", str(options.reference.resolve())]
    arguments = {name: [*shared, "--child", *way] for name, way in ways.items()}
    results = take_turns(__file__, arguments, options.repeats)
    report = {"precision": options.precision, "batch": options.batch, "ways": results}
    if options.compile and not shutil.which("g++"):
        report["compiled"] = "not measured: torch.compile needs a C++ compiler"
    for result in results.values():
        result["images_a_second"] = options.batch / result["seconds"]
        if options.peak_tflops:
            reached = results["ours"]["flops"] / result["seconds"] / 1e12
            result["share_of_peak"] = reached / options.peak_tflops
    report["ratios"] = compare(results, options.device)
    write_report(report, options.json, load)


def compare(results: dict[str, dict], device: str) -> list[dict]:
    """Every other way's seconds and memory over ours; the losses must agree.

    Raises:
        SystemExit: The same weights and images gave another loss.
    """
    ours, ratios = results["ours"], []
    memory = "gpu_peak_mib" if device == "cuda" else "peak_mib"
    for name, other in results.items():
        if name == "ours":
            continue
        if abs(other["loss"] - ours["loss"]) > 1e-4 * ours["loss"]:
            raise SystemExit(f"'{name}' has the loss {other['loss']}, ours is {ours['loss']}.")
        first = name == "reference"
        target = (2.0 if device == "cuda" else 1.0) if first else None
        for what, key, wanted in (
            ("seconds", "seconds", target),
            ("memory", memory, 1.0 if first and device == "cpu" else None),
        ):
            what = f"MAE step, {what}: {name} over ours"
            ratios.append({"what": what, "value": other[key] / ours[key], "target": wanted})
    return ratios


def make(way: str, precision: str, options: argparse.Namespace):
    """The child: the step of one way, and its loss in 32 bit before the first update."""
    if way == "reference":
        os.environ["TIMM_FUSED_ATTN"] = "0"  # before timm is imported
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from pacx.models.encoder import build_encoder
    from pacx.models.mae import MaskedAutoencoder

    torch.manual_seed(0)
    model = MaskedAutoencoder(build_encoder(224, 16, 768, options.depth, 12), 512, 8, 16)
    ours = way not in REFERENCES
    if not ours:
        # Both models exist for a moment: less than gradients and moments take later.
        model = reference_like(model, options)
    model.to(options.device)
    torch.manual_seed(1)  # the same images and mask, whatever was drawn for weights
    images = torch.randn(options.batch, 3, 224, 224).to(options.device)

    def loss_of(batch):
        return model(batch, MASK_RATIO)[0]

    with torch.no_grad():
        facts = {"loss": loss_of(images).item(), "precision": precision}
    if way == "ours":
        # The counter knows the plain attention on every device.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            loss_of(images[:1]).backward()
        facts["flops"] = counter.get_total_flops() * options.batch
    if way == "compiled":
        model.compile()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=ours or None
    )
    scaler = torch.amp.GradScaler(options.device, enabled=precision == "fp16")
    kind = getattr(torch, TYPES[precision]) if precision in TYPES else None

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(options.device, kind) if kind else nullcontext():
            loss = loss_of(images)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return step, facts


def reference_like(model, options: argparse.Namespace):
    """The reference with the weights of our model; what it misses in new libraries is filled in."""
    import sys
    from functools import partial

    import numpy as np
    import timm.models.vision_transformer as vit
    from torch import nn

    block = vit.Block
    vit.Block = lambda *args, qk_scale=None, **more: block(*args, **more)  # always None there
    vars(np)["float"] = float
    sys.path.insert(0, str(options.reference))
    import models_mae

    theirs = models_mae.MaskedAutoencoderViT(
        embed_dim=768,
        depth=options.depth,
        num_heads=12,
        decoder_embed_dim=512,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    state = {name.removeprefix("encoder."): w for name, w in model.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs


if __name__ == "__main__":
    main()
