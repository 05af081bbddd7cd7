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
#
# Reading time: about 10 minutes.

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

run = open_chapter(profile, runs, needs="symile-mimic")
banner(run)

# %% [markdown]
# ## What you will learn
#
# - How a network reads a table with holes.
# - Two traps in the stored data, and what each of them costs.
# - What denoising is, and how well a hidden test can be predicted from the others.
# - Why a missing test is not a test of value zero, in the loss as in the input.
# - How much of a patient's true state can be read from the embedding.
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
# The figure shows forty admissions of the training split. Tests of one panel stand side by side, so
# that tests which are missing together are seen together:

# %% mystnb={"image": {"alt": "Two maps with forty admissions as rows and fifty blood tests as columns, sorted by panel, with the panels named below. The left one shows percentiles in colour with unobserved places blank, the right one shows which tests were observed. Tests of one panel are missing together."}} tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np

from pacx.constants import LABS
from pacx.phantom.labs import PANEL_OF, PANELS

train = pairs["train"]
panels = [list(PANELS).index(PANEL_OF[lab.name]) for lab in LABS]
order, edges = np.argsort(panels, kind="stable"), np.cumsum(np.bincount(panels)) - 0.5
observed = train.observed[:40, order]
percentiles = np.where(observed == 1, train.percentiles[:40, order], np.nan)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
heat = axes[0].imshow(percentiles, cmap="viridis", vmin=0, vmax=1, aspect="auto")
axes[1].imshow(observed, cmap="Greys", vmin=0, vmax=1.4, aspect="auto")
for axis in axes:
    axis.vlines(edges[:-1], -0.5, 39.5, color="0.5", linewidth=0.6)
    axis.set_xticks(edges - np.bincount(panels) / 2, PANELS, rotation=90, fontsize=9)
    axis.set_xlabel("blood tests, by panel")
axes[0].set(title="percentile (blank: not observed)", ylabel="admission")
axes[1].set(title="observed (dark: 1)")
_ = figure.colorbar(heat, ax=axes[0], label="percentile")

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
# A hidden test can only be predicted from the others, so the network must learn which results go
# together (a denoising autoencoder, {cite:t}`vincent2008denoising`). The paper's settings
# ({term}`Optimiser` and {term}`Learning rate` say how the weights move; {term}`GELU` stands between
# two layers):

# %% tags=["hide-input"]
from pacx.book.privacy import declare
from pacx.evaluation.paper import published

paper = published("settings")
paper = paper[paper["stage"] == "Lab autoencoder"].drop(columns="stage")
declare(run, paper.style.hide(axis="index"))

# %% [markdown]
# Here is one loss by hand, of an untrained network on the first patients of the training split:

# %%
import torch

from pacx.models.lab_autoencoder import LabAutoencoder

p = torch.from_numpy(train.percentiles[:64].copy())
o = torch.from_numpy(train.observed[:64].copy())
draw = torch.rand(o.shape, generator=torch.Generator().manual_seed(0))
kept = o * (draw >= run.profile.labs.drop)  # o': some observed tests hidden

model = LabAutoencoder()
seen = torch.cat([p * kept, kept], dim=1)  # 100 numbers a patient
embedding = model.encoder(seen)
predicted = model.decoder(embedding)
squared = (predicted - p).square()
loss = (squared * o).sum() / o.sum()  # the observed tests, hidden ones too

# %% [markdown]
# The library computes the same three things, so it takes over from here:

# %%
from pacx.models.lab_autoencoder import corrupt, masked_mse

same_draw = torch.Generator().manual_seed(0)
torch.testing.assert_close(corrupt(o, run.profile.labs.drop, same_draw), kept)
torch.testing.assert_close(model(p, kept), (predicted, embedding))
torch.testing.assert_close(masked_mse(predicted, p, o), loss)

# %% [markdown]
# ### Why missing is not zero
#
# A percentile of 0 is the lowest result of the hospital. A test that was never ordered has no result,
# and its error is multiplied by $o = 0$. Without that factor the network would be trained to
# call every missing test very low. The gradient of the loss shows which predictions are corrected:

# %%
(masked,) = torch.autograd.grad(loss, predicted, retain_graph=True)
missing_as_zero = (predicted - p * o).square().mean()
(naive,) = torch.autograd.grad(missing_as_zero, predicted)

missing = o == 0
assert (masked[missing] == 0).all()  # nothing to correct
assert (naive[missing] > 0).all()  # each step lowers the prediction

# %% [markdown]
# ## Training

# %% mystnb={"image": {"alt": "Training curve of the lab autoencoder: the mean squared error on observed percentiles against the step."}}
import pandas as pd

from pacx.figures.curves import training_curves
from pacx.training.labs import load_labs, train_labs

history = pd.read_csv(train_labs(run) / "history.csv")
model = load_labs(run)
label = "MSE on observed percentiles"
figure = training_curves({"labs": history}, y_labels=[label])

# %% [markdown]
# ## Can it predict a hidden test from the others?
#
# On the test pairs, the same share of the observed tests is hidden with a fixed seed. The autoencoder is
# compared with a predictor that knows only the training mean of each test, by the root mean square error
# (RMSE) in percentile points: ten points are ten places in a row of a hundred patients. The intervals are
# a {term}`Bootstrap` over patients.

# %%
test = pairs["test"]
p = torch.from_numpy(test.percentiles.copy())
o = torch.from_numpy(test.observed.copy())
seed = run.profile.seed
shown = corrupt(o, run.profile.labs.drop, torch.Generator().manual_seed(seed))
hidden = (o - shown).numpy()
mean = train.percentiles.sum(0) / np.maximum(train.observed.sum(0), 1)
with torch.inference_mode():
    guess = model(p, shown)[0].numpy()

# %%
import pandas as pd

from pacx.evaluation.statistics import bootstrap_weights, on_resamples

weights = bootstrap_weights(test.table["patient"], run.profile.bootstrap, seed)


def rmse(guess):
    """RMSE on the hidden tests in points: of all patients, of each resample."""
    squared = (100 * hidden * (guess - test.percentiles)) ** 2
    of_patient, tests = squared.sum(1), hidden.sum(1)

    def score(w):
        return np.sqrt(w @ of_patient / (w @ tests))

    return on_resamples(score, weights)


# %%
from pacx.evaluation.statistics import paired_table
from pacx.figures.tables import show

guesses = {"training mean": mean, "autoencoder": guess}
errors = {k: rmse(guess) for k, guess in guesses.items()}
measured = paired_table([*errors], "training mean", errors.get, metric="RMSE")
imputation = measured.rename(columns={"model": "predictor"})
run.save_results("lab_imputation", imputation)
shown_as = {"value": "RMSE (points)", "difference_value": "difference"}
imputation = imputation.drop(columns=["metric", "reference", "difference_p"])
show(imputation.rename(columns=shown_as), digits=1)

# %% [markdown]
# One dot is one test. Below the dashed line the autoencoder is the better guess; on the line nothing was
# learned about this test.

# %% mystnb={"image": {"alt": "Scatter plot, one dot a blood test. Horizontal is the error of predicting the mean, vertical the error of the autoencoder, both in percentile points. Dots below the dashed diagonal are tests that the autoencoder predicts better; the best ones are named."}} tags=["hide-input"]
from pacx.book.privacy import FEWEST
from pacx.figures.style import COLOURS

count = hidden.sum(0)
enough = count >= FEWEST
x, y = (
    100 * np.sqrt((hidden * (g - test.percentiles) ** 2).sum(0)[enough] / count[enough])
    for g in guesses.values()
)
names = np.array([lab.name for lab in LABS])[enough]
figure, axis = plt.subplots(figsize=(7.0, 4.8))
axis.plot([0, 40], [0, 40], "--", color="0.6")
axis.plot(x, y, "o", color=COLOURS["green"], alpha=0.7)
for place, k in enumerate(sorted(np.argsort(y - x)[:4], key=y.__getitem__)):
    line = {"arrowstyle": "-", "color": "0.6", "relpos": (0, 0.5)}
    beside = 46, 7 + 2.4 * place  # right of the axes
    axis.annotate(names[k], (x[k], y[k]), beside, fontsize=9, va="center", arrowprops=line)
axis.set(xlabel="RMSE of the training mean (percentile points)",
         ylabel="RMSE of the autoencoder (percentile points)", xlim=(5, 45), ylim=(5, 45))  # fmt: skip
_ = declare(run, figure)

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
# multiplied by $o$ and vanish. The public code of the paper skips this multiplication at extraction time
# ([the paper and its code](../book/paper_and_code)), so the network meets inputs that it never saw. The
# table shows the cost of both traps on the same hidden tests. *Cosine* compares the embedding with the
# right one, after subtracting the mean of the right embeddings from both.

# %%
filled = torch.where(shown == 1, p, torch.from_numpy(mean))
inputs = {
    "right": (p * shown, shown),
    "observed inverted": (filled * (1 - shown), 1 - shown),
    "means not zeroed": (filled, shown),
}
with torch.inference_mode():
    embeddings = {k: model.encoder(torch.cat(x, 1)) for k, x in inputs.items()}
    guesses = {k: model.decoder(t).numpy() for k, t in embeddings.items()}

# %%
from pacx.evaluation.statistics import mean_over_cases

right = embeddings["right"]
centre = right.mean(0)
cosines = []
for t in embeddings.values():
    cosine = torch.cosine_similarity(t - centre, right - centre).numpy()
    cosines.append(mean_over_cases(cosine, weights)._asdict())
errors = {k: rmse(guess) for k, guess in guesses.items()}
measured = paired_table([*errors], "right", errors.get, metric="RMSE")
traps = measured.rename(columns={"model": "input"})
traps = traps.join(pd.DataFrame(cosines).add_prefix("cosine_"))
run.save_results("lab_traps", traps)
traps = traps[["input", "value", "low", "high", *traps.filter(like="cosine_")]]
show(traps.rename(columns=shown_as | {"cosine_value": "cosine"}), digits=2)

# %% [markdown]
# Read both the error and the cosine. With `observed` inverted the network is handed the mean as if it were
# the hidden result. A network that repeats what it is shown then errs about as much as the training mean
# does, and its error alone looks harmless. The cosine shows how far off the embedding is, and the
# embedding is what [chapter 05](05_distillation) uses. `LabAutoencoder.embed` multiplies by `observed`
# itself, so a caller cannot forget.
#
# ## Check it yourself

# %%
with torch.inference_mode():
    nonsense = torch.where(o == 1, p, torch.tensor(float("nan")))
    embedded = model.embed(p, o)
    # Unobserved places must not matter, and `observed` must.
    assert torch.equal(model.embed(nonsense, o), embedded)
    assert not torch.allclose(model.embed(p, 0 * o), embedded)

assert set(np.unique(train.observed)) <= {0.0, 1.0}
# A blood count is nearly always ordered: inverted, its share would be small.
hematocrit = [lab.name for lab in LABS].index("Hematocrit")
assert train.observed[:, hematocrit].mean() > 0.5, "observed is inverted?"

# %% [markdown]
# The answer to the first exercise, on the test pairs:


# %%
def masked_mae(prediction, percentiles, observed):
    """Mean absolute error over the observed tests."""
    error = (prediction - percentiles).abs()
    return (error * observed).sum() / observed.sum()


known = o == 1
direct = (torch.from_numpy(guess) - p)[known].abs().mean()
torch.testing.assert_close(masked_mae(torch.from_numpy(guess), p, o), direct)
print("All checks passed.")

# %% [markdown]
# ## What the embedding holds of a phantom's state
#
# This section needs patients whose true state is known, so it is empty for real data. The states are
# those at the time of the X-ray. The blood was drawn some time later, and acute states had changed by
# then ([chapter 01](01_cohort)), which no embedding can undo. A ridge regression is fitted on the
# training pairs and scored on the test pairs, from the embedding, from its input $[p \odot o, o]$, and
# from $o$ alone: **which tests were ordered, without a single result**. {term}`R²` is the share of a
# state's variance that is explained; 0 is no better than the mean.

# %% mystnb={"image": {"alt": "Dot plot of R squared for each hidden state with 95 percent intervals, from the embedding, from percentiles and observed, and from observed alone."}} tags=["hide-input"]
from pacx.evaluation.statistics import interval
from pacx.evaluation.teachers import ridge_r2, true_states
from pacx.figures.results import dots


def inputs_of(part):
    both = np.hstack([part.percentiles, part.observed])
    with torch.inference_mode():
        embedding = model.encoder(torch.from_numpy(both)).numpy()
    return {
        "embedding": embedding,
        "percentiles and observed": both,
        "observed alone": part.observed,
    }


if run.is_phantom:
    x = {split: inputs_of(part) for split, part in pairs.items()}
    states = {split: true_states(run, split, part) for split, part in pairs.items()}
    rows = []
    for source in x["test"]:
        fit_on, score_on = ((x[split][source], states[split]) for split in pairs)
        r2, resampled = ridge_r2(fit_on, score_on, weights)
        for k, state in enumerate(states["test"]):
            value = interval(r2[k], resampled[:, k])
            rows.append({"task": state, "model": source, "metric": "R2", **value._asdict()})
    recovered = run.save_results("lab_states", pd.DataFrame(rows))
    looks = (COLOURS[name] for name in ("green", "brown", "purple"))
    colours = dict(zip(x["test"], looks, strict=True))
    figure = dots(recovered, x_label="R² on test pairs", chance=0, colours=colours)

# %% [markdown]
# An embedding that is no better here than its own input is no failure: the reading is *linear*, and the
# phantom mixes its states linearly into the results. The embedding is made to be a good **target** for
# distillation: one vector, no holes.
#
# ## Summary
#
# A network reads a table with holes if it is told which values are holes: the percentile and `observed`
# stand side by side, and the loss is a mean over the observed tests. The table of hidden tests says how
# far the other results predict a missing one, beside the training mean. The table of traps says what an
# inverted or forgotten `observed` costs, in the error and in the embedding.
#
# ## Exercises
#
# 1. Write `masked_mae`, the mean *absolute* error over the observed tests, and check it against a mean
#    over `p[o == 1]`.
#
# ```{dropdown} Answer
# The last cell of *Check it yourself* has the function, and the assertion that the two agree. `.abs()`
# takes the place of `.square()`; the mask and the denominator stay as they are.
# ```
#
# 2. Why does the loss count *all* observed tests and not only the hidden ones?
#
# ```{dropdown} Answer
# The embedding should hold everything that was measured, not only what helps to guess the rest.
# Copying a shown test is easy: the embedding is wider than the input. Only the hidden tests force the
# network to learn what goes together.
# ```
#
# 3. A percentile of 0 and "not observed" both give $p \odot o = 0$. How does the network tell them
#    apart?
#
# ```{dropdown} Answer
# By the second half of the input: $o$ is 1 in the first case and 0 in the second.
# ```
#
# 4. In another hospital, doctors order a full panel for everyone. What happens to an embedding that
#    learned from who is tested here?
#
# ```{dropdown} Answer
# The pattern of ordered tests no longer says who is sick, but the embedding reads it as if it did.
# Every patient looks like one whom the doctors worried about. A model that has learned one hospital's
# habits does not transfer to another; see [the limits](../book/limits).
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
