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
# # Distillation
#
# The two teachers are frozen, and the X-ray encoder learns to agree with them by training a small part
# of its weights.

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
# - How LoRA adapts an encoder through a small part of its weights.
# - The two losses: tell pairs apart, and predict the teacher.
# - Why raw teacher embeddings are poor targets, with a measurement.
# - How to check that merging the adapters changes nothing, and that distillation changed something.
# - What the same training does when the pairs are wrong.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | the masked autoencoder | it is the student's starting point | [chapter 02](02_cxr_mae) |
# | the two teachers | their embeddings are the targets | [chapter 03](03_lab_autoencoder), [chapter 04](04_ecg_teacher) |
# | {term}`LoRA`, {term}`Distillation` | how the student changes | [glossary](../book/glossary) |
# | {term}`Contrastive loss`, {term}`Temperature`, {term}`Cosine similarity` | what it is trained for | [glossary](../book/glossary) |
#
# If this run lacks the artefacts of stage 1, they are made first.

# %%
from pacx.data.datasets import load_pairs, teachers_of
from pacx.training.pipeline import train_encoders

train_encoders(run, "mae", *teachers_of(run))

# %% [markdown]
# ## A small part of the student is trained
#
# Training the whole encoder on a few pairs could destroy what many more X-rays taught it. Low-rank
# adaptation {cite:p}`hu2022lora` freezes each weight matrix $W$ and adds a product of two thin ones:
#
# $$ W' = W + \frac{\alpha}{r} B A , \qquad A \in \mathbb{R}^{r \times d_{\text{in}}}, \;
# B \in \mathbb{R}^{d_{\text{out}} \times r} . $$
#
# $B$ starts at zero, so the student starts as the MAE itself. $r$ is the rank: $A$ and $B$ hold far
# fewer numbers than $W$. {term}`Adapters <Adapter>` sit on `qkv`, the layer that feeds the
# {term}`attention`, and on the two layers of each block's MLP (`fc1`, `fc2`); the attention's output
# layer (`proj`) gets none. Besides, **LayerNorms** are trained ({term}`LayerNorm`).

# %% tags=["remove-input"]
from pacx.figures.source import show_source
from pacx.models.encoder import add_lora

show_source(add_lora)

# %% [markdown]
# *Which* LayerNorms? The paper's text says LayerNorms, its public code frees only the final one
# ([the paper and its code](../book/paper_and_code)). The table counts both, for this run's encoder
# and for one of the paper's size.

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import display

from pacx.book.privacy import declare
from pacx.models.encoder import build_encoder, trainable_parameters
from pacx.training.encoders import encoder_of

settings = run.profile.distill
rows = []
for name, make in {
    "this run": lambda: encoder_of(run, "mae"),
    "ViT-B/16 at 224 px": lambda: build_encoder(224, 16, 768, 12, 12),
}.items():
    for norms in ("all", "final"):
        encoder = make()
        total = sum(p.numel() for p in encoder.parameters())
        student = add_lora(encoder, settings.lora_rank, settings.lora_alpha, norms=norms)
        trained = trainable_parameters(student)
        rows.append(
            {
                "encoder": name,
                "LayerNorms": norms,
                "weights": total,
                "trained": trained,
                "share": trained / total,
            }
        )
counts = run.save_results("lora_counts", pd.DataFrame(rows))
digits = {"weights": "{:,}", "trained": "{:,}", "share": "{:.1%}"}
display(declare(run, counts.style.hide(axis="index").format(digits)))

# %% [markdown]
# ## Two losses
#
# Let $h_i$ be the embedding of X-ray $i$, its CLS token, and $t_i^m$ the embedding of the same
# admission by {term}`teacher` $m \in \{\text{ECG}, \text{labs}\}$. Small heads ({term}`dropout`, linear,
# LayerNorm) project them.
#
# **Contrastive**: in a shared space, $u_i = g(h_i)$ and $v_i^m = g_m(t_i^m)$, scaled to length 1.
# Among the $N$ ECGs of a batch, the X-ray must pick its own, and the other way round (InfoNCE,
# {cite:t}`oord2018cpc`, used as in {cite:t}`radford2021clip`):
#
# $$ \mathcal{L}_C^m = -\frac{1}{2N} \sum_{i=1}^{N} \left[
# \log \frac{e^{u_i \cdot v_i^m / \tau}}{\sum_j e^{u_i \cdot v_j^m / \tau}} +
# \log \frac{e^{u_i \cdot v_i^m / \tau}}{\sum_j e^{u_j \cdot v_i^m / \tau}} \right] . $$
#
# The first fraction is the probability that X-ray $i$ picks its own partner among all $N$, the second
# that the partner picks the X-ray. (Written without label smoothing, which spreads a little of the
# target over the other pairs.) A student that gives all pairs the same cosine scores $\log N$, in nats,
# the unit of natural logarithms; one that is sure and wrong scores more. The temperature $\tau$ is
# learned.
#
# **Regression**: another head predicts the teacher's own embedding, $\hat t_i^m$, in direction only:
#
# $$ \mathcal{L}_R^m = \frac{1}{N} \sum_{i=1}^{N} \left( 1 - \cos\!\big(\hat t_i^m,\, t_i^m\big) \right) . $$
#
# Both are averaged over the teachers, and
# $\mathcal{L} = \lambda_C \mathcal{L}_C + \lambda_R \mathcal{L}_R$.
#
# In the library each head is a `ProjectionHead`: $g$ is `cxr_to_shared`, $g_m$ is `ecg_to_shared` or
# `labs_to_shared`, and the heads that give $\hat t^m$ are `cxr_to_ecg` and `cxr_to_labs`.

# %% tags=["remove-input"]
from pacx.models.distillation import DistillationHeads, DistillationLoss, ProjectionHead

show_source(ProjectionHead, DistillationHeads.forward)

# %% [markdown]
# In the loss, $u$ is `projections.cxr` and $v^m$ is `projections.shared[m]`, both after `_contrast` has
# scaled them to length 1; $\hat t^m$ is `projections.predicted[m]`, $t^m$ is `teachers[m]`, and `scale` is
# $1 / \tau$.

# %% tags=["remove-input"]
show_source(DistillationLoss.forward, DistillationLoss._contrast)

# %% [markdown]
# Six made-up pairs show what the three numbers do. A row is an X-ray, a column an ECG, and a cell the
# first fraction of $\mathcal{L}_C$: how likely this X-ray is to pick this ECG. ECGs 2 and 3 are nearly
# the same. One set of cosines serves both losses, and the start is this run's settings. Lower $\tau$:
# X-rays 2 and 3 both grow sure of ECG 3, and X-ray 2 is wrong. Raise it: all cells grow alike, and the
# loss rises towards $\log 6$, guessing. The weights do not change the table. They set how much of the
# pull on the true pairs (the slope of the loss) comes from which loss.

# %% tags=["hide-input"]
import numpy as np

from pacx.figures.interactive import losses

rng = np.random.default_rng(0)
ecgs = rng.normal(size=(6, 16))
ecgs[2] = ecgs[1] + 0.3 * rng.normal(size=16)
xrays = ecgs + 2 * rng.normal(size=(6, 16))
xrays, ecgs = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (xrays, ecgs))
losses(
    xrays @ ecgs.T, settings.temperature, settings.contrastive_weight, settings.regression_weight
)

# %% [markdown]
# ## Why the targets are standardised
#
# The teachers run once over all pairs; afterwards only their embeddings are needed. Look at them
# before using them: how close is each to the *mean* embedding? If all point in nearly the same
# direction, predicting the mean for everybody satisfies $\mathcal{L}_R$, and nothing is learned
# about a patient.

# %%
from pacx.training.distill import distill, teacher_embeddings

pairs = {split: load_pairs(run, split) for split in ("train", "val")}
raw = {split: teacher_embeddings(run, part) for split, part in pairs.items()}
standard = {
    split: {
        m: (values - raw["train"][m].mean(0)) / np.maximum(raw["train"][m].std(0), 1e-6)
        for m, values in teachers.items()
    }
    for split, teachers in raw.items()
}

# %% mystnb={"image": {"alt": "Two histograms of the cosine similarity between each admission's teacher embedding and the mean embedding, one for the ECG teacher and one for the labs, each with raw and with standardised embeddings. Standardised ones spread around zero."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from pacx.figures.style import COLOURS
from pacx.figures.tables import show


def cosine_to_mean(t):
    return t @ t.mean(0) / (np.linalg.norm(t, axis=1) * max(np.linalg.norm(t.mean(0)), 1e-6))


names = {m: {"ecg": "ECG"}.get(m, m) for m in raw["val"]}
figure, axes = plt.subplots(1, len(names), figsize=(8, 3), sharey=True, squeeze=False)
rows = []
for axis, m in zip(axes[0], names, strict=True):
    for kind, source, colour in (("raw", raw, "brown"), ("standardised", standard, "green")):
        cosine = cosine_to_mean(source["val"][m])
        axis.hist(cosine, np.linspace(-1, 1, 41), color=COLOURS[colour], alpha=0.7, label=kind)
        rows.append(
            {
                "teacher": m,
                "embedding": kind,
                "metric": "cosine to own mean",
                "value": cosine.mean(),
            }
        )
    title = {"ecg": "ECG teacher", "labs": "lab encoder"}[m]
    axis.set(title=title, xlabel="cosine to the mean embedding")
axes[0, 0].set_ylabel("validation admissions")
axes[0, 0].legend()
targets = run.save_results("target_cosines", pd.DataFrame(rows))

# %% tags=["hide-input"]
named = targets.assign(teacher=targets["teacher"].replace({"ecg": "ECG"}))
wide = named.pivot(index="teacher", columns="embedding", values="value").reset_index()
show(wide.rename(columns=lambda name: name if name == "teacher" else f"mean cosine, {name}"))

# %% [markdown]
# So this book centres and scales ({term}`standardises <Standardise>`) each dimension over the training
# pairs before distilling (`standardise_targets: true` in the profile; the paper's raw targets are one
# setting away).
#
# ## Training
#
# One batch gives one loss. The loop below it trains every network of this book: batches, loss,
# gradient, step. All that is drawn in a step follows from the seed and the number of the step, so that
# a training that was stopped goes on as if it had not been.

# %%
from pacx.training.distill import Distillation
from pacx.training.fit import fit

show_source(Distillation.forward, fit)

# %% [markdown]
# Beside PaCX-MAE, the second core trains the control of the next section, another control of
# [chapter 08](08_alignment), and the network that [chapter 06](06_clinical_transfer) sets above all
# encoders of a phantom run.

# %%
from pacx.training.pipeline import train_side_by_side

ceiling = ["supervised"] if run.is_phantom else []
train_side_by_side(run, "pacx", *ceiling, "pacx-shuffled", "pacx-untrained")
history = pd.read_csv(distill(run, "pacx") / "history.csv")

# %% mystnb={"image": {"alt": "Two panels of training curves, the contrastive loss and the regression loss, each with one line for the ECG teacher and one for the lab encoder."}} tags=["hide-input"]
from pacx.figures.curves import training_curves

each = {
    name: history.assign(
        contrastive=history[f"contrastive_{m}"], regression=history[f"regression_{m}"]
    )
    for m, name in names.items()
}
figure = training_curves(each, ("contrastive", "regression"), ("InfoNCE (nats)", "1 − cosine"))

# %% tags=["hide-input"]
from pacx.figures.tables import say

batch = settings.batch_size
last = history.tail(max(1, len(history) // 10)).mean()
reached = " and ".join(f"{last[f'contrastive_{m}']:.2f} ({name})" for m, name in names.items())
say(
    f"All pairs alike score log({batch}) = {np.log(batch):.2f} nats. The last tenth of the steps "
    f"averages {reached}."
)

# %% [markdown]
# ## The control: shuffled pairs
#
# Training losses fall even when the network only memorises. So the same
# training is run once more with one change, as a {term}`control`: every X-ray gets the ECG and labs of
# *somebody else*. The distribution of the teachers' embeddings is the same; only the pairing is gone.

# %%
_ = distill(run, "pacx-shuffled")

# %% mystnb={"image": {"alt": "Two panels of training curves, the contrastive and the regression loss, each with one line for true pairs and one for shuffled pairs."}} tags=["hide-input"]
from pacx.figures.style import colour_of

both = {
    label: pd.read_csv(run.artefact(name) / "history.csv")
    for label, name in {"true pairs": "pacx", "shuffled pairs": "pacx-shuffled"}.items()
}
figure = training_curves(
    both, ("contrastive", "regression"), ("InfoNCE, mean of teachers (nats)", "1 − cosine, mean of teachers"),
    colours=[colour_of("pacx"), colour_of("pacx-shuffled")],
)  # fmt: skip

# %% [markdown]
# ## Does an unseen X-ray find its own ECG and labs?
#
# The heads are thrown away, so the comparison uses what is left: a {term}`Ridge regression` from $h$ of
# each frozen encoder to the standardised teacher embeddings, fitted on the training pairs. On the
# validation pairs, which no training step saw, each X-ray ranks all of them by cosine. The figure
# shows the share whose own partner is among the nearest tenth; one in ten is chance. [Chapter
# 08](08_alignment) does this properly, on the test pairs.

# %% tags=["hide-input"]
from pacx.evaluation.alignment import ridge_alignment
from pacx.evaluation.features import extract_features
from pacx.evaluation.statistics import bootstrap_weights, mean_over_cases, verdict

patients = pairs["val"].table["patient"].to_numpy()
weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
nearest = max(1, round(0.1 * len(patients)))
hits, rows = {}, []
for model in ("mae", "pacx", "pacx-shuffled"):
    features = {split: extract_features(run, model, part.cxr).cls for split, part in pairs.items()}
    for m, task in names.items():
        found = ridge_alignment(
            features["train"], standard["train"][m], features["val"], standard["val"][m]
        )
        hits[model, task] = (found.ranks <= nearest).astype(float)
        estimate = mean_over_cases(hits[model, task], weights)
        rows.append(
            {
                "task": task,
                "model": model,
                "metric": "recall in nearest tenth",
                **estimate._asdict(),
            }
        )
retrieval = run.save_results("distillation_retrieval", pd.DataFrame(rows))
gaps = {
    (task, model): mean_over_cases(hits["pacx", task] - hits[model, task], weights)
    for task in names.values()
    for model in ("mae", "pacx-shuffled")
}
alike = sum(gap.low <= 0 <= gap.high for gap in gaps.values())
few = f" In {alike} of {len(gaps)} comparisons they are too few to tell PaCX-MAE from the other model."
say(
    f"There are {len(patients)} validation pairs: one hit is {1 / len(patients):.1%} of them."
    + few * bool(alike)
)

# %% mystnb={"image": {"alt": "Dot plot of the share of validation X-rays whose own ECG or labs are among the nearest tenth, with 95 percent intervals, for the MAE, PaCX-MAE and the shuffled control. A dashed line marks chance at one in ten."}} tags=["hide-input"]
from pacx.figures.results import dots

figure = dots(
    retrieval, chance=nearest / len(patients), x_label="own partner among the nearest tenth"
)

# %% [markdown]
# ## What changed in the encoder?
#
# After training, $\frac{\alpha}{r} B A$ is added to $W$ once and for all, and a plain encoder of
# the same size remains:

# %% tags=["remove-input"]
from pacx.models.encoder import merge_lora

show_source(merge_lora)

# %% [markdown]
# The map shows how far each matrix moved, relative to its own size: $\lVert W' - W \rVert_F / \lVert W
# \rVert_F$.

# %% mystnb={"image": {"alt": "Heat map of the relative change of weights between the MAE and PaCX-MAE, blocks of the encoder as columns and kinds of weights as rows: qkv, fc1, fc2 and the two LayerNorms changed, the attention's output projection did not."}} tags=["hide-input"]
import seaborn as sns

before, after = (encoder_of(run, model).state_dict() for model in ("mae", "pacx"))
change = {k: float((after[k] - w).norm() / w.norm().clamp(min=1e-12)) for k, w in before.items()}
kinds = (
    "norm1.weight",
    "attn.qkv.weight",
    "attn.proj.weight",
    "norm2.weight",
    "mlp.fc1.weight",
    "mlp.fc2.weight",
)
blocks = range(run.profile.vit.depth)
moved = pd.DataFrame(
    {b + 1: [change[f"blocks.{b}.{kind}"] for kind in kinds] for b in blocks}, index=kinds
)
figure, axis = plt.subplots(figsize=(2.5 + 0.9 * len(blocks), 3.2))
sns.heatmap(
    moved,
    annot=len(blocks) <= 6,
    fmt=".3f",
    cmap="Oranges",
    ax=axis,
    cbar_kws={"label": "relative change"},
)
axis.set(xlabel="block of the encoder", ylabel="")
_ = declare(run, figure)

# %% [markdown]
# ## Check it yourself
#
# Merging must not change what the encoder computes, but must differ from the encoder without
# adapters. Here the adapters get random values, so that there is something to merge.

# %%
import torch

from pacx.data.images import normalise
from pacx.models.encoder import encode

torch.manual_seed(0)
images = normalise(torch.from_numpy(pairs["val"].cxr[:8].copy()))
student = add_lora(encoder_of(run, "mae"), settings.lora_rank, settings.lora_alpha).eval()
with torch.inference_mode():
    assert torch.allclose(
        encode(student, images)[0], encode(encoder_of(run, "mae"), images)[0], atol=1e-5
    )
for name, parameter in student.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.02)
with torch.inference_mode():
    adapted, merged = encode(student, images)[0], encode(merge_lora(student), images)[0]
    plain = encode(encoder_of(run, "mae"), images)[0]
assert torch.allclose(adapted, merged, atol=1e-4), "merging must not change the answer"
assert not torch.allclose(merged, plain, atol=1e-2), "adapters must change the answer"

assert change["blocks.0.attn.qkv.weight"] > 0, "distillation left the encoder as it was"
assert change["blocks.0.attn.proj.weight"] == 0, "a frozen matrix was changed"
assert change["pos_embed"] == 0
print("All checks passed.")

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
row = counts[(counts["encoder"] == "this run") & (counts["LayerNorms"] == settings.norms)].iloc[0]
cosine = targets.set_index(["teacher", "embedding"])["value"]
lines = [
    f"- {row['trained']:,} of the encoder's {row['weights']:,} weights are trained or added "
    f"({row['share']:.1%}).",
    *(
        f"- Raw embeddings ({name}) have a mean cosine to their own mean of {cosine[m, 'raw']:.3f}, "
        f"standardised ones of {cosine[m, 'standardised']:.3f}."
        for m, name in names.items()
    ),
]
words = {"mae": "the MAE", "pacx-shuffled": "the shuffled control"}
for (task, model), gap in gaps.items():
    lines.append(
        f"- {task} among the nearest tenth, PaCX-MAE minus {words[model]}: {gap}, {verdict(gap)}."
    )
say("\n".join(lines))

# %% [markdown]
# This is one validation split and one training. Chapters [06](06_clinical_transfer) to
# [10](10_attention_shift) ask what it is worth.
#
# ## Exercises
#
# 1. Why is there no mirror image among the augmentations of this stage, although stage 1 has it?
#
# ```{dropdown} Answer
# The heart lies on the left, and the ECG knows it. A mirrored X-ray with an unmirrored ECG is a
# wrong pair. For the MAE a mirrored chest is one more chest to learn from, at a price: it looks like
# situs inversus, so the encoder has less reason to know left from right.
# ```
#
# 2. Two patients of a batch have nearly the same ECG. What does the contrastive loss do to them,
#    and what the regression loss?
#
# ```{dropdown} Answer
# The contrastive loss pushes the first X-ray away from the second ECG, although it would fit: a
# false negative. The regression loss pulls both X-rays to the same place. Label smoothing softens
# the first.
# ```
#
# 3. The shuffled control has the same teachers and the same optimiser. What could it still gain
#    over the MAE?
#
# ```{dropdown} Answer
# More updates on more X-rays, and a CLS token that is used at last. Such gains have nothing to do with
# physiology. That is why [chapter 09](09_components) also compares PaCX-MAE with this control directly.
# ```
#
# ## Next
#
# [Chapter 06](06_clinical_transfer) puts ECG and labs away and asks what the X-ray encoder has
# kept.
#
# ## References
#
# Distillation: {cite:p}`hinton2015distilling`. Low-rank adaptation: {cite:p}`hu2022lora`, here with
# [PEFT](https://github.com/huggingface/peft). InfoNCE: {cite:p}`oord2018cpc`. CLIP:
# {cite:p}`radford2021clip`. Symile-MIMIC: {cite:p}`saporta2024symile`. The paper:
# {cite:p}`liu2026pacx`.
