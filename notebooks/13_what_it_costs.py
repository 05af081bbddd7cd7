# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What it costs
#
# How much computing the paper's settings ask for, where it goes, and how long that takes on which
# graphics card.
#
# Reading time: about 6 minutes.

# %% tags=["hide-cell"]
# Installs the library where it is missing, as on Colab; does nothing where it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("pacx") is None:
    source = "pacx @ git+https://github.com/pacx-book/pacx-mae-book"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %% tags=["parameters"]
profile = "demo"  # name of a profile, or path of a .yaml file
runs = "runs"  # folder that holds all runs

# %% tags=["remove-input"]
from pacx.book.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - How many operations each stage takes with the paper's settings, counted, not guessed.
# - Why the masked autoencoder is nearly all of the cost.
# - How many hours that is on a card, and what is assumed for it.
# - What your own run took.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | {term}`MAE` | the expensive part | [chapter 02](02_cxr_mae) |
# | {term}`Distillation`, {term}`Adapter` | the cheap part | [chapter 05](05_distillation) |

# %% [markdown]
# ## Counting operations
#
# A network's cost in matrix products does not depend on the values in it. So one row goes through
# each stage on torch's *meta* device, which knows shapes and computes nothing, while a counter adds
# up the products: forward, and backward through whatever is trained. A multiplication and an
# addition are two operations.

# %%
import torch
from torch.utils.flop_counter import FlopCounterMode


def gflop(step) -> float:
    """10^9 operations of a step forward and, where it trains, back."""
    with FlopCounterMode(display=False) as counter:
        result = step()
        if result.requires_grad:
            result.backward()
    return counter.get_total_flops() / 1e9


# %% [markdown]
# One X-ray through the masked autoencoder, with the shapes of the paper:

# %%
from pacx.models.encoder import add_lora, build_encoder, encode
from pacx.models.mae import MaskedAutoencoder
from pacx.profile import load_profile


def mae_row(profile) -> float:
    mae, shape = profile.mae, profile.vit.model_dump()
    decoder = mae.decoder_width, mae.decoder_depth, mae.decoder_heads
    with torch.device("meta"):
        model = MaskedAutoencoder(build_encoder(**shape), *decoder)
        x_ray = torch.ones(1, 3, shape["image_size"], shape["image_size"])
        return gflop(lambda: model(x_ray, mae.mask_ratio).loss)


paper = load_profile("paper")
counted = {"X-rays: masked autoencoder": mae_row(paper)}

# %% [markdown]
# One admission's blood tests through their autoencoder, and one ECG of ten seconds through its
# teacher, which is not trained. The lab autoencoder looks at its input, which a *meta* tensor lacks;
# it is small enough to be computed.

# %%
from pacx.models.ecg_founder import ECG_FOUNDER, Net1D
from pacx.models.lab_autoencoder import LabAutoencoder, masked_mse

autoencoder, labs = LabAutoencoder(), torch.ones(1, 50)
counted["Blood tests: lab autoencoder"] = gflop(
    lambda: masked_mse(autoencoder(labs, labs)[0], labs, labs)
)
with torch.device("meta"):
    teacher = Net1D(**ECG_FOUNDER).eval().requires_grad_(False)
    ecg = torch.ones(1, 12, 5000)
    operations = gflop(lambda: teacher.features(ecg))
counted["ECG teacher: embeddings, once"] = operations

# %% [markdown]
# One pair through the distillation: the X-ray tower with its adapters and the heads, towards
# embeddings of the teachers that are there already.

# %%
from pacx.models.distillation import DistillationHeads, DistillationLoss

vit, distill, widths = paper.vit, paper.distill, {"ecg": 1024, "labs": 256}
with torch.device("meta"):
    x_ray = torch.ones(1, 3, vit.image_size, vit.image_size)
    targets = {name: torch.ones(1, size) for name, size in widths.items()}
    student = build_encoder(**vit.model_dump())
    student = add_lora(student, rank=distill.lora_rank, norms=distill.norms)
    heads = DistillationHeads(vit.width, widths, distill.shared_dim)
    loss = DistillationLoss()

    def step():
        predicted = heads(encode(student, x_ray)[0], targets)
        return loss(predicted, targets)["total"]

    counted["Distillation: X-ray tower and heads"] = gflop(step)

# %% [markdown]
# And, for the probes, one X-ray through the finished encoder:

# %%
with torch.device("meta"):
    encoder = build_encoder(**vit.model_dump()).eval().requires_grad_(False)
    forward = gflop(lambda: encode(encoder, x_ray)[0])
counted["Features of NIH-14, once"] = forward

# %% [markdown]
# That times the rows of the real data sets, as their publishers state them, and the epochs of the
# paper. What runs once has no steps.

# %%
from pacx.figures.tables import show

pairs, runs_once = 10_000, None
plan = {"X-rays: masked autoencoder": ("1", 191_027, paper.mae)}
plan["Blood tests: lab autoencoder"] = ("1", pairs, paper.labs)
plan["ECG teacher: embeddings, once"] = ("2", pairs, runs_once)
plan["Distillation: X-ray tower and heads"] = ("2", pairs, paper.distill)
plan["Features of NIH-14, once"] = ("3", 112_120, runs_once)

# %%
import pandas as pd

costs = pd.DataFrame(
    {
        "stage": stage,
        "what": what,
        "rows": rows,
        "epochs": trained.epochs if trained else 1,
        "steps": trained.epochs * (rows // trained.batch_size) if trained else 0,
        "GFLOP a row": counted[what],
    }
    for what, (stage, rows, trained) in plan.items()
)
costs["EFLOP"] = costs["rows"] * costs["epochs"] * costs["GFLOP a row"] / 1e9
_ = run.save_results("costs", costs)
share = costs["EFLOP"] / costs["EFLOP"].sum()
show(costs.assign(share=share.map("{:.2%}".format)))

# %% [markdown]
# An EFLOP is $10^{18}$ operations. The teachers' embeddings are computed once and kept, so in
# stage 2 only the X-ray tower runs. Its frozen weights need no gradient of their own, but the
# gradient has to pass through them to reach the adapters: that is why a step forward and back costs
# little more than two forward passes, not three.

# %% mystnb={"image": {"alt": "Bar chart on a logarithmic axis: operations of each stage with the paper's settings; the masked autoencoder's bar is by far the longest."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from pacx.book.privacy import declare
from pacx.figures.style import COLOURS

figure, axis = plt.subplots(figsize=(6.5, 2.6))
axis.barh(costs["what"], costs["EFLOP"], color=COLOURS["green"])
axis.invert_yaxis()
axis.set(xscale="log", xlabel="operations, EFLOP (logarithmic)")
_ = declare(run, figure)

# %% [markdown]
# ## From operations to hours
#
# $$\text{hours} = \frac{\text{operations}}{\text{peak} \times \text{share of the peak}} \Big/ 3600$$
#
# A card's peak is on its data sheet. What share of it a training reaches has to be measured on that
# card. **Until one is measured, the table is an assumption**: it shows a range between the two
# shares of the next cell. Put your own figure there.

# %%
low, high = 0.2, 0.4  # shares of the peak; assumed, not measured

# Dense 16-bit TFLOP/s and memory in GB, from NVIDIA's data sheets; those of L4
# and H100 state sparse products, which is twice as much.
CARDS = {"T4": (65, 16), "L4": (121, 24)}
CARDS |= {"A100": (312, 80), "H100 SXM": (989, 80)}


def project_hours(eflop: float, peak_tflops: float, share: float) -> float:
    return eflop * 1e6 / (peak_tflops * share) / 3600


# %%
hours = pd.DataFrame(
    {
        "card": card,
        "memory, GB": memory,
        "stage": stage,
        "share": share,
        "hours": project_hours(eflop, peak, share),
    }
    for card, (peak, memory) in CARDS.items()
    for stage, eflop in costs.groupby("stage")["EFLOP"].sum().items()
    for share in (high, low)
)
_ = run.save_results("projected_hours", hours)

# %% tags=["hide-input"]
ranges = hours.pivot_table(index=["card", "memory, GB", "stage"], columns="share", values="hours")
text = ranges[high].map("{:,.2f}".format) + " to " + ranges[low].map("{:,.2f}".format)
show(text.unstack("stage").loc[list(CARDS)].add_prefix("GPU-hours, stage ").reset_index())

# %% [markdown]
# A measured step replaces the assumption, for the machine that it was measured on: the images of the
# masked autoencoder, each in every epoch, over the images a second of the committed
# [benchmark](../book/benchmarks).

# %% tags=["hide-input"]
import json
from pathlib import Path

import pacx

rows, file = [], Path(pacx.__file__).parents[1] / "book" / "benchmarks" / "mae_step.json"
if file.is_file():
    measured = json.loads(file.read_text(encoding="utf-8"))
    machine, ours = measured["machine"], measured["ways"]["ours"]
    on_gpu = "--device cuda" in measured["command"]
    where = machine["gpu"] if on_gpu else f"{machine['processor']}, {machine['cores']} cores"
    a_second = ours["images_a_second"]
    needed = costs["rows"].iloc[0] * costs["epochs"].iloc[0] / a_second / 3600
    rows = [(where, ours["precision"], f"{a_second:,.1f}", f"{needed:,.0f}")]
    if not on_gpu:
        rows.append(("a GPU", "", "not measured", "not measured"))
columns = ["machine", "precision", "images a second", "hours, masked autoencoder"]
show(pd.DataFrame(rows, columns=columns))

# %% [markdown]
# Not in these figures: reading and decoding the images once ([measured](../book/benchmarks)), the second
# mask ratio and the controls of [chapter 09](09_components) (each control is one more stage 2),
# evaluation beyond the features of one benchmark, and everything that goes wrong. The batch of the paper may not fit a small card:
# `accumulate: 4` among the other keys of the profile's `mae` cuts it into four parts with the same steps.
# Stage 2 refuses that, because its negatives are the other rows of the batch.
#
# ## Several GPUs
#
# `pacx train` trains without the chapters, which find the results afterwards. Started by `torchrun`
# or by SLURM, its processes share every batch, and the negatives of the contrastive loss come from
# all of them:
#
# ```sh
# torchrun --nproc-per-node 4 -m pacx train --profile paper --precision bf16
# pacx run --profile paper --precision bf16
# ```
#
# Under SLURM, below a first line `#!/bin/bash`:
#
# ```sh
# #SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --time=2-00:00
# srun pacx train --profile paper --precision bf16
# ```
#
# Both write a checkpoint every few minutes and go on from it. The batch in the profile is the whole
# one, over all processes.
#
# How the whole chain does at this size on the machine at hand: [rehearsal](../book/rehearsal). What
# single steps take beside other ways to do them: [speed and memory](../book/benchmarks).
#
# ## What this run took
#
# Here the times are measured. The trainings of this run and the seconds that each took; some ran side by
# side, so the sum is not the time you waited:

# %% tags=["hide-input"]
from pacx.figures.style import MODELS, name_of
from pacx.training.pipeline import train_encoders

train_encoders(run, "mae", "pacx")
names = {"labs": "lab autoencoder", "ecg": "ECG teacher"} | {m: name_of(m) for m in MODELS}
made = {
    name: json.loads((run.artefact(name) / "made.json").read_text())
    for name in names
    if (run.artefacts / name / "made.json").is_file()
}
took = pd.DataFrame(
    {"training": names[name], "seconds": facts["seconds"], "machine": facts["machine"]}
    for name, facts in made.items()
).sort_values("seconds", ascending=False)
run.save_results("seconds", took)
show(took, digits=1)

# %% [markdown]
# From the masked autoencoder's seconds follows what this machine reaches, and from that, how long
# the paper's settings would keep it busy. Take it as an upper bound: small networks use a processor
# worse than large ones, and two trainings may have run side by side.

# %%
from pacx.training.mae import pretraining_images

x_rays = run.profile.mae.epochs * len(pretraining_images(run, "train"))
gflops = x_rays * mae_row(run.profile) / made["mae"]["seconds"]
hours_here = project_hours(costs["EFLOP"].sum(), gflops / 1e3, share=1)
facts = {"machine": made["mae"]["machine"], "GFLOP/s reached": gflops}
facts["days for the paper's settings"] = hours_here / 24
show(pd.DataFrame([facts]), digits=0)

# %% [markdown]
# ## Check it yourself

# %%
# A rule of thumb for a transformer: twice the weights for every token. Attention, which the rule
# leaves out, adds a few percent at this length.
with torch.device("meta"):
    blocks = build_encoder(224, 16, 768, 12, 12).blocks
weights = sum(p.numel() for p in blocks.parameters())
by_rule = 2 * weights * (1 + 14 * 14) / 1e9
encoded = costs["GFLOP a row"].iloc[-1]
assert 1.0 < encoded / by_rule < 1.1

# A step of the distillation goes forward once and, past frozen weights, back once: little more than
# two forward passes.
assert 2 < costs["GFLOP a row"].iloc[3] / encoded < 2.2

# The masked autoencoder is nearly all of the cost.
assert costs["EFLOP"].iloc[0] / costs["EFLOP"].sum() > 0.9

# The hours are exact where everything is known: a card of 1 TFLOP/s, used in full, takes an hour for
# 3,600 TFLOP.
assert round(project_hours(3600 * 1e-6, 1, 1), 9) == 1

# Exercise 2: five times the patches in the encoder.
mae = paper.mae.model_copy(update={"mask_ratio": 0.5})
factor = mae_row(paper.model_copy(update={"mae": mae})) / mae_row(paper)
assert 1.8 < factor < 2.2
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# The masked autoencoder is nearly all of the cost, and the distillation, which is the method, a small part
# of it: the first table has both in operations. The hours on a card are projected from its data sheet and a
# range of shares, not measured. What this machine reached is measured, and says how long the paper's settings
# would keep it busy.
#
# ## Exercises
#
# 1. A ratio of 0.90 leaves a tenth of the patches to the encoder. Why is the step not ten times
#    cheaper?
#
# ```{dropdown} Answer
# The decoder sees all patches, kept and removed. It is narrower and shallower than the encoder, but
# with few patches kept it is where most of the operations are.
# ```
#
# 2. What does the masked autoencoder cost an X-ray if half of the patches are kept instead of a tenth?
#    Change the profile's ratio and count.
#
# ```{dropdown} Answer
# About twice as much, not five times: the encoder sees five times the patches, but the decoder sees all of
# them in either case. The last check above asserts the factor.
#
#     mae = paper.mae.model_copy(update={"mask_ratio": 0.5})
#     mae_row(paper.model_copy(update={"mae": mae})) / mae_row(paper)
# ```
#
# 3. You have one small card and an encoder that was pretrained elsewhere. Which rows of the
#    first table do you still pay for?
#
# ```{dropdown} Answer
# All but the first, and of that the few epochs that you let it go on: name the file as `weights` in the
# profile's `mae` block ([questions and answers](../book/faq)).
# ```
#
# ## Next
#
# [Results beside the paper](../book/beside_the_paper) puts everything on one page.
#
# ## References
#
# The settings: {cite:p}`liu2026pacx`. The masked autoencoder: {cite:p}`he2022mae`.
