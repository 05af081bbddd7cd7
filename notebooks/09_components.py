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
# # Controls
#
# Which part of the method earns the gain, and would something much simpler have done as well?
#
# Reading time: about 17 minutes.

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
# - What the ECG, the labs, the contrastive and the regression loss each contribute.
# - How a control is made, written out by hand: the same training with the pairing destroyed.
# - Three controls that can refute the method: shuffled pairs, untrained teachers, more steps of the MAE.
# - How to write a claim, with a smallest difference that matters, so that a run can reject it.
# - Where the controls lie on the ladder from chance to the true states.
# - What the embedding of a teacher with random weights still holds.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | both losses of stage 2 | they are switched off one by one | [chapter 05](05_distillation) |
# | probes, pairs and intervals | the yardstick | [chapter 06](06_clinical_transfer) |
# | few labels | half of the comparison | [chapter 07](07_label_efficiency) |
# | {term}`Control`, {term}`Ceiling`, {term}`R²` | what is compared, and how | [glossary](../book/glossary) |
#
# ## One change at a time
#
# Every variant takes the paired X-rays in the same order for the same number of steps. One thing
# differs from `pacx`, in some variants two (see the table). The profile's `variants` says which ones
# this run compares; those that are meant to forget less are discussed in
# [chapter 10](10_forgetting).

# %% tags=["remove-input"]
from pacx.figures.source import show_source
from pacx.training.distill import Variant

show_source(Variant)

# %%
import pandas as pd

from pacx.figures.style import name_of
from pacx.figures.tables import show
from pacx.training.distill import VARIANTS
from pacx.training.pipeline import encoders_of

chosen = [name for name in encoders_of(run) if name in VARIANTS]
usual, rows = vars(VARIANTS["pacx"]), []
for name in chosen:
    own = vars(VARIANTS[name])
    changed = [f"{k} = {v}" for k, v in own.items() if v != usual[k]]
    rows.append({"variant": name_of(name), "settings": "; ".join(changed)})
show(run.save_results("variants", pd.DataFrame(rows)))

# %% [markdown]
# Two more encoders are not distilled. *MAE continued* goes on with masked autoencoding for exactly as many
# steps, to see whether longer training alone explains a gain. *MAE, other mask ratio* is the second MAE of
# [chapter 02](02_cxr_mae).
#
# ## The claims, before any result
#
# The claims were written down before any evidence for them was gathered. Each is about the difference in
# AUROC between two models on phantom patients, averaged over the tasks of *physiology*, or of *anatomy*
# where the claim says so.

# %%
from pacx.figures.first_page import claims_to_come
from pacx.figures.tables import folded

stated = claims_to_come()
reason = "reason for the margin"
show(stated.drop(columns=reason))

# %%
folded(show(stated[["claim", reason]]), "Why these margins")

# %% [markdown]
# The margin is the {term}`minimal difference that matters`: a claim holds where the difference is shown to
# be above the margin, or within it on both sides. With enough patients, even a difference too
# small to matter can be distinguished from zero. So a claim of a gain holds only where the gain is shown to
# be *larger than the margin*.
#
# A claim that nothing changes needs a margin as well: an interval that includes zero may be wide, and then
# nothing was shown. Such a claim is tested for **equivalence** by two one-sided tests ({term}`TOST`): one
# has to reject that the difference is at or below minus the margin, the other that it is at or above the
# margin. The claim's p-value is the larger of the two, so both tests have to reject.
#
# Each encoder is read from the CLS token or from the mean of the patches, whichever is better on the
# validation patients; the claim about anatomy always uses the mean of the patches. Whether the
# claims hold in this run is shown near the end, after the results that they are about.
#
# ## Training the variants

# %%
from pacx.training.pipeline import train_side_by_side

models = [*chosen, "mae-continued", "mae-other-ratio"]
train_side_by_side(run, *models)

# %% [markdown]
# ## A control by hand
#
# A control changes only the one thing that is said to matter. Here it is the pairing: which ECG and which
# blood tests belong to which X-ray. So arrange all pairs in a random circle, and give each X-ray the
# targets of the pair before it. A random order alone would not do, because some X-rays might keep their own
# (exercise 5). The targets of the library's `pacx-shuffled` must be exactly the same:

# %%
import numpy as np

from pacx.data.datasets import load_pairs
from pacx.training.distill import targets_of

pairs = load_pairs(run, "train")
n = len(pairs.table)
circle = np.random.default_rng(run.profile.seed).permutation(n)
giver = np.empty_like(circle)
giver[circle] = np.roll(circle, 1)
assert (giver != np.arange(n)).all(), "an X-ray kept its own records"

true = targets_of(run, VARIANTS["pacx"], pairs)
shuffled = targets_of(run, VARIANTS["pacx-shuffled"], pairs)
for m, t in true.items():
    np.testing.assert_array_equal(t[giver], shuffled[m])

# %% [markdown]
# Each teacher's targets are the same numbers as before, in another order. Their mean and spread are
# therefore unchanged. What changes is the cosine between an X-ray's target and the embedding of its own
# record:

# %%
rows = []
for m, t in true.items():
    for kind, target in {"true": t, "shuffled": shuffled[m]}.items():
        lengths = np.linalg.norm(t, axis=1) * np.linalg.norm(target, axis=1)
        cosine = ((t * target).sum(1) / lengths).mean()
        rows.append([m, kind, target.mean(), target.std(), cosine])
columns = ["target", "pairs", "mean", "spread", "cosine to own record"]
show(pd.DataFrame(rows, columns=columns))

# %% [markdown]
# ## The paper's component analysis
#
# The table compares the paper's five variants, as far as this run has them, on those of the paper's data
# sets that this profile has. The paper gives one number for each model. Here each number has an interval, so
# you can see which differences are too small to be distinguished from zero. The table reads the CLS token,
# by the converged probe and by the paper's own ([chapter 06](06_clinical_transfer)); the figure below adds
# the mean of the patches.

# %%
from pacx.evaluation.transfer import compare_probes, open_benchmark

kinds = ("ecg", "labs", "contrastive", "regression")
parts = [name for kind in kinds if (name := f"pacx-{kind}") in models]
published = ("chexchonet", "medmod", "vindr-cxr")
names = [name for name in run.profile.benchmarks if name in published]
names = names or run.profile.benchmarks
benchmarks = [open_benchmark(run, name) for name in names]
labelled = [d for d in benchmarks if d.task != "segmentation"]

# %%
from itertools import product

readings = [("converged", "cls"), ("converged", "mean"), ("paper", "cls")]
tables = []
for d, metric, how in product(labelled, ("AUROC", "F1"), readings):
    how = dict(zip(("probe", "pooling"), how, strict=True)) | {"metric": metric}
    tables.append(compare_probes(run, d, ["mae", *parts, "pacx"], **how))
components = pd.concat(tables, ignore_index=True).drop(columns="fraction")
_ = run.save_results("components", components)

# %% tags=["remove-input"]
from pacx.figures.tables import beside_the_paper, by_model

caption = (
    "Scores of the CLS token with all labels, by the converged probe unless the row names "
    "another; in brackets 95 % intervals, which the paper does not give."
)
by_model(beside_the_paper(components, "components"), caption)

# %% mystnb={"image": {"alt": "Forest plots of the difference from the MAE for each component variant by the converged probe, one row of panels a benchmark, the CLS token left and the mean of patches right; filled dots are AUROC, hollow dots F1, with 95 percent intervals."}} tags=["hide-input"]
from pacx.figures.results import forest_panels
from pacx.figures.tables import POOLING_NAMES

gains = components.query("model != 'mae' and probe == 'converged'")
panel = gains["dataset"] + ", " + gains["pooling"].map(POOLING_NAMES)
gains = gains.assign(panel=panel)
gains = gains.sort_values(["dataset", "panel"], kind="stable")
x_label = "difference in score, variant minus MAE"
_ = forest_panels(gains, panels="panel", filled="metric", x_label=x_label)

# %% [markdown]
# ## What the controls say
#
# Phantoms allow a sharper question than a benchmark: the mean over the tasks of *physiology*, with few
# labels and with all, and over those of *anatomy*, which no teacher knows. With real patients, the first
# benchmark above takes their place. Each encoder is read by the converged probe, from the CLS token
# (filled) and from the mean of the patches (hollow), and compared with the MAE read in the same way. For
# each control, ask whether it lies as far to the right as PaCX-MAE.
#
# **Shuffled pairs**: every X-ray learns from the ECG and labs of another patient. The losses, the steps and
# the teachers are the same; only the pairing is gone. If this encoder gains as much, the gain does not come
# from the patient's own physiology. (This is the control of the third claim.)
#
# **Untrained teachers**: the pairs are right, but the teachers have random weights. A random network is
# still a fixed function of the signal, so similar signals get similar embeddings. If this encoder gains as
# much, what the teachers had *learned* adds nothing, and the right pairs are enough. (The fourth claim.)
#
# **MAE continued**: the masked autoencoder goes on for as many steps. If this gains as much, the gain comes
# from longer training. (The first of the secondary claims.)
#
# A run may hold further variants. With **raw targets** the teachers' embeddings are not standardised, as in
# the paper. **Untrained teachers with raw targets** test whether the standardisation is what makes random
# teachers useful. **PaCX-MAE from the other mask ratio** starts from the second MAE; compare it with that
# one.

# %%
from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS

if run.is_phantom:
    dataset = open_benchmark(run, "phantom-truth")
    few = min(run.profile.label_efficiency.fractions)
    physiology = {"tasks": PHYSIOLOGY_TASKS}
    outcomes = {
        f"physiology, {few:.0%} of labels": physiology | {"fraction": few},
        "physiology, all labels": physiology,
        "anatomy, all labels": {"tasks": ANATOMY_TASKS},
    }
else:
    dataset = labelled[0]
    outcomes = {f"{dataset.name}, all labels": {}}

# %%
tables = []
for (outcome, how), pooling in product(outcomes.items(), POOLING_NAMES):
    table = compare_probes(run, dataset, models, pooling=pooling, **how)
    read = POOLING_NAMES[pooling]
    tables.append(table.assign(outcome=outcome, read=read))
controls = run.save_results("controls", pd.concat(tables, ignore_index=True))

# %% mystnb={"image": {"alt": "Forest plots side by side, one panel an outcome: difference from the MAE for each variant and control; filled dots are the CLS token, hollow dots the mean of patches, with 95 percent intervals."}}
_ = forest_panels(controls, panels="outcome", filled="read")

# %%
from IPython.display import display

from pacx.figures.tables import in_words

numbers = show(in_words(controls, "outcome", "pooling"))
folded(numbers, "The same in numbers")

# %% [markdown]
# Next, PaCX-MAE directly against each control, on the same patients, read in the same way. A control may
# also do harm: where shuffled pairs fall below the MAE, PaCX-MAE minus shuffled pairs contains that harm as
# well as what true pairs add.

# %%
kinds = ("pacx-shuffled", "pacx-untrained", "pacx-untrained-raw")
controls_of = [name for name in (*kinds, "mae-continued") if name in models]
opponents = [("pacx", other) for other in (*controls_of, "pacx-raw")]
opponents += [("pacx-raw", "pacx-untrained-raw")]
opponents += [("pacx-other-ratio", "mae-other-ratio")]
opponents = [both for both in opponents if {*both} <= {*models}]
gained = {k: how for k, how in outcomes.items() if "anatomy" not in k}

# %%
tables = []
for both, outcome, pooling in product(opponents, gained, POOLING_NAMES):
    how = {"pooling": pooling, "reference": both[1], **gained[outcome]}
    group, share = outcome.split(", ")
    facts = {"row": " minus ".join(map(name_of, both)), "share": share}
    facts |= {"outcome": group, "read": POOLING_NAMES[pooling]}
    table = compare_probes(run, dataset, [both[0]], **how)
    tables.append(table.assign(**facts))
direct = run.save_results("direct", pd.concat(tables, ignore_index=True))

# %% mystnb={"image": {"alt": "Forest plots of the direct differences, such as PaCX-MAE minus each control, one panel a share of the labels, with 95 percent intervals; filled dots are the CLS token, hollow dots the mean of patches."}}
x_label = f"difference in AUROC, {direct['outcome'].iloc[0]}"
how = {"filled": "read", "rows": "row", "x_label": x_label}
_ = forest_panels(direct, panels="share", **how)

# %% [markdown]
# [Chapter 02](02_cxr_mae) left a question open: paper and public code disagree about the mask ratio. Does
# the ratio affect what a probe finds in the MAE? The table shows the second MAE minus the profile's own,
# with the two mask ratios of this run.

# %%
second = controls.query("model == 'mae-other-ratio'").reset_index(drop=True)
mae = run.profile.mae
ratios = {"mask ratio": mae.other_mask_ratio, "minus": mae.mask_ratio}
show(in_words(second, "outcome", "pooling").assign(**ratios), digits=2)

# %% [markdown]
# ## What only phantoms can tell
#
# A phantom's true state is known. With real data the figures and tables of this section are left out.
#
# ### The controls on the ladder
#
# A gain over the MAE says nothing about how much there is to gain. The ladder of [chapter
# 06](06_clinical_transfer) goes from chance, by way of a linear model of the pixels, to what the same
# network reaches when it is trained on the labels, to the teachers, and to the true states. Here is the
# ladder again, with the controls. If a control scores as high as PaCX-MAE, what the control lacks does not
# explain a gain. If the pixels score higher than both, these phantoms need no network.

# %% mystnb={"image": {"alt": "The ladder with the controls: AUROC on physiology and on anatomy, one row a model from random weights over pixels, MAE, the MAE continued, shuffled pairs, untrained teachers and PaCX-MAE to a network trained on the labels, the teachers and the true states, beside a line at chance; filled for all labels and hollow for few, circles for the CLS token, squares for the mean of patches, with 95 percent intervals."}}
from pacx.evaluation.ladder import ladder
from pacx.figures import ladder as figures

if run.is_phantom:
    train_side_by_side(run, "supervised")
    simpler = ["pixels", "pixels-teachers", "mae-teachers", "mae-cca"]
    rungs = ["random", "mae", "pacx", *controls_of, *simpler]
    scores = ladder(run, dataset, [*rungs, "supervised", "states"])
    _ = figures.ladder(run.save_results("ladder_all", scores))

# %% [markdown]
# ### What do untrained teachers keep?
#
# As a fixed function of the signal, a network with random weights may still carry the states. So test the
# teachers themselves. A {term}`ridge regression` predicts each true state of a phantom from a teacher's
# embedding, fitted on the training pairs and scored on the test pairs. $R^2$ is the share of the state's
# variance that is explained; 0 is no better than guessing the mean. The untrained teachers are the very
# ones whose embeddings were distilled above.

# %% mystnb={"image": {"alt": "Two panels of dots, ECG and blood tests: R squared of each true state from the trained and from the untrained teacher's embedding, with 95 percent intervals; the last row is the mean over states."}}
from pacx.evaluation.teachers import compare_teachers
from pacx.figures.components import knowledge

if run.is_phantom:
    teachers = run.save_results("teachers", compare_teachers(run))
    _ = knowledge(teachers)
    numbers = in_words(teachers, "target", "state")
    display(show(numbers[numbers["state"] == "mean"]))
    display(folded(show(numbers), "The same for each state"))

# %% [markdown]
# Where an untrained teacher's embedding holds a state, the student can learn that state from it: right
# pairs are enough. Where training raises $R^2$, a trained teacher can teach more. A state that neither
# teacher holds can only be learned through a related one. Ridge regression finds whatever is linearly
# decodable; the distillation losses may be dominated by high-variance directions of the embedding, so the
# figure shows what *could* be passed on.
#
# ### Why could untrained teachers work?
#
# If they do, one explanation is that the student learns the true states, and that a random network keeps
# these too, only as a smaller share of its output. So split each teacher's embedding in two: what a linear
# model of the states explains, and the rest. What share of the variance is the first part? (Training 1 is
# the trained teacher, 0 the untrained one.)

# %%
from pacx.training.distill import standardise, teacher_embeddings
from pacx.training.targets import states_in, truth_of

if run.is_phantom:
    states = states_in(truth_of(run, "train", pairs)).to_numpy()
    known, rows = np.column_stack([np.ones(n), states]), []
    for share in (1.0, 0.0):
        teachers = teacher_embeddings(run, pairs, training=share)
        for m, embedding in teachers.items():
            e = standardise(embedding)
            part = known @ np.linalg.lstsq(known, e, rcond=None)[0]
            rows.append([m, share, part.var() / e.var()])
    columns = ["teacher", "training", "share of variance"]
    display(show(pd.DataFrame(rows, columns=columns), digits=2))

# %% [markdown]
# The library can distil either part, and other targets: the true states themselves, whitened teachers (all
# directions of the embedding with equal variance), the raw blood tests, only which of them were taken, a
# random projection of the raw ECG, and teachers that were trained for part of their time. The part that the
# loop computed last, and its remainder, equal the library's:

# %%
from pacx.training.targets import TARGETS

if run.is_phantom:
    given = ({m: e}, pairs, states)
    first = TARGETS["state part"](*given)[m]
    rest = TARGETS["state removed"](*given)[m]
    np.testing.assert_allclose(first, part, atol=1e-3)
    np.testing.assert_allclose(first + rest, e, atol=1e-3)

# %% [markdown]
# The book's evidence distils each target on nine cohorts. If the states are what is taught, then the states
# alone and the teachers' first part should gain as much as PaCX-MAE, and the rest no more than shuffled
# pairs. A dot is a cohort, a diamond their mean with its interval. The maps without a second network, *MAE,
# ridge to the teachers* and *MAE, CCA with the teachers* ({term}`CCA`), are on the ladder above.

# %% mystnb={"image": {"alt": "One row a target of the distillation, below its name: gain over the MAE in AUROC on physiology with all labels in each of nine cohorts as small dots, and their mean with a 95 percent interval as a diamond."}}
from pacx.evaluation.evidence import NOT_GATHERED, load_evidence, pool
from pacx.figures.components import repeated

gains = load_evidence("controls")
if gains is None:
    print(NOT_GATHERED)
else:
    rows = "outcome == 'physiology, all labels' and pooling == 'cls'"
    gains = gains.query(rows)
    gains = gains.assign(row=gains["model"].map(name_of))
    pooled = pool(gains).sort_values("value", ascending=False)
    pooled = pooled.assign(row=pooled["model"].map(name_of))
    _ = repeated(gains, pooled, "difference_value")

# %% [markdown]
# ### What is the cheapest way to this gain?
#
# Suppose you have the pairs and the MAE. The table lists ways to use the pairs, from the cheapest to the
# method itself: what each trains beside the MAE, for how many seconds in this run, and AUROC on physiology
# with few and with all labels, from the CLS token or a map's one reading. Scores are means of the nine
# cohorts with 95 % intervals where these have been gathered, otherwise this run's. The ridge regression to
# the teachers leaves the encoder as it is, and untrained teachers and raw blood tests need no teacher to be
# trained. A cheaper way whose score comes close to the last row's is the one to try first.

# %% tags=["hide-input"]
import json

from pacx.figures.tables import score_in_words

ways = {
    "mae": [],
    "mae-teachers": ["ecg", "labs"],
    "pacx-raw-labs": ["pacx-raw-labs"],
    "pacx-untrained": ["pacx-untrained"],
    "pacx-labs": ["labs", "pacx-labs"],
    "pacx-ecg": ["ecg", "pacx-ecg"],
    "pacx": ["ecg", "labs", "pacx"],
}
called = {"ecg": "ECG teacher", "labs": "lab autoencoder"}  # the rest are encoders


def seconds_of(names):
    made = [run.artefact(name) / "made.json" for name in names]
    return sum(json.loads(file.read_text())["seconds"] for file in made)


if run.is_phantom:
    tables = [load_evidence(name) for name in ("controls", "ladder_all")]
    if gains is None:
        tables = [controls.assign(cohort=0), scores.assign(cohort=0)]
    tables[0] = tables[0][tables[0]["outcome"].str.startswith("physiology")]
    tables[1] = tables[1][tables[1]["group"] == "physiology"]
    of_ways = pd.concat(tables).query("probe != 'paper' and pooling != 'mean'")
    of_ways = of_ways.drop_duplicates(["cohort", "model", "fraction"])
    pooled = pool(of_ways[["cohort", "model", "fraction", "value"]], "value")
    pooled = pooled.set_index(["model", "fraction"])
    rows = []
    for model, trained in ways.items():
        ready = model == "mae-teachers" or model in [*models, "mae", "pacx"]
        beside = [called.get(name, "encoder") for name in trained]
        row = {"model": name_of(model), "trained beside the MAE": ", ".join(beside)}
        row["seconds"] = f"{seconds_of(trained):.0f}" if ready else ""
        for fraction in sorted(of_ways["fraction"].unique()):
            if (model, fraction) in pooled.index:
                v, low, high, _ = pooled.loc[(model, fraction)]
                text = f"{v:.3f}" if np.isnan(low) else score_in_words(v, low, high)
                row[f"AUROC, {fraction:.0%} of labels"] = text
        if len(row) > 3:
            rows.append(row)
    display(show(pd.DataFrame(rows).fillna("")))

# %% [markdown]
# ### Beside the evidence
#
# The evidence repeats the demo's settings on nine fresh cohorts of **phantom** patients, each with a training
# seed of its own ([how](../book/protocol)). The two encoders of the second mask ratio are left out: that ratio is a
# setting, and may differ between run and evidence.

# %%
from pacx.figures.tables import beside_the_evidence

if run.is_phantom:
    of_second = controls["model"].str.contains("other-ratio")
    comparable = controls[~of_second].drop(columns="fraction")
    main = comparable[comparable["model"].isin(["pacx", *controls_of])]
    display(beside_the_evidence(main, "controls"))
    every = beside_the_evidence(comparable, "controls")
    display(folded(every, "All variants"))

# %% [markdown]
# ## Do the claims hold?
#
# Now the claims from the start of the chapter are judged. The p-values of the primary claims are corrected
# together: **Holm's method** multiplies the smallest of $n$ p-values by $n$, the next by $n - 1$, and so on,
# and lets none fall below the one before. The p-values of the secondary claims are not corrected, so these
# claims have a table of their own. Claims are judged on phantoms, so with real data this section is empty
# too.

# %%
from pacx.evaluation.baselines import READINGS
from pacx.evaluation.claims import judge_claims
from pacx.figures.first_page import claims_in_words

if run.is_phantom:
    claims = judge_claims(run, dataset, ["mae", *models, *READINGS])
    run.save_results("claims", claims)
    for kind, primary in {"Primary": True, "Secondary": False}.items():
        judged = show(claims_in_words(claims, primary=primary))
        display(judged.set_caption(f"{kind} claims"))
    p_values = show(claims[["claim", "p", "p_holm"]])
    display(folded(p_values, "p-values before and after Holm's correction"))

# %% [markdown]
# **Yes**: the p-value, corrected where the claim is primary, is below 5 %. **No**: this run, with its
# patients and its size, does not support the claim; that is no proof of the opposite. A claim that was
# stated and is in neither table was **not tested**: this run has not trained a model that the claim is
# about. One run is also one training seed: the interval covers other test patients, not other
# trainings. An earlier claim, that the lungs' IoU stays within 0.01 of the MAE's, was dropped: random
# weights met it too, so it could not tell an encoder that kept the anatomy from one that never had it.
#
# Below, the p-values of one claim of a gain and of the claim of equivalence are computed by hand, and
# Holm's correction after them. A one-sided p-value is the share of {term}`bootstrap` resamples of the test
# patients where the claim is wrong, with one added to both counts so that it is never zero:

# %%
from pacx.evaluation.claims import PRIMARY
from pacx.evaluation.transfer import macro_score


def resampled(claim):
    """Difference between a claim's two encoders on each resample."""
    row, scores = claims.set_index("claim").loc[claim.text], []
    for model, how in (claim.model, ""), (claim.reference, "reference_"):
        probe = {"tasks": claim.tasks, "pooling": row[f"{how}pooling"]}
        scores.append(macro_score(run, dataset, model, **probe)[1])
    return scores[0] - scores[1], row["p"]


def share(wrong):
    return (wrong.sum() + 1) / (len(wrong) + 1)


# %%
if run.is_phantom:
    gain, same = PRIMARY[0], PRIMARY[-1]
    difference, p = resampled(gain)
    assert share(difference <= gain.margin) == p
    difference, p = resampled(same)
    both = share(difference <= -same.margin), share(difference >= same.margin)
    assert max(both) == p

    ordered = claims[claims["primary"]].sort_values("p")
    holm = ordered["p"] * range(len(ordered), 0, -1)
    np.testing.assert_allclose(ordered["p_holm"], holm.cummax().clip(upper=1))
    p = claims["p_holm"].fillna(claims["p"])
    assert (claims["holds"] == (p < 0.05)).all()

# %% [markdown]
# ## Check it yourself

# %%
from pacx.training.distill import distill

# All variants took the same number of steps, and so did the MAE that went on.
folders = [distill(run, name) for name in chosen]
folders.append(run.artefact("mae-continued"))
assert len({len(pd.read_csv(f / "history.csv")) for f in folders}) == 1

# The encoders differ: no control is a copy of another.
files = [run.artefact(name) / "model.safetensors" for name in ["mae", *models]]
assert len({file.read_bytes() for file in files}) == len(files)

# Exercise 5: of a random order, one X-ray keeps its own records on average.
draw = np.random.default_rng(0).permutation
kept = [(draw(n) == np.arange(n)).sum() for _ in range(1000)]
assert abs(np.mean(kept) - 1) < 0.2  # six standard errors
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# A component earns its place if PaCX-MAE without it is worse, and a control speaks against the method if it
# does as well: the figure of direct differences shows this for shuffled pairs, untrained teachers and more
# steps of the MAE. The table of claims says which differences are larger than what matters in this run, and
# the ladder how far all models are from its ceilings. One run is one training on one cohort; the tables
# beside the evidence show whether its answers repeat.
#
# ## Exercises
#
# 1. Suppose untrained teachers gave all of the gain. Would the method be useless?
#
# ```{dropdown} Answer
# No: the encoder would still be better, from the pairs alone. But the explanation would be wrong: it would
# not be the teachers' learned physiology that is distilled, and their training could be saved.
# ```
#
# 2. Why is `pacx-shuffled` a better control than "no distillation"?
#
# ```{dropdown} Answer
# It changes one thing. Adapters, losses, augmentation and number of steps are those of PaCX-MAE, so
# they cannot explain a difference between the two.
# ```
#
# 3. A claim is rejected with 100 test patients. With 2,000 it holds. Which run is right?
#
# ```{dropdown} Answer
# Both. The small run could not tell, because its interval was wide. "Not distinguishable from zero" is not
# "zero".
# ```
#
# 4. Why does "anatomy is kept" need a margin, when "PaCX-MAE is better" could have done with zero?
#
# ```{dropdown} Answer
# No finite sample shows that a difference is exactly zero. It can show that the difference is smaller than
# a margin, and the margin has to be named before looking. A gain could be tested against zero, but then a
# claim would hold on a difference too small to notice.
# ```
#
# 5. A colleague shuffles pairs with `permutation(n)` and no circle. Find from a thousand permutations how
#    many X-rays keep their own records on average. Does this number depend on `n`?
#
# ```{dropdown} Answer
# Each of the $n$ X-rays keeps its own with probability $1/n$, so on average exactly one does, whatever $n$
# is. Among thousands of pairs that is harmless, in a batch of eight it is not.
#
#     draw = np.random.default_rng(0).permutation
#     np.mean([(draw(n) == np.arange(n)).sum() for _ in range(1000)])
# ```
#
# ## Next
#
# These were the gains. [Chapter 10](10_forgetting) asks what the encoder has lost.
#
# ## References
#
# The method and its component analysis: {cite:p}`liu2026pacx`. Randomised controls of this kind:
# {cite:p}`adebayo2018sanity`. Claims: {cite:p}`holm1979simple`, {cite:p}`schuirmann1987comparison`.
