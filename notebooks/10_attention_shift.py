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
# # Attention shift
#
# Does the distilled encoder look at the heart? Measured on every test patient, not on the
# prettiest ones.

# %% tags=["hide-cell"]
# Installs the library where it is missing, as on Colab; does nothing where it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("pacx") is None:
    source = "pacx @ git+https://github.com/pacx-book/pacx-mae-book"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %% tags=["parameters"]
profile = "demo"  # name of a profile, or path of a YAML file: what to run, how big, on which data
runs = "runs"  # folder that holds all runs

# %% tags=["hide-input"]
from pacx.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - how attention {term}`rollout` traces what the {term}`CLS token` draws from;
# - why cases must be chosen by a rule, wins and losses alike;
# - how much of the rollout lies on heart, lungs, bones and devices, with exact masks;
# - what integrated gradients say of a single decision;
# - why a shift of attention is no proof that physiology was learned.
#
# ## Before you start
#
# | concept | why | where |
# |---|---|---|
# | {term}`ViT`, patches, attention | the maps come from its layers | [chapter 02](02_cxr_mae) |
# | shuffled pairs, untrained teachers | the same controls | [chapter 09](09_components) |
# | paired intervals | every difference has one | [chapter 06](06_clinical_transfer) |

# %%
from pacx.training.pipeline import train_encoders

models = ["random", "mae", "pacx", "pacx-shuffled", "pacx-untrained"]
train_encoders(run, *models)

# %% [markdown]
# ## Rollout
#
# A layer's attention $A_\ell$ says how much each token takes from each other one, averaged over
# the heads. The residual path lets every token keep itself, hence the identity. Rows are scaled to
# sum to one, and layers are multiplied:
#
# $$R = \tilde A_L \tilde A_{L-1} \cdots \tilde A_1, \qquad
# \tilde A_\ell = \operatorname{rownorm}(A_\ell + I).$$
#
# The row of the CLS token, without its own entry, is a map over the patches.

# %% tags=["hide-input"]
from pacx.evaluation import attention
from pacx.figures.source import show_source

show_source(attention.attention_rollout, attention._cls_row)

# %% [markdown]
# ## A rule, fixed before looking
#
# The paper shows cases that PaCX gets right and MAE wrong. Here is the full rule. The task is
# dilation of the left ventricle, because the silhouette of the heart should decide it. For each
# encoder a logistic regression on its CLS tokens ranks the test patients; it calls as many of them
# ill as there were in training. *Wins* are the first test patients, in the order of the file, that
# PaCX gets right and MAE wrong. *Losses* are the first with the roles exchanged. Both are shown
# alike. Where the encoders never disagree, the first test patients stand in; that was added after a
# run of the `smoke` profile had left no case to show.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from sklearn.linear_model import LogisticRegression

from pacx.data.images import load_images, normalise
from pacx.evaluation.features import encoder_of, extract_features, extract_rollouts, images_of
from pacx.evaluation.transfer import open_benchmark

size, task, compared = run.profile.vit.image_size, "dilation", ("mae", "pacx")
if run.is_phantom:
    phantoms = open_benchmark(run, "phantom-truth")
    train_truth, truth = (phantoms.split(split)[task].to_numpy() for split in ("train", "test"))
    images = images_of(run, phantoms, "test")
    probes, right = {}, {}
    for model in compared:
        cls = extract_features(run, model, images_of(run, phantoms, "train")).cls
        probes[model] = LogisticRegression(max_iter=5000).fit(cls, train_truth)
        logit = probes[model].decision_function(extract_features(run, model, images).cls)
        right[model] = (logit > np.quantile(logit, 1 - train_truth.mean())) == truth
    wins = np.flatnonzero(right["pacx"] & ~right["mae"])
    losses = np.flatnonzero(right["mae"] & ~right["pacx"])
    cases = np.concatenate([wins[:3], losses[:3]])
    kind = ["win"] * len(wins[:3]) + ["loss"] * len(losses[:3])
    if not len(cases):  # the probes never disagree: the first test patients stand in
        cases, kind = np.arange(3), ["no difference"] * 3
    ill = np.where(truth[cases] == 1, "dilated", "not dilated")
    titles = [f"{k}, case {i}, {state}" for k, i, state in zip(kind, cases, ill, strict=True)]
    display(
        Markdown(f"{len(wins)} wins and {len(losses)} losses among {len(truth)} test patients.")
    )
else:
    display(
        Markdown(
            "Cases are not shown on real data: pictures of credentialed patients may not be published, and there "
            "are no exact masks. Only the public X-ray at the end remains."
        )
    )

# %% mystnb={"image": {"alt": "Rows of test phantoms, three wins then three losses: the X-ray, the rollout of MAE, the rollout of PaCX-MAE, and their difference, red where PaCX attends more."}} tags=["hide-input"]
from pacx.evaluation.attention import mass_in_mask, upsample
from pacx.figures.attention import mean_difference, overlays
from pacx.figures.style import name_of

if run.is_phantom:
    rollouts = {model: np.array(extract_rollouts(run, model, images)) for model in models}
    maps = {
        name_of(model): upsample(torch.from_numpy(rollouts[model][cases]), size).numpy()
        for model in compared
    }
    _ = overlays(images[cases], maps, titles)

# %% [markdown]
# Single cases invite stories. The mean difference over *all* test patients does not choose:

# %% mystnb={"image": {"alt": "Mean difference of the rollout, PaCX-MAE minus MAE, over all test phantoms, with the mean outline of heart and lungs."}} tags=["hide-input"]
if run.is_phantom:
    names = [Path(name).name for name in phantoms.split("test")["image"]]
    masks = {
        part: load_images(
            phantoms.root, [f"masks/{part}/{n}" for n in names], size, run.cache, masks=True
        )
        for part in ("heart", "lungs", "bones", "devices", "body")
    }
    change = (rollouts["pacx"] - rollouts["mae"]).mean(axis=0)
    change = upsample(torch.from_numpy(change)[None], size)[0].numpy()
    outlines = {part: masks[part].mean(axis=0) for part in ("heart", "lungs")}
    _ = mean_difference(change, outlines, "mean difference in rollout, PaCX − MAE")

# %% [markdown]
# ## How much lies where
#
# The masks of a phantom are exact. For each patient, the share of the rollout that falls inside a
# mask:
#
# $$m = \sum_{\text{patches } l} r_l\, a_l \Big/ \sum_l r_l ,$$
#
# with $r_l$ the rollout and $a_l$ the share of patch $l$ that the mask covers. Masks overlap (ribs
# cross the lungs), so the shares need not sum to one. A map without any preference scores the
# mask's *area*, the last column.

# %%
from pacx.evaluation.statistics import bootstrap_weights, difference_of, paired_table, verdict
from pacx.figures.results import dots, forest
from pacx.figures.tables import in_words, show

if run.is_phantom:
    parts = {
        part: masks[part].astype(np.float32) for part in ("heart", "lungs", "bones", "devices")
    }
    parts["outside the body"] = 1 - masks["body"].astype(np.float32)
    patients = phantoms.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    tables = []
    for part, mask in parts.items():
        shares = {
            m: mass_in_mask(torch.from_numpy(rollouts[m]), torch.from_numpy(mask)).numpy()
            for m in models
        }
        spread = {
            m: (share.mean(), weights @ share / weights.sum(axis=1)) for m, share in shares.items()
        }
        table = paired_table(models, "mae", spread.__getitem__, dataset=phantoms.name, region=part)
        tables.append(table.assign(metric="rollout share", area=mask.mean()))
    table = run.save_results("attention", pd.concat(tables, ignore_index=True))
    display(show(in_words(table, "region").assign(area=table["area"])))

# %% mystnb={"image": {"alt": "Share of the rollout on heart, lungs, bones, devices and outside the body for five encoders, with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    _ = dots(table, rows="region", x_label="share of the rollout")

# %% mystnb={"image": {"alt": "Forest plot of the change of the rollout share from the MAE in each region for PaCX-MAE and the controls, with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    changed = table[~table["model"].isin(["mae", "random"])]
    _ = forest(changed, rows="region", x_label="difference in share, model − MAE")

# %% [markdown]
# ## Did attention move to the heart?
#
# Paired over many patients, even a shift too small to matter is "above zero". So a smallest shift
# that counts is set: a twentieth of the heart's area. The whole interval must lie beyond it. This
# limit was not part of the original rule. It was chosen after a run of the `smoke` profile had
# called a shift of nearly nothing "above zero".

# %% tags=["hide-input"]
if run.is_phantom:
    heart = table[table["region"] == "heart"].set_index("model")
    shift = {
        model: difference_of(heart.loc[model])
        for model in ("pacx", "pacx-shuffled", "pacx-untrained")
    }
    smallest = 0.05 * heart.loc["pacx", "area"]

    def moved(change):
        if change.low > smallest:
            return "attention moved to the heart"
        away = change.high < -smallest
        return (
            "attention moved away from the heart" if away else "attention did not move to the heart"
        )

    lines = [
        f"**PaCX-MAE: {moved(shift['pacx'])}.** Its share changes by {shift['pacx']}, from {heart.loc['mae', 'value']:.3f} to "
        f"{heart.loc['pacx', 'value']:.3f}. The heart covers {heart.loc['pacx', 'area']:.3f} of the image.",
        "",
        f"- Shuffled pairs: {moved(shift['pacx-shuffled'])}, {shift['pacx-shuffled']}.",
        f"- Untrained teachers: {moved(shift['pacx-untrained'])}, {shift['pacx-untrained']}.",
    ]
    if min(shift["pacx"].low, shift["pacx-untrained"].low) > smallest:
        lines += ["", "It moves with teachers that have learned nothing as well. So the shift is no proof that "
                  "learned physiology was distilled: pairs with teachers of random weights are enough to cause it."]  # fmt: skip
    display(Markdown("\n".join(lines)))

# %% [markdown]
# Even without that control, be careful. Rollout ignores values, MLPs and the direction of an
# effect {cite:p}`jain2019attention,chefer2021transformer`. It shows from where the CLS token
# *could* have drawn, not what made the decision.
#
# ## What moved this decision?
#
# Integrated gradients {cite:p}`sundararajan2017integrated` ask the probe itself. Go from a
# baseline image $x'$ (here the mean training X-ray) to the patient's image $x$ in small steps, and
# collect the gradient of the probe's logit $f$ on the way:
#
# $$\text{IG}_i = (x_i - x'_i)\int_0^1 \frac{\partial f(x' + \alpha(x - x'))}{\partial x_i}\, d\alpha,
# \qquad \sum_i \text{IG}_i = f(x) - f(x').$$
#
# Library: Captum. The same cases, both encoders.

# %%
from captum.attr import IntegratedGradients

from pacx.models.encoder import encode

if run.is_phantom:
    mean_image = torch.from_numpy(images_of(run, phantoms, "train").mean(axis=0, dtype=np.float32))[
        None
    ]
    inputs, baseline = normalise(torch.from_numpy(images[cases])), normalise(mean_image)
    logits, attributions = {}, {}
    for model in compared:
        encoder = encoder_of(run, model).requires_grad_(False)
        weight, bias = (
            torch.tensor(v[0], dtype=torch.float32)
            for v in (probes[model].coef_, probes[model].intercept_)
        )
        logits[model] = lambda x, e=encoder, w=weight, b=bias: encode(e, x)[0] @ w + b
        gradients = IntegratedGradients(logits[model])
        attributions[model] = gradients.attribute(
            inputs, baseline, n_steps=64, internal_batch_size=64
        )
    strength = {name_of(m): a.sum(dim=1).abs().numpy() for m, a in attributions.items()}

# %% mystnb={"image": {"alt": "The same six cases: the X-ray, the strength of integrated gradients for MAE and for PaCX-MAE, and their difference."}} tags=["hide-input"]
if run.is_phantom:
    _ = overlays(images[cases], strength, titles, "strength of the attribution")

# %% tags=["hide-input"]
if run.is_phantom:
    heart_mask = torch.from_numpy(parts["heart"][cases])
    inside = {n: mass_in_mask(torch.from_numpy(s), heart_mask).numpy() for n, s in strength.items()}
    shares = pd.DataFrame(
        {"case": titles, **inside, "area of the heart": heart_mask.mean(dim=(1, 2)).numpy()}
    )
    display(show(shares.rename(columns={n: f"in the heart, {n}" for n in inside})))

# %% [markdown]
# The table gives the share of the attribution's strength inside the heart, case by case. These are
# a handful of cases. They illustrate; the intervals above measure.
#
# ## A real X-ray
#
# File `RG1_UNCR.dcm` of the DICOM standard's test images, as the package `pydicom-data` (MIT
# licence) distributes it. It has no ECG and no blood tests in this book. In a phantom profile the
# encoders have **only ever seen phantoms**: the maps show what such an encoder does with a real
# chest, and no more.

# %% mystnb={"image": {"alt": "A real frontal chest radiograph with the rollout of MAE, of PaCX-MAE, and their difference."}} tags=["hide-input"]
from pydicom.data import get_testdata_file

file = Path(get_testdata_file("RG1_UNCR.dcm", download=False))
real = load_images(file.parent, [file.name], size, run.cache)
real_maps = {}
for model in compared:
    rollout = torch.from_numpy(np.array(extract_rollouts(run, model, real)))
    real_maps[name_of(model)] = upsample(rollout, size).numpy()
_ = overlays(real, real_maps, ["RG1_UNCR.dcm"])

# %% [markdown]
# ## Check it yourself

# %%
from pacx.evaluation.attention import attention_maps

encoder = encoder_of(run, "pacx")
some = normalise(torch.from_numpy(real.copy()))
maps = attention_maps(encoder, some)

# Attention is a distribution: every row sums to one, in every layer and head.
assert torch.allclose(maps.sum(dim=-1), torch.ones(()), atol=1e-4)

if run.is_phantom:
    # A mask and its complement share the whole rollout.
    some_rollouts = torch.from_numpy(rollouts["pacx"][:50])
    body = torch.from_numpy(masks["body"][:50].astype(np.float32))
    assert torch.allclose(
        mass_in_mask(some_rollouts, body) + mass_in_mask(some_rollouts, 1 - body),
        torch.ones(50),
        atol=1e-4,
    )
    # Integrated gradients are complete: they sum to the change of the logit.
    for model, attribution in attributions.items():
        with torch.inference_mode():
            change_of_logit = logits[model](inputs) - logits[model](baseline)
        assert torch.allclose(attribution.sum(dim=(1, 2, 3)), change_of_logit, atol=0.1, rtol=0.05)

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
if run.is_phantom:
    rows = table[table["model"] == "pacx"]
    lines = [
        f"On {len(truth)} test phantoms, {moved(shift['pacx'])}. Change of the rollout's share, PaCX-MAE minus MAE:",
        "",
    ]
    lines += [
        f"- {row['region']}: {difference_of(row)}, {verdict(difference_of(row))}"
        for _, row in rows.iterrows()
    ]
    display(Markdown("\n".join(lines)))
else:
    display(Markdown("On real data this chapter shows one public X-ray only."))

# %% [markdown]
# ## Exercises
#
# 1. Why compare the share on the heart with the heart's area?
#
# ```{dropdown} Answer
# A map that is the same everywhere puts exactly that share on the heart. Only what exceeds it is a
# preference.
# ```
#
# 2. You choose the three most convincing of a thousand difference maps. What have you shown?
#
# ```{dropdown} Answer
# That three such maps exist. Noise would give some as well. The rule, the losses and the mean over
# all patients are there to prevent it.
# ```
#
# 3. Rollout of `random` weights is nearly even. What would it mean if it were not?
#
# ```{dropdown} Answer
# That the map shows the picture, or the architecture, rather than what was learned. A map that
# does not change when the weights are random explains nothing {cite:p}`adebayo2018sanity`.
# ```
#
# ## Next
#
# [Chapter 11](11_using_the_encoder) takes the encoder out of the book.
#
# ## References
#
# Rollout: {cite:p}`abnar2020quantifying`. Integrated gradients:
# {cite:p}`sundararajan2017integrated`. Cautions: {cite:p}`jain2019attention`,
# {cite:p}`adebayo2018sanity`, {cite:p}`chefer2021transformer`.
