"""One distillation step at ViT-B/16 and 224 px: teachers precomputed against teachers in the loop.

Forward, backward and AdamW of the CXR tower with LoRA, the heads and the loss. In the loop stand
the ECG teacher at ECGFounder's size, on 10 s at 500 Hz, and the lab encoder, both frozen. Seconds a
step and peak memory of each; with `--bf16` also of the precomputed step in bf16.
"""

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

from _measure import serve, take_turns, write_report

WAYS = {
    "precomputed": ["precomputed", "fp32"],
    "teachers in the loop": ["loop", "fp32"],
}


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="also bf16; slow where emulated")
    parser.add_argument("--depth", type=int, default=12, help="fewer blocks for a quick look")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(lambda: make(*options.child, options))
        return
    ways = dict(WAYS)
    if options.bf16:
        ways["precomputed, bf16"] = ["precomputed", "bf16"]
    load = os.getloadavg()[0]
    shared = ["--batch", str(options.batch), "--device", options.device]
    shared += ["--depth", str(options.depth)]
    arguments = {name: [*shared, "--child", *way] for name, way in ways.items()}
    results = take_turns(__file__, arguments, options.repeats)
    base = results["precomputed"]
    memory = "gpu_peak_mib" if options.device == "cuda" else "peak_mib"
    ratios = [
        {
            "what": f"Distillation step, {what}: {name} over precomputed",
            "value": other[key] / base[key],
            "target": None,
        }
        for name, other in results.items()
        if name != "precomputed"
        for what, key in (("seconds", "seconds"), ("memory", memory))
    ]
    write_report({"batch": options.batch, "ways": results, "ratios": ratios}, options.json, load)


def make(way: str, precision: str, options: argparse.Namespace):
    """The child: the step of one way."""
    import torch

    from pacx.models.distillation import DistillationHeads, DistillationLoss
    from pacx.models.ecg_founder import ECG_FOUNDER, Net1D
    from pacx.models.encoder import add_lora, build_encoder, encode, trainable_parameters
    from pacx.models.lab_autoencoder import LabAutoencoder

    torch.manual_seed(0)
    device, n = options.device, options.batch
    student = add_lora(build_encoder(224, 16, 768, options.depth, 12)).to(device).train()
    images = torch.randn(n, 3, 224, 224, device=device)
    widths = {"ecg": ECG_FOUNDER["filter_list"][-1], "labs": 256}
    if way == "loop":
        net = Net1D(**ECG_FOUNDER).to(device).eval()
        labs = LabAutoencoder().to(device).eval()
        signal = torch.randn(n, 12, 5000, device=device)
        percentiles, observed = torch.rand(n, 50, device=device), torch.ones(n, 50, device=device)
    else:
        embeddings = {m: torch.randn(n, width, device=device) for m, width in widths.items()}
    heads = DistillationHeads(768, widths).to(device)
    loss = DistillationLoss().to(device)
    weights = [p for m in (student, heads, loss) for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.05, fused=True)
    half = precision == "bf16"

    def teach() -> dict:
        if way == "precomputed":
            return embeddings
        with torch.no_grad():
            return {"ecg": net.features(signal), "labs": labs.embed(percentiles, observed)}

    def step() -> None:
        optimiser.zero_grad()
        teachers = teach()
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            cls, _ = encode(student, images)
        loss(heads(cls.float(), teachers), teachers)["total"].backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step, {"precision": precision, "trained_parameters": trainable_parameters(student)}


if __name__ == "__main__":
    main()
