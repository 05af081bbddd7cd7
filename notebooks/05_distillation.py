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
#
# Reading time: about 12 minutes.

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
# - How LoRA adapts an encoder through a small part of its weights.
# - The two losses: tell pairs apart, and predict the teacher.
# - What one training step does, written out on a batch of this run.
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
from pacx.data.datasets import teachers_of
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
# layer (`proj`) gets none. **LayerNorms** are trained too ({term}`LayerNorm`).
#
# Here is one such layer by hand. The library must give the same output with the adapter beside the
# layer, and the same matrix after merging. ($B$ gets random values, as if it had been trained. The
# tolerance is wider than PyTorch's own because sums over the width are added in another order.)

# %%
import torch

from pacx.data.datasets import load_pairs
from pacx.data.images import normalise
from pacx.models.encoder import add_lora, merge_lora
from pacx.training.encoders import encoder_of

settings, pairs = run.profile.distill, load_pairs(run, "train")
rank, alpha = settings.lora_rank, settings.lora_alpha
adapted = add_lora(encoder_of(run, "mae"), rank, alpha).eval()
layer = adapted.get_base_model().blocks[0].attn.qkv
W, bias = layer.base_layer.weight, layer.base_layer.bias
A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
assert (B == 0).all(), "the student must start as the MAE"

# %%
torch.manual_seed(0)
torch.nn.init.normal_(B, std=0.02)
images = normalise(torch.from_numpy(pairs.cxr[:8].copy()))
with torch.inference_mode():
    x = adapted.get_base_model().patch_embed(images)  # (8, L, D)
    W_new = W + alpha / rank * B @ A
    by_hand = x @ W_new.T + bias
    merged = merge_lora(adapted).blocks[0].attn.qkv

    torch.testing.assert_close(layer(x), by_hand, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(merged.weight, W_new)

# %% [markdown]
# In the library, PEFT adds an adapter to every such layer:

# %% tags=["remove-input"]
from pacx.figures.source import show_source

show_source(add_lora)

# %% [markdown]
# *Which* LayerNorms? The paper's text says LayerNorms, its public code frees only the final one
# ([the paper and its code](../book/paper_and_code)). The table counts both, for this run's encoder
# and for one of the paper's size.

# %%
import pandas as pd

from pacx.figures.tables import show
from pacx.models.encoder import build_encoder, trainable_parameters

sizes = {
    "this run": list(run.profile.vit.model_dump().values()),
    "ViT-B/16 at 224 px": [224, 16, 768, 12, 12],
}
rows = []
for name, size in sizes.items():
    for norms in ("all", "final"):
        encoder = build_encoder(*size)
        weights = sum(p.numel() for p in encoder.parameters())
        add_lora(encoder, rank, alpha, norms=norms)
        trained = trainable_parameters(encoder)
        rows.append([name, norms, weights, trained, trained / weights])

# %%
columns = ["encoder", "LayerNorms", "weights", "trained", "share"]
counts = pd.DataFrame(rows, columns=columns)
run.save_results("lora_counts", counts)
digits = {"weights": "{:,}", "trained": "{:,}", "share": "{:.1%}"}
show(counts).format(digits)

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
# Both by hand, the first with label smoothing:


# %%
def infonce(u, v, tau, smoothing):
    u, v = (z / z.norm(dim=1, keepdim=True) for z in (u, v))
    logits = u @ v.T / tau  # (N, N): a row is an X-ray, a column a partner
    n = len(u)
    wanted = (1 - smoothing) * torch.eye(n) + smoothing / n
    picks = (logits.log_softmax(1), logits.T.log_softmax(1))
    return -sum((wanted * pick).sum(1).mean() for pick in picks) / 2


def one_minus_cosine(predicted, t):
    lengths = predicted.norm(dim=1) * t.norm(dim=1)
    return (1 - (predicted * t).sum(1) / lengths).mean()


# %% [markdown]
# The next section makes the targets $t$; then the two functions meet a batch of this run, and the
# library.
#
# Six made-up pairs show what the three numbers do. A row is an X-ray, a column an ECG, and a cell the
# first fraction of $\mathcal{L}_C$: how likely this X-ray is to pick this ECG. ECGs 2 and 3 are nearly
# the same. One set of cosines serves both losses, and the start is this run's settings. Lower $\tau$:
# X-rays 2 and 3 both grow sure of ECG 3, and X-ray 2 is wrong. Raise it: all cells grow alike, and the
# loss rises towards $\log 6$, guessing. The weights do not change the table. They set how much of the
# pull on the true pairs (the slope of the loss) comes from which loss.

# %%
import numpy as np

from pacx.figures.interactive import losses

rng = np.random.default_rng(0)
ecgs = rng.normal(size=(6, 16))
ecgs[2] = ecgs[1] + 0.3 * rng.normal(size=16)
xrays = ecgs + 2 * rng.normal(size=(6, 16))
xrays /= np.linalg.norm(xrays, axis=1, keepdims=True)
ecgs /= np.linalg.norm(ecgs, axis=1, keepdims=True)
losses(
    xrays @ ecgs.T,
    settings.temperature,
    settings.contrastive_weight,
    settings.regression_weight,
)

# %% [markdown]
# ## Why the targets are standardised
#
# The teachers run once over all pairs; afterwards only their embeddings are needed. Look at them
# before using them: how close is each to the *mean* embedding? If all point in nearly the same
# direction, predicting the mean for every patient satisfies $\mathcal{L}_R$, and nothing is learned
# about any one of them. To **standardise** ({term}`Standardise`) is to centre and scale each dimension
# over the training pairs. By hand, then by the library:

# %%
from pacx.training.distill import standardise, teacher_embeddings

pairs = {"train": pairs, "val": load_pairs(run, "val")}
raw = {s: teacher_embeddings(run, part) for s, part in pairs.items()}
standard = {"train": {}, "val": {}}
for m, t in raw["train"].items():
    mean, spread = t.mean(0), np.maximum(t.std(0), 1e-6)
    for s in standard:
        standard[s][m] = (raw[s][m] - mean) / spread
    np.testing.assert_allclose(standard["train"][m], standardise(t))

# %%
rows = []
for kind, embeddings in {"raw": raw, "standardised": standard}.items():
    for m, t in embeddings["val"].items():
        lengths = np.linalg.norm(t, axis=1) * np.linalg.norm(t.mean(0))
        cosine = t @ t.mean(0) / np.maximum(lengths, 1e-6)
        rows += [{"teacher": m, "embedding": kind, "cosine": c} for c in cosine]
cosines = pd.DataFrame(rows).replace({"ecg": "ECG"})
means = cosines.groupby(["teacher", "embedding"], as_index=False).mean()
run.save_results("target_cosines", means)
show(means.rename(columns={"cosine": "mean cosine to the mean embedding"}))

# %% mystnb={"image": {"alt": "Two histograms of the cosine similarity between each admission's teacher embedding and the mean embedding, one for the ECG teacher and one for the labs, each with raw and with standardised embeddings. Standardised ones spread around zero."}} tags=["hide-input"]
import matplotlib.pyplot as plt
import seaborn as sns

from pacx.figures.style import COLOURS

teachers = cosines["teacher"].unique()
look = {"bins": np.linspace(-1, 1, 41), "palette": [COLOURS["brown"], COLOURS["green"]]}
figure, axes = plt.subplots(1, len(teachers), figsize=(8, 3), sharey=True, squeeze=False)
for axis, m in zip(axes[0], teachers, strict=True):
    own = cosines[cosines["teacher"] == m]
    sns.histplot(own, x="cosine", hue="embedding", ax=axis, legend=m == teachers[0], **look)
    axis.set(title=m, xlabel="cosine to the mean embedding", ylabel="validation admissions")

# %% [markdown]
# So this book standardises the targets before distilling (`standardise_targets: true` in the profile;
# the paper's raw targets are one setting away).
#
# ## One training step by hand
#
# These are the networks of stage 2: the student, the small heads, and the loss with its learned
# temperature. `Distillation` holds them together.

# %%
from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.training.distill import Distillation

targets = (standard if settings.standardise_targets else raw)["train"]
widths = {m: t.shape[1] for m, t in targets.items()}
student, dropout = encoder_of(run, "mae"), settings.lora_dropout
student = add_lora(student, rank, alpha, dropout, settings.norms)
heads = DistillationHeads(run.profile.vit.width, widths, settings.shared_dim)
names = ("contrastive_weight", "regression_weight", "temperature", "label_smoothing")
weights = {name: getattr(settings, name) for name in names}
loss = DistillationLoss(**weights, modalities=tuple(targets))
few = settings.model_copy(update={"batch_size": min(32, settings.batch_size)})
stage = Distillation(student, heads, loss, few, run.profile.seed)

# %% [markdown]
# Take one small batch of this run's pairs. The two losses by hand agree with the library for every teacher, and so
# does the weighted sum:

# %%
from pacx.models.encoder import encode
from pacx.training.batches import parts_of_batches

arrays = [pairs["train"].cxr, *targets.values()]
batch = next(parts_of_batches(arrays, few.batch_size, 1, 0, 1))
t = dict(zip(targets, batch[1:], strict=True))
tau, smoothing = settings.temperature, settings.label_smoothing
with torch.no_grad():
    h, _ = encode(student, normalise(batch[0]))  # CLS tokens, (N, D)
    u, v, predicted = projections = heads(h, t)
    terms = loss(projections, t)
    total = 0
    for m in t:
        contrastive = infonce(u, v[m], tau, smoothing)
        regression = one_minus_cosine(predicted[m], t[m])
        torch.testing.assert_close(contrastive, terms[f"contrastive_{m}"])
        torch.testing.assert_close(regression, terms[f"regression_{m}"])
        total += settings.contrastive_weight * contrastive / len(t)
        total += settings.regression_weight * regression / len(t)
    torch.testing.assert_close(total, terms["total"])

# %% [markdown]
# A training step has four parts: the loss of an augmented batch, its gradient, a limit on the gradient's
# length, and the optimiser's update. The optimiser is AdamW. In its first step, its running averages are the gradient $g$ and its square, so every trained weight $w$ moves
# by about the learning rate $\eta$, against the sign of its gradient, and shrinks a little (weight decay
# $\omega$):
#
# $$ w \leftarrow w - \eta \left( \omega w + \frac{g}{|g| + \epsilon} \right) . $$

# %%
import copy

from pacx import processes
from pacx.training.batches import seed_step

by_hand = copy.deepcopy(stage).to(processes.device()).train()
batch = [x.to(processes.device()) for x in batch]
generator = seed_step(stage.seed, 0)  # of augmentation and dropout
value, _ = by_hand(*batch, generator=generator)
trained = [w for w in by_hand.parameters() if w.requires_grad]
gradients = torch.autograd.grad(value, trained)
length = torch.cat([g.flatten() for g in gradients]).norm()
shrink = (settings.gradient_clip / length).clamp(max=1)
with torch.no_grad():
    for w, g in zip(trained, (shrink * g for g in gradients), strict=True):
        sign = g / (g.abs() + 1e-8)
        w -= settings.learning_rate * (settings.weight_decay * w + sign)

# %% [markdown]
# The library takes the same step with the same batch. All weights, trained and frozen, must agree to
# within a hundredth of the step:

# %%
from pacx.training.fit import fit

before = copy.deepcopy(stage)
fit(stage, arrays, "one step", steps=1, clip=settings.gradient_clip)
step = {"rtol": 1e-6, "atol": 0.01 * settings.learning_rate}
library = dict(stage.named_parameters())
for name, w in by_hand.cpu().named_parameters():
    torch.testing.assert_close(w, library[name], **step)
    moved = not torch.equal(w, before.get_parameter(name))
    assert moved == w.requires_grad, name

# %% [markdown]
# ## Training
#
# Training repeats this step. `Distillation.forward` is the loss of one batch. The loop `fit` below it
# trains every network of this book. Everything random in a step follows from the seed and the number of
# the step, so a training that was interrupted continues exactly as if it had not been.

# %%
show_source(Distillation.forward, fit)

# %% [markdown]
# Beside PaCX-MAE, the second core trains the control of the next section, another control of
# [chapter 08](08_alignment), and the network that [chapter 06](06_clinical_transfer) sets above all
# encoders of a phantom run.

# %%
from pacx.training.distill import distill
from pacx.training.pipeline import train_side_by_side

ceiling = ["supervised"] if run.is_phantom else []
train_side_by_side(run, "pacx", *ceiling, "pacx-shuffled", "pacx-untrained")
history = pd.read_csv(distill(run, "pacx") / "history.csv")

# %% mystnb={"image": {"alt": "Two panels of training curves, the contrastive loss and the regression loss, each with one line for the ECG teacher and one for the lab encoder."}} tags=["hide-input"]
from pacx.figures.curves import training_curves

terms = ("contrastive", "regression")
history = history.drop(columns=[*terms])  # their means over the teachers
columns = {m: {f"{term}_{m}": term for term in terms} for m in targets}
named = {"ecg": "ECG", "labs": "labs"}
each = {named[m]: history.rename(columns=columns[m]) for m in targets}
figure = training_curves(each, terms, ("InfoNCE (nats)", "1 − cosine"))

# %% [markdown]
# Compare the last tenth of the steps with $\log N$, the loss of a student that gives all pairs of a batch
# the same cosine:

# %%
last = history.tail(max(1, len(history) // 10)).mean()
rows = [
    {"teacher": named[m], "InfoNCE": last[f"contrastive_{m}"],
     "log N": np.log(settings.batch_size), "1 − cosine": last[f"regression_{m}"]}
    for m in targets
]  # fmt: skip
show(pd.DataFrame(rows))

# %% [markdown]
# ## The control: shuffled pairs
#
# Training losses fall even when the network only memorises. So the same
# training is run once more with one change, as a {term}`control`: every X-ray gets the ECG and labs of
# *another patient*. The distribution of the teachers' embeddings is the same; only the pairing is gone.

# %%
_ = distill(run, "pacx-shuffled")

# %% mystnb={"image": {"alt": "Two panels of training curves, the contrastive and the regression loss, each with one line for true pairs and one for shuffled pairs."}} tags=["hide-input"]
from pacx.figures.style import colour_of

both = {
    label: pd.read_csv(run.artefact(name) / "history.csv")
    for label, name in {"true pairs": "pacx", "shuffled pairs": "pacx-shuffled"}.items()
}
axes = ("InfoNCE, mean of teachers (nats)", "1 − cosine, mean of teachers")
colours = [colour_of("pacx"), colour_of("pacx-shuffled")]
figure = training_curves(both, terms, axes, colours=colours)

# %% [markdown]
# ## Does an unseen X-ray find its own ECG and labs?
#
# The heads are thrown away, so the comparison uses what is left: a {term}`Ridge regression` from $h$ of
# each frozen encoder to the standardised teacher embeddings, fitted on the training pairs. On the
# validation pairs, which no training step saw, each X-ray ranks all of them by cosine. The figure
# shows the share whose own partner is among the nearest tenth; one in ten is chance. The table below it
# has the differences from PaCX-MAE on the same resampled patients (a {term}`bootstrap`). [Chapter
# 08](08_alignment) does this properly, on the test pairs.

# %%
from pacx.evaluation.alignment import ridge_alignment
from pacx.evaluation.features import extract_features
from pacx.evaluation.statistics import bootstrap_weights, mean_on_resamples

patients = pairs["val"].table["patient"].to_numpy()
weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
nearest = max(1, round(0.1 * len(patients)))


def share_found(model, m):
    h = {s: extract_features(run, model, pairs[s].cxr).cls for s in pairs}
    t = {s: standard[s][m] for s in pairs}
    found = ridge_alignment(h["train"], t["train"], h["val"], t["val"])
    hits = (found.ranks <= nearest).astype(float)
    return mean_on_resamples(hits, weights)


# %%
from functools import partial

from pacx.evaluation.statistics import paired_table

metric = "recall in nearest tenth"
retrieval = pd.concat(
    paired_table(
        ("pacx", "mae", "pacx-shuffled"),
        "pacx",
        partial(share_found, m=m),
        task=m,
        metric=metric,
    )
    for m in targets
).replace({"ecg": "ECG"})
_ = run.save_results("distillation_retrieval", retrieval)

# %% mystnb={"image": {"alt": "Dot plot of the share of validation X-rays whose own ECG or labs are among the nearest tenth, with 95 percent intervals, for the MAE, PaCX-MAE and the shuffled control. A dashed line marks chance at one in ten."}} tags=["hide-input"]
from pacx.figures.results import dots

chance = nearest / len(patients)
label = "own partner among the nearest tenth"
figure = dots(retrieval, chance=chance, x_label=label)

# %%
from pacx.figures.tables import in_words

show(in_words(retrieval, "task"))

# %% [markdown]
# With few validation pairs the intervals are wide. A difference whose interval holds zero does not tell
# two models apart.

# %% [markdown]
# ## What changed in the encoder?
#
# After training, $\frac{\alpha}{r} B A$ is added to $W$ once, and a plain encoder of the same size
# remains. The map shows how far each matrix moved, relative to its own size:
# $\lVert W' - W \rVert_F / \lVert W \rVert_F$.

# %%
mae, pacx = (encoder_of(run, m).state_dict() for m in ("mae", "pacx"))
change = {}
for name, w in mae.items():
    change[name] = float((pacx[name] - w).norm() / w.norm().clamp(min=1e-12))

# %%
kinds = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
moved = pd.DataFrame(
    {
        block + 1: [change[f"blocks.{block}.{kind}.weight"] for kind in kinds]
        for block in range(run.profile.vit.depth)
    },
    index=kinds,
)

# %% mystnb={"image": {"alt": "Heat map of the relative change of weights between the MAE and PaCX-MAE, blocks of the encoder as columns and kinds of weights as rows: qkv, fc1, fc2 and the two LayerNorms changed, the attention's output projection did not."}} tags=["hide-input"]
from pacx.book.privacy import declare

figure, axis = plt.subplots(figsize=(2.5 + 0.9 * moved.shape[1], 3.2))
look = {"cmap": "Oranges", "cbar_kws": {"label": "relative change"}}
sns.heatmap(moved, annot=moved.shape[1] <= 6, fmt=".3f", ax=axis, **look)
axis.set(xlabel="block of the encoder", ylabel="")
_ = declare(run, figure)

# %% [markdown]
# ## Check it yourself
#
# Merging must not change what the whole encoder computes, but it must differ from the encoder without
# adapters. The adapters have one layer with random values so far; now all get some.

# %%
for name, parameter in adapted.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.02)
with torch.inference_mode():
    beside = encode(adapted, images)[0]
    merged = encode(merge_lora(adapted), images)[0]
    plain = encode(encoder_of(run, "mae"), images)[0]
assert torch.allclose(beside, merged, atol=1e-4), "merging changed the answer"
assert not torch.allclose(merged, plain, atol=1e-2), "adapters changed nothing"

assert change["blocks.0.attn.qkv.weight"] > 0, "nothing was distilled"
assert change["blocks.0.attn.proj.weight"] == 0, "a frozen matrix changed"
assert change["pos_embed"] == 0

# Exercise 4: a student that cannot tell pairs apart scores log N.
same = torch.ones(6, 4)
score = infonce(same, same, tau=0.07, smoothing=0.02)
torch.testing.assert_close(score, torch.tensor(6.0).log())
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# Distillation trains low-rank adapters, LayerNorms and heads that are thrown away, a small share of the
# encoder's weights (first table), so that an X-ray's embedding finds and predicts what two frozen teachers
# make of the same admission. Its targets are standardised because raw embeddings can lie so close to their
# mean that predicting the mean is enough (second table). Whether more than the training pairs was learned
# is read off the last table, from the differences between PaCX-MAE, the MAE and the shuffled control on
# unseen pairs; one validation split and one training cannot settle it, so chapters
# [06](06_clinical_transfer) to [11](11_attention_shift) test what the encoder is worth.
#
# ## Exercises
#
# 1. Why is there no mirror image among the augmentations of this stage, although stage 1 has it?
#
# ```{dropdown} Answer
# The heart lies on the left, and the ECG depends on where it lies. A mirrored X-ray with an unmirrored ECG is a
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
# 4. What does `infonce` return if all embeddings of a batch are equal? Compute it with the function of this
#    page for a batch of six, and explain why neither `tau` nor `smoothing` matters.
#
# ```{dropdown} Answer
# All cosines are one, so each partner has the probability 1/6, at any temperature. Each row of the target
# sums to one, with smoothing or without, so the result is $\log 6$.
#
#     same = torch.ones(6, 4)
#     infonce(same, same, tau=0.07, smoothing=0.02), torch.tensor(6.0).log()
# ```
#
# ## Next
#
# [Chapter 06](06_clinical_transfer) takes ECG and labs away and asks what the X-ray encoder
# has learned.
#
# ## References
#
# Distillation: {cite:p}`hinton2015distilling`. Low-rank adaptation: {cite:p}`hu2022lora`, here with
# [PEFT](https://github.com/huggingface/peft). InfoNCE: {cite:p}`oord2018cpc`. CLIP:
# {cite:p}`radford2021clip`. Symile-MIMIC: {cite:p}`saporta2024symile`. The paper:
# {cite:p}`liu2026pacx`.
