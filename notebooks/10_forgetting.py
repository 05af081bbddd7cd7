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
# # Forgetting
#
# Distillation changes the encoder for one purpose. What does the encoder lose, which settings preserve more,
# and what does that cost?
#
# Reading time: about 7 minutes.

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

# %%
from pacx.book.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - Three measures of what an encoder forgets, and what each of them can miss.
# - The strictest of them by hand: the MAE's own decoder applied to the changed encoder.
# - Whether PaCX-MAE has lost anatomy, or what the MAE could reconstruct.
# - Which settings forget less, and how much physiology that costs.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | masks and the MAE's loss | one of the measures | [chapter 02](02_cxr_mae) |
# | adapters and {term}`LayerNorm` | what stage 2 changes | [chapter 05](05_distillation) |
# | probes, pairs and intervals | the other measures | [chapter 06](06_clinical_transfer) |
# | controls | forgetting needs one too | [chapter 09](09_components) |
#
# A setting may forget less if it changes fewer weights (only the final LayerNorm, a smaller rank), takes
# smaller steps, uses one loss instead of two, or adds the MAE's loss to the others, on the paired X-rays or
# on X-rays replayed from stage 1. The next cell selects those settings that are among the profile's
# variants.

# %%
from pacx.training.pipeline import encoders_of, train_side_by_side

kinds = ("finalnorm", "rank2", "lowrate", "maeterm", "replay")
settings = [f"pacx-{kind}" for kind in kinds]
settings = [name for name in settings if name in encoders_of(run)]
losses = ["pacx-contrastive", "pacx-regression"]
losses = [name for name in losses if name in encoders_of(run)]
weighed = ["pacx", *settings, *losses]
train_side_by_side(run, *weighed, "mae-continued")

# %% [markdown]
# ## Three measures
#
# The paper looks at segmentation only. This chapter has three measures:
#
# - **tasks that no teacher knows**: devices, the patient's position, and a finding that only the
#   image shows, each by a new linear probe, from the CLS token and from the mean of the patches;
# - **the lungs**, by a new segmentation decoder;
# - **reconstruction**: the MAE's loss of [chapter 02](02_cxr_mae), averaged over several masks an image,
#   with the *MAE's own* decoder, on held-out X-rays and the same masks for every encoder.
#
# The last measure is strict. Its decoder is not retrained, so the error also rises when information is
# merely re-encoded: the measure can overstate a loss. Moreover, a variant with an MAE term was trained
# through this very decoder, so judge such a variant by the probes.
#
# Here is the strict measure by hand, for eight X-rays and one mask each: the squared error, averaged over
# the pixels that were removed. The library must give the same number for every X-ray. (The tolerance allows
# for summing over the pixels in another order.)

# %%
import torch

from pacx.data.images import normalise
from pacx.evaluation.forgetting import image_errors
from pacx.figures.style import name_of
from pacx.training.encoders import encoder_of
from pacx.training.mae import load_mae, pretraining_images

images = pretraining_images(run, "val")[:8]
x = normalise(torch.from_numpy(images.copy()))
mae, ratio = load_mae(run), run.profile.mae.mask_ratio
rows, columns = mae.encoder.patch_embed.grid_size
generator = torch.Generator().manual_seed(0)
noise = torch.rand(len(x), rows * columns, generator=generator)

# %%
shown, side, every = {"X-ray": x}, mae.patch_size, (1, 2, 3)
for name in ("mae", "pacx"):
    mae.encoder = encoder_of(run, name)  # the decoder stays the MAE's
    with torch.inference_mode():
        output = mae(x, ratio, noise)
        seen, filled_in = mae.reconstruct(x, output)
        removed = output.mask.reshape(-1, 1, rows, columns)
        for axis in (2, 3):  # from patches to pixels
            removed = removed.repeat_interleave(side, axis)
        wrong = (filled_in - x).square().mean(1, keepdim=True)
        by_hand = (wrong * removed).sum(every) / removed.sum(every)
        library = image_errors(mae, x, noise, ratio)
    torch.testing.assert_close(by_hand, library, rtol=1e-4, atol=1e-6)
    shown |= {"the encoder sees": seen, name_of(name): filled_in}

# %% [markdown]
# Two of the X-rays, reconstructed by the same decoder from each encoder's output:

# %% mystnb={"image": {"alt": "Two X-rays in rows: the X-ray, the patches that the encoder sees, and what the MAE's decoder reconstructs from the MAE's encoder and from the PaCX-MAE encoder."}}
from pacx.book.privacy import declare
from pacx.figures.cxr import reconstructions

two = reconstructions({title: part[:2] for title, part in shown.items()})
_ = declare(run, two, run.profile.pretraining)

# %% [markdown]
# ## Has PaCX-MAE lost anything?
#
# The probes and the lungs need the phantoms' tasks of anatomy; with real data this run measures
# reconstruction alone. *MAE continued* is the control: an encoder that was trained for as many steps without a teacher.

# %%
from pacx.evaluation.forgetting import compare_reconstruction

reconstructed = compare_reconstruction(run, ["mae", *weighed])
forgotten = [reconstructed.assign(group="reconstruction", pooling=None)]
of_phantoms = {
    "pacemaker": "device",
    "tube": "device",
    "rotation": "position",
    "pneumothorax": "image only",
}
groups = of_phantoms if run.is_phantom else {}

# %%
from itertools import product

import pandas as pd

from pacx.evaluation.transfer import compare_probes, open_benchmark
from pacx.figures.tables import POOLING_NAMES

for (task, group), pooling in product(groups.items(), POOLING_NAMES):
    phantoms = open_benchmark(run, "phantom-truth")
    some, how = ["pacx", *settings, "mae-continued"], {"pooling": pooling}
    table = compare_probes(run, phantoms, some, tasks=[task], **how)
    read = POOLING_NAMES[pooling]
    forgotten.append(table.assign(group=group, read=read))

# %%
from pacx.evaluation.transfer import compare_segmentation

if groups:
    lungs = open_benchmark(run, "covid-qu-ex")
    lungs = compare_segmentation(run, lungs, ["mae", "pacx"])
    forgotten.append(lungs.assign(group="lungs"))
forgotten = pd.concat(forgotten, ignore_index=True)
_ = run.save_results("forgetting", forgotten)

# %% mystnb={"image": {"alt": "Difference from the MAE on each anatomy task for PaCX-MAE, its settings and the MAE continued, from the CLS token (filled) and the mean of patches (hollow), with 95 percent intervals."}}
from pacx.figures.results import forest_panels

if groups:
    probed = forgotten[forgotten["group"].isin(groups.values())]
    _ = forest_panels(probed, panels="task", filled="read")

# %% [markdown]
# PaCX-MAE minus MAE. A loss is below zero for AUROC, IoU and Dice, and above zero for the error (MSE).

# %%
from IPython.display import display

from pacx.figures.tables import in_words, show

after = forgotten[forgotten["model"] == "pacx"].reset_index(drop=True)
show(in_words(after, "group", "task", "pooling", "metric"))

# %% [markdown]
# ## Which setting preserves more, and what does it cost?
#
# Further to the right is better physiology; higher is more of what the MAE knew. A setting is worth its
# cost if it lies higher than PaCX-MAE and no further to the left.

# %%
from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS

aims = {"physiology": PHYSIOLOGY_TASKS, "anatomy": ANATOMY_TASKS}
reference = {"trade_off": "mae", "keeping": "pacx"}
tables = {name: [] for name in reference}
if groups:
    for name, (aim, tasks), (pooling, read) in product(
        reference, aims.items(), POOLING_NAMES.items()
    ):
        how = {"pooling": pooling, "reference": reference[name]}
        table = compare_probes(run, phantoms, weighed, tasks=tasks, **how)
        tables[name].append(table.assign(outcome=aim, read=read))

# %% mystnb={"image": {"alt": "Four panels. The difference from the MAE on physiology tasks, horizontal, against that on anatomy tasks, upper row, and against the reconstruction error, lower row with its axis turned over; left column from the CLS token, right from the mean of patches. One cross of 95 percent intervals a setting, each with a marker and a line style of its own."}}
from pacx.figures.components import trade_off

labels = {aim: f"{aim}, AUROC minus MAE's" for aim in aims}
labels |= {"reconstruction": "reconstruction, MSE minus MAE's"}
if groups:
    error = reconstructed[reconstructed["model"] != "mae"]
    error = error.assign(outcome="reconstruction")
    both = [error.assign(read=read) for read in POOLING_NAMES.values()]
    points = pd.concat([*tables["trade_off"], *both])
    _ = trade_off(points, labels, falling=("reconstruction",))

# %% [markdown]
# The same settings compared with PaCX-MAE itself, on the same patients: a loss of physiology is the cost;
# a gain in anatomy, or a smaller reconstruction error, is what is preserved.

# %%
if groups and len(weighed) > 1:
    error = compare_reconstruction(run, weighed, reference="pacx")
    error = error.assign(outcome="reconstruction", read="MSE")
    keeping = pd.concat([*tables["keeping"], error], ignore_index=True)
    keeping = keeping[keeping["model"] != "pacx"].reset_index(drop=True)
    outcome = keeping["outcome"] + ", " + keeping.pop("read")
    keeping = run.save_results("keeping", keeping.assign(outcome=outcome))
    display(show(in_words(keeping, "outcome").sort_values("outcome")))

# %% [markdown]
# ## Beside the evidence
#
# The evidence repeats the demo's settings on nine fresh cohorts of **phantom** patients, with one training
# on each ([how](../book/protocol)). First what is forgotten, PaCX-MAE minus MAE:

# %% mystnb={"image": {"alt": "One row a result, below its name: the difference in each fresh cohort as small dots, that of this run as a triangle, and the mean of the cohorts with a 95 percent interval as a diamond, around a line at zero."}}
from pacx.figures.components import cohorts_beside
from pacx.figures.tables import beside_the_evidence, folded, in_the_evidence

_ = cohorts_beside(after, "forgetting")
display(beside_the_evidence(after, "forgetting"))
every = beside_the_evidence(forgotten, "forgetting")
display(folded(every, "The same for all settings"))

# %% [markdown]
# Then what the other settings preserve, each minus PaCX-MAE:

# %%
kept = in_the_evidence("keeping", "reference == 'pacx'", "outcome")
folded(kept, "All settings, minus PaCX-MAE")

# %% [markdown]
# ## Check it yourself

# %%
# Stage 2 left the MAE's decoder alone: it belongs to no encoder's file.
names = encoder_of(run, "pacx").state_dict()
assert names.keys() == encoder_of(run, "mae").state_dict().keys()
assert not any("decoder" in name for name in names)


# Exercise 3: on the line between the two encoders.
def error_at(share):
    a, b = (encoder_of(run, n).state_dict() for n in ("mae", "pacx"))
    mixed = {k: (1 - share) * a[k] + share * b[k] for k in a}
    mae.encoder.load_state_dict(mixed)
    with torch.inference_mode():
        return image_errors(mae, x, noise, ratio)


torch.testing.assert_close(error_at(1.0), library)
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# The cost of distillation is measured on the tasks that no teacher knows, with new probes: the figure of
# anatomy and the table below it show whether PaCX-MAE has lost them. The lungs and the MAE's own decoder
# tell less, because the lungs are easy for any encoder and the decoder also counts what was only
# re-encoded. A setting that preserves more is worth its cost only if it does not lie to the left of
# PaCX-MAE in the figure of four panels.
#
# ## Exercises
#
# 1. The reconstruction error rises, and no probe of anatomy falls. What has been forgotten?
#
# ```{dropdown} Answer
# Perhaps nothing. The decoder expects the MAE's embedding. If the same content is encoded in other
# directions, the old decoder misreads it, while a new probe does not.
# ```
#
# 2. Why is *MAE continued* in the figure of anatomy?
#
# ```{dropdown} Answer
# It shows how far these scores move when the encoder is merely trained for longer. A loss that both show
# need not come from the teachers.
# ```
#
# 3. Mix the weights of the two encoders, $(1 - s)\, W_\text{MAE} + s\, W_\text{PaCX}$, and plot the mean
#    reconstruction error of the eight X-rays for $s$ from 0 to 1. What would you measure beside it before
#    you use such an encoder?
#
# ```{dropdown} Answer
# Physiology: a mixture that forgets less may also have gained less. The two encoders start from the same
# weights, so the encoders between them usually work.
#
#     def error_at(share):
#         a, b = (encoder_of(run, n).state_dict() for n in ("mae", "pacx"))
#         mixed = {k: (1 - share) * a[k] + share * b[k] for k in a}
#         mae.encoder.load_state_dict(mixed)
#         with torch.inference_mode():
#             return image_errors(mae, x, noise, ratio)
#
#     shares = torch.linspace(0, 1, 6).tolist()
#     pd.Series([error_at(s).mean().item() for s in shares], shares).plot()
# ```
#
# ## Next
#
# The encoder has changed. [Chapter 11](11_attention_shift) asks where it looks now.
#
# ## References
#
# The method: {cite:p}`liu2026pacx`. The masked autoencoder: {cite:p}`he2022mae`. Adapters:
# {cite:p}`hu2022lora`.
