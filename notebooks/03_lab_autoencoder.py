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
# # The lab autoencoder
#
# Fifty blood tests, of which nearly every patient lacks some, become one embedding that knows both
# what was measured and what was not.

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

run = open_chapter(profile, runs, needs="symile-mimic")
banner(run)

# %% [markdown]
# ## What you will learn
#
# - How a network reads a table with holes.
# - Two traps in the stored data, and what each of them costs.
# - What denoising is, and how well a hidden test can be predicted from the others.
# - What the embedding knows of a patient's true state.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | which tests are ordered for whom | what is missing is information | [chapter 01](01_cohort) |
# | {term}`Lab`, {term}`Observed` | the two halves of the input | [glossary](../book/glossary) |
# | {term}`Embedding`, {term}`Encoder` | what is kept after training | [glossary](../book/glossary) |
# | {term}`Ridge regression` | reads states off the embedding | [glossary](../book/glossary) |

# %% [markdown]
# ## The input
#
# Blood tests come in many units and ranges. Symile-MIMIC {cite:p}`saporta2024symile` therefore stores
# each value as a {term}`percentile` $p$ of the training split: 0.5 is the median of the hospital's
# patients, not of healthy people. Beside it stands $o$, **1 where the test was observed** and 0 where
# not. The network reads both side by side, 100 numbers a patient:
#
# $$ [\, p \odot o, \; o \,] , $$
#
# where $\odot$ multiplies test by test: an unobserved place is 0 in both halves.

# %%
from pacx.data.datasets import load_pairs

pairs = {split: load_pairs(run, split) for split in ("train", "test")}

# %% [markdown]
# Some admissions of the training split. The tests are sorted by the panel that they are ordered in, so
# that one sees what is missing together:

# %% mystnb={"image": {"alt": "Two maps with forty admissions as rows and fifty blood tests as columns, sorted by panel, with the panels named below. The left one shows percentiles in colour with unobserved places blank, the right one shows which tests were observed. Tests of one panel are missing together."}} tags=["hide-input", "public"]
import matplotlib.pyplot as plt
import numpy as np

from pacx.book.privacy import FEWEST, show_or_withhold
from pacx.constants import LABS
from pacx.phantom.labs import PANEL_OF, PANELS

train = pairs["train"]
panels = [list(PANELS).index(PANEL_OF[lab.name]) for lab in LABS]
order, sizes = np.argsort(panels, kind="stable"), np.bincount(panels)
edges = np.cumsum(sizes) - 0.5
percentiles, observed = (a[:40, order] for a in (train.percentiles, train.observed))
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
heat = axes[0].imshow(
    np.where(observed == 1, percentiles, np.nan), cmap="viridis", vmin=0, vmax=1, aspect="auto"
)
axes[1].imshow(observed, cmap="Greys", vmin=0, vmax=1.4, aspect="auto")
for axis in axes:
    axis.vlines(edges[:-1], -0.5, 39.5, color="0.5", linewidth=0.6)
    axis.set_xticks(edges - sizes / 2, PANELS, rotation=90, fontsize=8)
    axis.set_xlabel("blood tests, by panel")
axes[0].set(title="percentile (blank: not observed)", ylabel="admission")
axes[1].set(title="observed (dark: 1)")
figure.colorbar(heat, ax=axes[0], label="percentile")
show_or_withhold(run, figure, "03_percentiles", "symile-mimic")

# %% [markdown]
# ## The network and its loss
#
# An encoder of two layers makes the embedding $t^{\text{labs}} \in \mathbb{R}^{256}$, which will
# be a target in [chapter 05](05_distillation). A decoder predicts all fifty percentiles $\hat p$
# from it. In training, a random share of the *observed* tests is hidden: $o'$ is what is left of $o$.
# The network sees $o'$, and answers for $o$:
#
# $$ \mathcal{L}_{\text{labs}} = \frac{\sum_k o_k \,\big(\hat p_k(p \odot o', o') - p_k\big)^2}{\sum_k o_k} . $$
#
# A hidden test can only be predicted from the others, so the network must learn what goes together
# (a denoising autoencoder, {cite:t}`vincent2008denoising`).
# A test that was never ordered has no true value, and costs nothing. In the code below, $p$ is
# `percentiles`, $o$ is `observed`, and `_zero_unobserved` makes $p \odot o$, also where $p$ is not a
# number. `corrupt` makes $o'$, `embed` makes $t^{\text{labs}}$, and `masked_mse` is the loss, in which
# $\hat p$ is `prediction`.

# %% tags=["remove-input"]
from pacx.figures.source import show_source
from pacx.models import lab_autoencoder
from pacx.models.lab_autoencoder import LabAutoencoder, corrupt, masked_mse

show_source(LabAutoencoder.embed, lab_autoencoder._zero_unobserved, corrupt, masked_mse)

# %% [markdown]
# The paper's settings ({term}`Optimiser` and {term}`Learning rate` say how the weights move; {term}`GELU`
# stands between two layers):

# %% tags=["hide-input"]
from IPython.display import Markdown, display

from pacx.evaluation.paper import published

paper = published("settings")
display(paper[paper["stage"] == "Lab autoencoder"].drop(columns="stage").style.hide(axis="index"))
display(
    Markdown(
        f"This run: {run.profile.labs.drop:.0%} of the observed tests hidden, "
        f"{run.profile.labs.epochs} epochs of batches of {run.profile.labs.batch_size}."
    )
)

# %% [markdown]
# ## Training

# %% mystnb={"image": {"alt": "Training curve of the lab autoencoder: the mean squared error on observed percentiles against the step."}}
import pandas as pd

from pacx.figures.curves import training_curves
from pacx.training.labs import load_labs, train_labs

history = pd.read_csv(train_labs(run) / "history.csv")
model = load_labs(run)
figure = training_curves({"labs": history}, y_labels=["MSE on observed percentiles"])

# %% [markdown]
# ## Can it predict a hidden test from the others?
#
# On the test pairs, the same share of the observed tests is hidden with a fixed draw. The autoencoder is
# held against predicting the training mean of each test, by the root mean square error (RMSE) in
# percentile points: ten points are ten places in a row of a hundred patients. The interval is a
# {term}`Bootstrap` over patients. One dot is one test: below the dashed line the autoencoder is the
# better guess, on it nothing was learned about this test.

# %%
import torch

percentiles, observed = (
    torch.from_numpy(np.array(a)) for a in (pairs["test"].percentiles, pairs["test"].observed)
)
shown = corrupt(observed, run.profile.labs.drop, torch.Generator().manual_seed(run.profile.seed))
with torch.inference_mode():
    guess = model(percentiles, shown)[0].numpy()

# %% mystnb={"image": {"alt": "Scatter plot, one dot a blood test. Horizontal is the error of predicting the mean, vertical the error of the autoencoder, both in percentile points. Dots below the dashed diagonal are tests that the autoencoder predicts better; the best ones are named."}} tags=["hide-input"]
from pacx.evaluation.statistics import bootstrap_weights, interval, mean_over_cases
from pacx.figures.style import COLOURS
from pacx.figures.tables import show

hidden = (observed - shown).numpy()
mean = train.percentiles.sum(0) / np.maximum(train.observed.sum(0), 1)
square = {
    "autoencoder": (guess - pairs["test"].percentiles) ** 2 * hidden,
    "training mean": (mean - pairs["test"].percentiles) ** 2 * hidden,
}
weights = bootstrap_weights(pairs["test"].table["patient"], run.profile.bootstrap, run.profile.seed)
rmse = {
    k: 100 * np.sqrt((weights @ s.sum(1)) / (weights @ hidden.sum(1))) for k, s in square.items()
}
point = {k: 100 * np.sqrt(s.sum() / hidden.sum()) for k, s in square.items()}
rows = [{"predictor": k, "metric": "RMSE", **interval(point[k], rmse[k])._asdict()} for k in square]
difference = interval(
    point["autoencoder"] - point["training mean"], rmse["autoencoder"] - rmse["training mean"]
)
rows.append({"predictor": "difference", "metric": "RMSE", **difference._asdict()})
imputation = run.save_results("lab_imputation", pd.DataFrame(rows))

count = hidden.sum(0)
enough = count >= FEWEST
by_lab = {k: 100 * np.sqrt(s.sum(0)[enough] / count[enough]) for k, s in square.items()}
names = [lab.name for lab, yes in zip(LABS, enough, strict=True) if yes]
figure, axis = plt.subplots(figsize=(5.6, 4.8))
axis.plot([0, 40], [0, 40], "--", color="0.6")
axis.plot(by_lab["training mean"], by_lab["autoencoder"], "o", color=COLOURS["green"], alpha=0.7)
best = np.argsort(by_lab["autoencoder"] - by_lab["training mean"])[:4]
for place, k in enumerate(sorted(best, key=by_lab["autoencoder"].__getitem__)):
    axis.annotate(names[k], (by_lab["training mean"][k], by_lab["autoencoder"][k]), fontsize=8,
                  xytext=(33, 7 + 2.4 * place), arrowprops={"arrowstyle": "-", "color": "0.6"})  # fmt: skip
_ = axis.set(xlabel="RMSE of the training mean (percentile points)",
             ylabel="RMSE of the autoencoder (percentile points)", xlim=(5, 45), ylim=(5, 45))  # fmt: skip


# %% tags=["hide-input"]
def told(value, low, high, digits=1):
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


errors = [told(row.value, row.low, row.high) for row in imputation.itertuples()]
show(pd.DataFrame({"predictor": imputation["predictor"], "RMSE, points [95 %]": errors}))

# %% [markdown]
# ## Trap 1: which way round is `observed`?
#
# The file that holds $o$ is called `labs_missingness`, yet it is 1 where a lab was **present**.
# Trust the file name and you invert the mask. The network then sees zeros for what was measured, and takes
# what fills the gaps for results.
#
# ## Trap 2: means where nothing was measured
#
# In `labs_percentiles`, unobserved places hold the *training mean*, not zero. In training they are
# multiplied by $o$ and vanish. The public code of the paper skips this at extraction time ([the
# paper and its code](../book/paper_and_code)), so the network meets inputs that it never saw. Here
# is what both cost, on the same hidden tests. *Cosine* compares the embedding with the right one,
# after subtracting the mean embedding from both.

# %% tags=["hide-input"]
stored = np.load(
    run.data_root / "symile-mimic" / "data_npy" / "train" / "labs_percentiles_train.npy"
)
fill = np.where(train.observed == 0, stored, np.nan)
filled = torch.where(
    shown == 1, percentiles, torch.from_numpy(np.nanmean(fill, 0).astype(np.float32))
)
inputs = {
    "right": torch.cat([percentiles * shown, shown], 1),
    "observed inverted": torch.cat([filled * (1 - shown), 1 - shown], 1),
    "means not zeroed": torch.cat([filled, shown], 1),
}
with torch.inference_mode():
    embeddings = {k: model.encoder(x) for k, x in inputs.items()}
    guesses = {k: model.decoder(t).numpy() for k, t in embeddings.items()}
centre = embeddings["right"].mean(0)
rows = []
for k, t in embeddings.items():
    error = (guesses[k] - pairs["test"].percentiles) ** 2 * hidden
    cosine = torch.cosine_similarity(t - centre, embeddings["right"] - centre).numpy()
    cosine = mean_over_cases(cosine, weights)._asdict()
    resampled = 100 * np.sqrt((weights @ error.sum(1)) / (weights @ hidden.sum(1)))
    value = interval(100 * np.sqrt(error.sum() / hidden.sum()), resampled)
    cosine = {f"cosine_{part}": number for part, number in cosine.items()}
    rows.append({"input": k, "metric": "RMSE", **value._asdict(), **cosine})
traps = run.save_results("lab_traps", pd.DataFrame(rows))
by_input = pd.DataFrame(
    {
        "RMSE, points [95 %]": [told(r.value, r.low, r.high) for r in traps.itertuples()],
        "cosine [95 %]": [
            told(r.cosine_value, r.cosine_low, r.cosine_high, 2) for r in traps.itertuples()
        ],
    },
    index=traps["input"],
)
show(by_input.reset_index())

# %% [markdown]
# Read both columns. With `observed` inverted the network is handed the mean as if it were the hidden
# result. A network that repeats what it is shown then errs about as much as the training mean does, and
# its error alone looks harmless. The cosine shows how far off the embedding is, and the embedding is what
# [chapter 05](05_distillation) uses.
#
# `LabAutoencoder.embed` multiplies by `observed` itself, whoever calls it. A caller cannot forget.
#
# ## What does the embedding know of the patient?
#
# On phantoms the true state is known, at the time of the X-ray. The blood was drawn some time later, and
# what is acute had moved on ([chapter 01](01_cohort)), which no embedding can undo. A ridge regression is fitted on the training pairs and
# scored on the test pairs, once from the embedding, once from its input $[p \odot o, o]$, and once from
# $o$ alone: **which tests were ordered, without a single result**. {term}`R²` is the share of a state's
# variance that is explained; 0 is no better than the mean.

# %% mystnb={"image": {"alt": "Dot plot of R squared for each hidden state with 95 percent intervals, from the embedding, from percentiles and observed, and from observed alone."}} tags=["hide-input"]
from pacx.evaluation.teachers import ridge_r2, true_states
from pacx.figures.results import dots

SOURCES = {
    "embedding": COLOURS["green"],
    "percentiles and observed": COLOURS["brown"],
    "observed alone": COLOURS["purple"],
}
if run.is_phantom:
    inputs, states = {}, {}
    for split, part in pairs.items():
        states[split] = true_states(run, split, part)
        with torch.inference_mode():
            t = model.embed(torch.from_numpy(part.percentiles), torch.from_numpy(part.observed))
        both = np.hstack([part.percentiles, part.observed])
        inputs[split] = dict(zip(SOURCES, (t.numpy(), both, part.observed), strict=True))
    rows = []
    for source in SOURCES:
        train_of, test_of = ((inputs[split][source], states[split]) for split in pairs)
        r2, resampled = ridge_r2(train_of, test_of, weights)
        for k, state in enumerate(states["test"]):
            value = interval(r2[k], resampled[:, k])
            rows.append({"task": state, "model": source, "metric": "R2", **value._asdict()})
    recovered = run.save_results("lab_states", pd.DataFrame(rows))
    figure = dots(recovered, x_label="R² on test pairs", chance=0, colours=SOURCES)
else:
    display(Markdown("No figure: the true state of real patients is not known."))

# %% [markdown]
# Read the figure with care. If the embedding is no better than its own input, that is expected of
# a *linear* reading on states that were mixed linearly. The embedding is made to be a good
# **target** for distillation: one vector, no holes.
#
# ## Check it yourself

# %%
p, o = percentiles[:8], observed[:8]
with torch.inference_mode():
    right = model.embed(p, o)
    nonsense = torch.where(o == 1, p, torch.tensor(float("nan")))
    assert torch.equal(model.embed(nonsense, o), right), "unobserved places must not matter"
    assert not torch.allclose(model.embed(p, shown[:8] * 0), right), "observed must matter"

assert set(np.unique(train.observed)) <= {0.0, 1.0}
# MIMIC's blood count is nearly always ordered: were observed inverted, its share would be small.
hematocrit = [lab.name for lab in LABS].index("Hematocrit")
assert train.observed[:, hematocrit].mean() > 0.5, "observed seems to be inverted"
print("All checks passed.")

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
from pacx.evaluation.statistics import verdict

inverted, filled_in = by_input.loc["observed inverted"], by_input.loc["means not zeroed"]
lines = [
    f"- A hidden test is predicted with an error of {point['autoencoder']:.1f} percentile points, against "
    f"{point['training mean']:.1f} for the training mean. The difference, {difference.value:+.1f} "
    f"[{difference.low:+.1f}, {difference.high:+.1f}], is {verdict(difference)}.",
    f"- With `observed` inverted the error is {inverted.iloc[0]} points, beside the training mean's "
    f"{point['training mean']:.1f}. The embedding's cosine to the right one is {inverted.iloc[1]}.",
    f"- With means left in, the error is {filled_in.iloc[0]} points and the cosine {filled_in.iloc[1]}.",
]
if run.is_phantom:
    best = recovered[recovered["model"] == "embedding"].nlargest(3, "value")
    states = "; ".join(
        f"{r.task.replace('_', ' ')}, {told(r.value, r.low, r.high, 2)}" for r in best.itertuples()
    )
    alone = recovered[recovered["model"] == "observed alone"].nlargest(1, "value").iloc[0]
    lines.append(f"- The states that the embedding tells best, by R²: {states}.")
    lines.append(
        f"- Which tests were ordered tells most about {alone['task'].replace('_', ' ')}: R² "
        f"{told(alone['value'], alone['low'], alone['high'], 2)} without a single result."
    )
display(Markdown("\n".join(lines)))

# %% [markdown]
# ## Exercises
#
# 1. Why does the loss count *all* observed tests and not only the hidden ones?
#
# ```{dropdown} Answer
# The embedding should hold everything that was measured, not only what helps to guess the rest.
# Copying a shown test is easy: the embedding is wider than the input. Only the hidden tests force the
# network to learn what goes together.
# ```
#
# 2. A percentile of 0 and "not observed" both give $p \odot o = 0$. How does the network tell them
#    apart?
#
# ```{dropdown} Answer
# By the second half of the input: $o$ is 1 in the first case and 0 in the second.
# ```
#
# 3. In another hospital, doctors order a full panel for everyone. What happens to an embedding that
#    learned from who is tested here?
#
# ```{dropdown} Answer
# The pattern of ordered tests no longer says who is sick, but the embedding reads it as if it did.
# Every patient looks like one whom the doctors worried about. What is learned from habits does not
# travel; see [the limits](../book/limits).
# ```
#
# ## Next
#
# [Chapter 04](04_ecg_teacher) brings the other teacher, the ECG network.
#
# ## References
#
# Symile-MIMIC: {cite:p}`saporta2024symile`. MIMIC-IV: {cite:p}`johnson2023mimiciv`. The paper:
# {cite:p}`liu2026pacx`.
