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
# # Component analysis and controls
#
# Which part of the method earns the gain, would something much simpler have done as well, and what
# is lost?

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
# - What the ECG, the labs, the contrastive and the regression loss each contribute.
# - Three controls that could have refuted the method: shuffled pairs, untrained teachers, more
#   steps of MAE.
# - Where the controls stand on the ladder from chance to the true states.
# - What a teacher with random weights still knows.
# - What the encoder forgets during distillation, which setting forgets less, and at what price.
# - How to write a claim, with a smallest difference that matters, so that a run can reject it.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | both losses of stage 2 | they are switched off one by one | [chapter 05](05_distillation) |
# | probes, pairs and intervals | the yardstick | [chapter 06](06_clinical_transfer) |
# | few labels | half of the comparison | [chapter 07](07_label_efficiency) |
# | {term}`Control`, {term}`Ceiling`, {term}`LayerNorm`, {term}`R²` | what is compared, and how | [glossary](../book/glossary) |

# %% [markdown]
# ## One change at a time
#
# Every variant takes the paired X-rays in the same order for the same number of steps. One thing
# differs from `pacx`, in some variants two (see the table); the one with replay sees X-rays of stage 1
# as well. The profile's `variants` says which ones this run compares.

# %% tags=["remove-input"]
from pacx.figures.source import show_source
from pacx.training.distill import Variant

show_source(Variant)

# %%
from pacx.training.distill import VARIANTS
from pacx.training.pipeline import encoders_of

chosen = [name for name in encoders_of(run) if name in VARIANTS]

# %% tags=["hide-input"]
import pandas as pd

from pacx.figures.style import name_of
from pacx.figures.tables import folded, show

wording = {
    "modalities": "one teacher instead of two",
    "learning_rate_factor": "learning rate times {}",
    "shuffled": "every X-ray has another patient's ECG and labs",
    "teacher_training": "share of the teachers' training: {:g}",
    "targets": "distilled towards: {}",
    "start": "starts from the MAE of the other mask ratio",
    "mae_weight": "the MAE's own loss is kept, weight {:g}",
    "replay": "that loss sees X-rays of stage 1",
}


def plain(value):
    """A setting's value: yes or no, or as few digits as it has."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else value


def difference_from_pacx(variant):
    words = [
        wording[key].format(value)
        for key, value in vars(variant).items()
        if key in wording and value != vars(VARIANTS["pacx"])[key]
    ]
    usual = run.profile.distill
    words += [
        f"{key.replace('_', ' ')} {plain(value)} instead of {plain(getattr(usual, key))}"
        for key, value in variant.changes.items()
    ]
    return "; ".join(words) or "nothing: it is the method"


variants = pd.DataFrame(
    {
        "variant": [name_of(name) for name in chosen],
        "what differs": [difference_from_pacx(VARIANTS[name]) for name in chosen],
    }
)
show(run.save_results("variants", variants))

# %% [markdown]
# Two more encoders are no distillation at all. *MAE continued* goes on with masked autoencoding
# for exactly as many steps: was it only more training? *MAE, other mask ratio* is the second mask
# ratio of [chapter 02](02_cxr_mae).

# %%
from pacx.training.pipeline import train_side_by_side

models = [*chosen, "mae-continued", "mae-other-ratio"]
train_side_by_side(run, *models)

# %% [markdown]
# ## The paper's component analysis
#
# The paper's five variants, as far as this run has them, on those of the paper's data sets that
# this profile has. The paper gives one number a cell. Here each has an interval, and you can see how
# many differences are smaller than it. Beside the converged probe on the CLS token stand the mean of the
# patches and the paper's own probe ([chapter 06](06_clinical_transfer)).

# %%
from IPython.display import display

from pacx.evaluation.transfer import compare_probes, open_benchmark
from pacx.figures.tables import POOLING_NAMES, beside_the_paper

readings = [("converged", "cls"), ("converged", "mean"), ("paper", "cls")]
parts_of_pacx = ["pacx-ecg", "pacx-labs", "pacx-contrastive", "pacx-regression", "pacx"]
parts_of_pacx = [name for name in parts_of_pacx if name in models]
paper_sets = [n for n in run.profile.benchmarks if n in ("chexchonet", "medmod", "vindr-cxr")]
labelled = [open_benchmark(run, name) for name in paper_sets or run.profile.benchmarks]
published_on = [dataset for dataset in labelled if dataset.task != "segmentation"]
components = [
    compare_probes(
        run, dataset, ["mae", *parts_of_pacx], metric=metric, probe=probe, pooling=pooling
    )
    for dataset in published_on
    for metric in ("AUROC", "F1")
    for probe, pooling in readings
]
components = pd.concat(components, ignore_index=True).drop(columns="fraction")
_ = run.save_results("components", components)

# %% tags=["remove-input"]
show(beside_the_paper(components, "components"))

# %% mystnb={"image": {"alt": "Forest plots of the difference from the MAE for each component variant by the converged probe, one row of panels a benchmark, the CLS token left and the mean of patches right; filled dots are AUROC, hollow dots F1, with 95 percent intervals."}} tags=["hide-input"]
from pacx.figures.results import forest_panels

gains = components[(components["model"] != "mae") & (components["probe"] == "converged")]
panel = gains["dataset"] + ", " + gains["pooling"].map(POOLING_NAMES)
gains = gains.assign(panel=panel).sort_values(["dataset", "panel"], kind="stable")
_ = forest_panels(
    gains, panels="panel", filled="metric", x_label="difference in score, variant minus MAE"
)

# %% [markdown]
# ## Against the truth of phantoms
#
# Phantoms allow a sharper question: the mean over the tasks of *physiology*, with few labels and
# with all, and over those of *anatomy*, which no teacher knows. Each is read by the converged probe, from
# the CLS token (filled) and from the mean of the patches (hollow). Each variant is compared with the MAE
# that is read in the same way.

# %%
from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS
from pacx.figures.tables import say

few = min(run.profile.label_efficiency.fractions)
outcomes = {
    f"physiology, {few:.0%} of labels": (PHYSIOLOGY_TASKS, few),
    "physiology, all labels": (PHYSIOLOGY_TASKS, 1.0),
    "anatomy, all labels": (ANATOMY_TASKS, 1.0),
}
if run.is_phantom:
    phantoms = open_benchmark(run, "phantom-truth")
    parts = [
        compare_probes(
            run, phantoms, models, tasks=tasks, fraction=fraction, pooling=pooling
        ).assign(outcome=outcome, read=read)
        for outcome, (tasks, fraction) in outcomes.items()
        for pooling, read in POOLING_NAMES.items()
    ]
    controls = run.save_results("controls", pd.concat(parts, ignore_index=True))
else:
    say("The rest of this chapter needs the phantoms' true state; on real data it is left out.")

# %% mystnb={"image": {"alt": "Three forest plots side by side: difference from the MAE for each variant and control on physiology with few labels, physiology with all labels and anatomy; filled dots are the CLS token, hollow dots the mean of patches."}} tags=["hide-input"]
if run.is_phantom:
    _ = forest_panels(controls, panels="outcome", filled="read")

# %% tags=["hide-input"]
from pacx.evaluation.statistics import Estimate, difference_of, verdict

if run.is_phantom:
    gained = pd.DataFrame(
        {
            "variant": controls["model"].map(name_of),
            "read from": controls["read"],
            "outcome": controls["outcome"],
            "gain over MAE [95 %]": [str(difference_of(row)) for _, row in controls.iterrows()],
        }
    )
    in_rows = gained.pivot(
        index=["variant", "read from"], columns="outcome", values="gain over MAE [95 %]"
    )
    order = gained[["variant", "read from"]].drop_duplicates()
    in_rows = in_rows.loc[list(order.itertuples(index=False, name=None)), list(outcomes)]
    display(show(in_rows.reset_index().rename_axis(columns=None)))

# %% [markdown]
# ## What the controls say
#
# Look in the figure and the table above for the controls below, and ask of each whether it stands as far
# right as PaCX-MAE.
#
# **Shuffled pairs**: every X-ray learns from somebody else's ECG and labs. The losses, the steps
# and the teachers are the same; only the pairing is gone. If this gains as much, the gain is not
# physiology.
#
# **Untrained teachers**: the pairs are right, but the teachers have random weights. A random
# network is still a function of the signal: patients who look alike stay alike. If this gains as
# much, what the teachers had *learned* adds nothing, and the pairs do the work.
#
# **MAE continued**: the masked autoencoder goes on for as many steps. If this gains as much, it was only
# more training.
#
# A run may hold further ones. **Raw targets** are not standardised, as in the paper. **Untrained
# teachers with raw targets** ask whether it is the standardisation that makes random teachers
# useful. **PaCX-MAE from the other mask ratio** starts from the second MAE; compare it with that one.

# %% [markdown]
# Directly against each other, on the same patients, read in the same way. A control may also do harm:
# where shuffled pairs fall below the MAE, PaCX-MAE minus shuffled holds that harm as well as what true
# pairs add.

# %%
controls_of = ["pacx-shuffled", "pacx-untrained", "pacx-untrained-raw", "mae-continued"]
controls_of = [name for name in controls_of if name in models]
opponents = [("pacx", control) for control in controls_of]
opponents += [
    ("pacx", "pacx-raw"), ("pacx-raw", "pacx-untrained-raw"), ("pacx-other-ratio", "mae-other-ratio"),
]  # fmt: skip
if run.is_phantom:
    direct = [
        compare_probes(
            run, phantoms, [model], tasks=tasks, fraction=fraction, pooling=pooling, reference=other
        ).assign(
            row=f"{name_of(model)} minus {name_of(other)}", share=f"{fraction:.0%} of labels",
            read=read,
        )
        for model, other in opponents
        if {model, other} <= set(models)
        for tasks, fraction in list(outcomes.values())[:2]
        for pooling, read in POOLING_NAMES.items()
    ]  # fmt: skip
    direct = run.save_results("direct", pd.concat(direct, ignore_index=True))

# %% mystnb={"image": {"alt": "Forest plots of the direct differences on physiology tasks, such as PaCX-MAE minus each control, one panel with few and one with all labels, with 95 percent intervals; filled dots are the CLS token, hollow dots the mean of patches."}} tags=["hide-input"]
if run.is_phantom:
    x_label = "difference in AUROC on physiology"
    _ = forest_panels(direct, panels="share", filled="read", rows="row", x_label=x_label)

# %% [markdown]
# [Chapter 02](02_cxr_mae) left a question open: paper and public code disagree about the mask ratio.
# Does it matter to what a probe finds in the MAE? The table has the second MAE minus the profile's own,
# with the two mask ratios of this run.

# %% tags=["hide-input"]
from pacx.figures.tables import in_words

if run.is_phantom:
    second = controls[controls["model"] == "mae-other-ratio"].reset_index(drop=True)
    told = in_words(second, "outcome", "pooling").drop(columns="model")
    ratios = {
        "mask ratio": run.profile.mae.other_mask_ratio,
        "minus": run.profile.mae.mask_ratio,
    }
    display(show(told.assign(**ratios), digits=2))

# %% [markdown]
# ## The controls on the ladder
#
# A gain over the MAE says nothing about how much there is to gain. The ladder of
# [chapter 06](06_clinical_transfer) goes from chance, over what a linear model makes of the pixels, to what
# the same network reaches when it is trained on the labels, to the teachers, and to the true states.
# Here it is again, with the controls. If a control stands beside PaCX-MAE, what the control lacks has not
# earned the gain. If the pixels stand above both, no network is needed for these phantoms.

# %%
from itertools import product

from pacx.evaluation.ladder import GROUPS, ladder

if run.is_phantom:
    train_side_by_side(run, "supervised")
    simpler = ["pixels", "pixels-teachers", "mae-teachers", "mae-cca"]
    rungs = [ladder(run, phantoms, ["random", "mae", "pacx", *simpler, "supervised", "states"])]
    rungs += [
        compare_probes(
            run, phantoms, controls_of, tasks=tasks, fraction=fraction,
            pooling=pooling, probe=probe,
        ).assign(group=group)
        for (group, tasks), fraction, pooling, probe in product(
            GROUPS.items(), dict.fromkeys((few, 1.0)), POOLING_NAMES, ("converged", "paper")
        )
    ]  # fmt: skip
    rungs = run.save_results("ladder_all", pd.concat(rungs, ignore_index=True))

# %% mystnb={"image": {"alt": "The ladder with the controls: AUROC on physiology and on anatomy, one row a model from random weights over pixels, MAE, the MAE continued, shuffled pairs, untrained teachers and PaCX-MAE to a network trained on the labels, the teachers and the true states, beside a line at chance; filled for all labels and hollow for few, circles for the CLS token, squares for the mean of patches, with 95 percent intervals."}} tags=["hide-input"]
from pacx.figures.ladder import ladder as draw_ladder

if run.is_phantom:
    _ = draw_ladder(rungs)

# %% [markdown]
# ## What do untrained teachers keep?
#
# A network with random weights is not an empty one. It is a fixed function of the signal: patients
# with similar ECGs get similar embeddings. So ask the teachers themselves. A
# {term}`ridge regression` predicts each true state of a phantom from a teacher's embedding, fitted
# on the training pairs and scored on the test pairs. $R^2$ is the share of the state's variance
# that is explained; 0 is no better than guessing the mean. The untrained teachers are the very ones
# whose embeddings were distilled above.

# %%
from pacx.evaluation.teachers import compare_teachers

if run.is_phantom:
    teachers = run.save_results("teachers", compare_teachers(run))

# %% mystnb={"image": {"alt": "Two panels of dots, ECG and blood tests: R squared of each true state from the trained and from the untrained teacher's embedding, with 95 percent intervals; the last row is the mean over states."}} tags=["hide-input"]
from pacx.figures.components import knowledge

if run.is_phantom:
    _ = knowledge(teachers)

# %% tags=["hide-input"]
if run.is_phantom:
    trained = teachers[teachers["model"] == "teacher"].reset_index(drop=True)
    untrained = teachers[teachers["model"] == "teacher-untrained"].reset_index(drop=True)
    learned = [difference_of(row) for _, row in trained.iterrows()]
    knows = pd.DataFrame(
        {
            "teacher": trained["target"].replace({"ecg": "ECG"}),
            "state": trained["state"].str.replace("_", " "),
            "R² untrained": untrained["value"],
            "R² trained": trained["value"],
            "trained minus untrained [95 %]": list(map(str, learned)),
            "which is": list(map(verdict, learned)),
        }
    )
    display(show(knows[knows["state"] == "mean"]))
    display(folded(show(knows), "The same for each state"))

# %% [markdown]
# Where the untrained teacher has a state, it can hand it on: for that the pairs are enough. Where
# training adds, a trained teacher can give more. A state that neither has can only come along with
# a related one. Ridge reads all that is there linearly; the distillation losses may be dominated by
# high-variance directions of the embedding, so the figure is what *could* be handed on.
#
# ## What is forgotten
#
# Adapters change the encoder for one purpose. What the MAE had learned beside it may get lost. The
# paper looks at segmentation only. Here are three measures:
#
# - **tasks that no teacher knows**: devices, the patient's position, and a finding that only the
#   image shows, each by a new linear probe, from the CLS token and from the mean of the patches;
# - **the lungs**, by a new segmentation decoder;
# - **reconstruction**: the MAE's loss of [chapter 02](02_cxr_mae), averaged over several masks an image,
#   with the *MAE's own* decoder, on held-out X-rays and the same masks for every encoder.
#
# The last one is strict. Its decoder is not trained anew, so the error also rises when something is
# merely re-encoded: it can overstate a loss. And a variant with an MAE term was trained
# through this very decoder: judge that one by the probes.

# %%
from pacx.evaluation.forgetting import compare_reconstruction
from pacx.evaluation.transfer import compare_segmentation

settings = ["pacx-finalnorm", "pacx-rank2", "pacx-lowrate", "pacx-maeterm", "pacx-replay"]
settings = [name for name in settings if name in models]
losses = [name for name in ("pacx-contrastive", "pacx-regression") if name in models]
weighed = ["pacx", *settings, *losses]
painted = compare_reconstruction(run, ["mae", *weighed]).assign(group="reconstruction")
forgotten = [painted]
groups = {
    "pacemaker": "device", "tube": "device", "rotation": "position", "pneumothorax": "image only",
}  # fmt: skip
if run.is_phantom:
    forgotten += [
        compare_probes(
            run, phantoms, ["pacx", *settings, "mae-continued"], tasks=[task], pooling=pooling
        ).assign(group=groups[task], read=read)
        for task in ANATOMY_TASKS
        for pooling, read in POOLING_NAMES.items()
    ]
    lungs = compare_segmentation(run, open_benchmark(run, "covid-qu-ex"), ["mae", "pacx"])
    forgotten.append(lungs.assign(group="lungs"))
forgotten = run.save_results("forgetting", pd.concat(forgotten, ignore_index=True))

# %% mystnb={"image": {"alt": "Difference from the MAE on each anatomy task for PaCX-MAE, its settings and the MAE continued, from the CLS token (filled) and the mean of patches (hollow), with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    _ = forest_panels(forgotten.dropna(subset=["read"]), panels="task", filled="read")

# %% tags=["hide-input"]
after = forgotten[forgotten["model"] == "pacx"].reset_index(drop=True)
lost = [difference_of(row) for _, row in after.iterrows()]
before = (after["value"] - after["difference_value"]).rename("MAE")
before_and_after = pd.DataFrame(
    {
        "group": after["group"],
        "task": after["task"],
        "read from": after["read"].fillna("patches") if "read" in after else "patches",
        "metric": after["metric"],
        "MAE": before,
        "PaCX-MAE": after["value"],
        "PaCX-MAE minus MAE [95 %]": list(map(str, lost)),
        "which is": list(map(verdict, lost)),
    }
)
show(before_and_after)

# %% [markdown]
# Below zero is a loss for AUROC, IoU and Dice; for the error (MSE), above zero is.
#
# ### Which setting keeps more, and at what price?
#
# Fewer weights to change (only the final LayerNorm, a smaller rank), smaller steps, one loss
# instead of two, or the MAE's loss kept beside the others, on the paired X-rays or on replayed ones
# of stage 1: this run has those of the figure. Right is more physiology, up is more of what the MAE
# knew. A setting is worth its price if it lies higher than PaCX-MAE without lying left of it.

# %% mystnb={"image": {"alt": "Four panels. The difference from the MAE on physiology tasks, horizontal, against that on anatomy tasks, upper row, and against the reconstruction error, lower row with its axis turned over; left column from the CLS token, right from the mean of patches. One cross of 95 percent intervals a setting."}} tags=["hide-input"]
from pacx.figures.components import trade_off

physiology, anatomy, error = "physiology, all labels", "anatomy, all labels", "reconstruction"
labels = {
    physiology: "physiology, AUROC minus MAE's",
    anatomy: "anatomy, AUROC minus MAE's",
    error: "reconstruction, MSE minus MAE's",
}
if run.is_phantom:
    points = [painted.assign(outcome=error, read=read) for read in POOLING_NAMES.values()]
    points = pd.concat([controls[controls["model"].isin(weighed)], *points])
    _ = trade_off(points[points["model"] != "mae"], labels, falling=(error,))

# %% [markdown]
# The same settings against PaCX-MAE itself, on the same patients: physiology is the price, the rest
# is what is kept.

# %% tags=["hide-input"]
if run.is_phantom and len(weighed) > 1:
    against_pacx = [
        compare_probes(
            run, phantoms, weighed[1:], tasks=tasks, pooling=pooling, reference="pacx"
        ).assign(outcome=f"{outcome}, {read}")
        for outcome, tasks in {"physiology": PHYSIOLOGY_TASKS, "anatomy": ANATOMY_TASKS}.items()
        for pooling, read in POOLING_NAMES.items()
    ]
    painted_by = compare_reconstruction(run, weighed[1:], reference="pacx")
    against_pacx.append(painted_by.assign(outcome="reconstruction, MSE"))
    keeping = run.save_results("keeping", pd.concat(against_pacx, ignore_index=True))
    minus_pacx = pd.DataFrame({"setting, minus PaCX-MAE": map(name_of, weighed[1:])})
    for outcome, part in keeping.groupby("outcome", sort=False):
        minus_pacx[outcome] = [str(difference_of(row)) for _, row in part.iterrows()]
    display(show(minus_pacx))

# %% [markdown]
# ## Beside the evidence
#
# The demo's settings on fresh cohorts of **phantom** patients, with several trainings on each
# ([how](../book/protocol)). First the variants and controls. The two encoders of the second mask ratio
# are left out: which ratio is the second one is a setting, and it may differ between run and evidence.

# %% tags=["hide-input"]
from pacx.figures.tables import beside_the_evidence

if run.is_phantom:
    of_second = controls["model"].isin(["mae-other-ratio", "pacx-other-ratio"])
    comparable = controls[~of_second].drop(columns="fraction")
    main = comparable[comparable["model"].isin(["pacx", *controls_of])]
    display(beside_the_evidence(main, "controls"))
    every = beside_the_evidence(comparable, "controls")
    display(folded(every, "All variants"))

# %% [markdown]
# Then what is forgotten, PaCX-MAE minus MAE:

# %% tags=["remove-input"]
display(beside_the_evidence(forgotten[forgotten["model"] == "pacx"], "forgetting"))
display(folded(beside_the_evidence(forgotten, "forgetting"), "The same for all settings"))

# %% [markdown]
# And what all settings keep, minus PaCX-MAE (those that may forget less: one training a cohort, but for
# the final LayerNorm):

# %% tags=["remove-input"]
from pacx.figures.tables import in_the_evidence

kept = in_the_evidence("keeping", "reference == 'pacx'", "outcome")
folded(kept, "All settings, minus PaCX-MAE")

# %% [markdown]
# ## Claims, and whether they hold
#
# The claims were written down before any evidence for them was gathered; they stand in the library, with
# the control that each is held against. Each names the {term}`minimal difference that matters`, its margin.
# A difference above zero may be too small for anyone to care, and with enough patients even such a
# difference is told from zero. So a claim of a gain holds only where the gain is shown to be *larger than
# the margin*.
#
# A claim that nothing changes needs a margin as well: an interval that holds zero may be wide, and then
# nothing was shown. Such a claim is tested for **equivalence** by two one-sided tests ({term}`TOST`): one
# has to reject that the difference is at or below minus the margin, the other that it is at or above the
# margin. The larger of the two p-values is the claim's, so both tests have to say so.
#
# Each encoder is read as its own validation labels say is best, CLS token or mean of patches; the claim
# about anatomy reads the mean of the patches. The p-values of the primary claims are corrected together
# by Holm's method ([chapter 06](06_clinical_transfer)); the secondary ones are reported as they are.

# %%
from pacx.evaluation.baselines import READINGS
from pacx.evaluation.claims import ALPHA, PRIMARY, SECONDARY, judge_claims

if run.is_phantom:
    claims = judge_claims(run, phantoms, ["mae", *models, *READINGS])
    _ = run.save_results("claims", claims)

# %% tags=["hide-input"]
if run.is_phantom:
    margins = {"above": "above {:g}", "within": "within ± {:g}"}
    words = {True: "holds", False: "does not hold"}
    everything = pd.DataFrame([claim._asdict() for claim in (*PRIMARY, *SECONDARY)])
    judged = everything[["text"]].merge(claims, left_on="text", right_on="claim", how="left")
    known = judged["claim"].notna()
    verdicts = pd.DataFrame(
        {
            "claim": judged["text"],
            "holds where": [
                margins[kind].format(margin)
                for kind, margin in zip(everything["kind"], everything["margin"], strict=True)
            ],
            "estimate [95 %]": [
                str(Estimate(row.estimate, row.low, row.high)) if ok else ""
                for ok, row in zip(known, judged.itertuples(), strict=True)
            ],
            "p": judged["p"],
            "p (Holm)": judged["p_holm"],
            "verdict": judged["holds"].map(words).fillna("not tested"),
        }
    )
    primary = everything["text"].isin([claim.text for claim in PRIMARY])
    display(show(verdicts[primary]))
    display(folded(show(verdicts[~primary].drop(columns="p (Holm)")), "Secondary claims"))
    reasons = everything.rename(columns={"text": "claim", "why": "reason of the margin"})
    reasons = reasons[["claim", "margin", "reason of the margin"]]
    display(folded(show(reasons, digits=2), "Margins and their reasons"))

# %% [markdown]
# **Holds**: the p-value, corrected where the claim is primary, is below 5 %. **Does not hold**: this run,
# with its patients and its size, does not support the claim; that is no proof of the opposite. **Not
# tested**: this run has not trained what the claim is held against. One run is also one training seed:
# the interval covers other test patients, not other trainings. An earlier claim, that the lungs' IoU
# stays within 0.01 of the MAE's, is gone: random weights met it too, so it could not tell an encoder that
# kept the anatomy from one that never had it.
#
# By hand, on the same resamples, the first claim and the one of equivalence:

# %%
import numpy as np

from pacx.evaluation.transfer import macro_score


def resampled(row, tasks):
    """The difference between a claim's encoders on each resample of the test patients."""
    pairs = [(row["model"], row["pooling"]), (row["reference"], row["reference_pooling"])]
    ours, theirs = (
        macro_score(run, phantoms, model, tasks=tasks, pooling=pooling)[1]
        for model, pooling in pairs
    )
    return ours - theirs


def share_where(wrong):
    """A one-sided p-value: the share of resamples where a claim is wrong, counting one more."""
    return (wrong.sum() + 1) / (len(wrong) + 1)


if run.is_phantom:
    by_text = claims.set_index("claim")
    first, kept = PRIMARY[0], next(claim for claim in PRIMARY if claim.kind == "within")
    difference = resampled(by_text.loc[first.text], PHYSIOLOGY_TASKS)
    assert share_where(difference <= first.margin) == by_text.loc[first.text, "p"]

    difference = resampled(by_text.loc[kept.text], ANATOMY_TASKS)
    both = share_where(difference <= -kept.margin), share_where(difference >= kept.margin)
    assert max(both) == by_text.loc[kept.text, "p"]

    # Holm: the smallest of n p-values times n, the next times n - 1, never below the one before.
    ordered = claims[claims["primary"]].sort_values("p")
    steps = ordered["p"] * range(len(ordered), 0, -1)
    assert np.allclose(ordered["p_holm"], steps.cummax().clip(upper=1))
    assert (claims["holds"] == (claims["p_holm"].fillna(claims["p"]) < ALPHA)).all()

# %% [markdown]
# ## Check it yourself

# %%
from pacx.training.distill import distill

# All variants took the same number of steps, and so did the MAE that went on.
steps = {name: len(pd.read_csv(distill(run, name) / "history.csv")) for name in chosen}
steps["mae-continued"] = len(pd.read_csv(run.artefact("mae-continued") / "history.csv"))
assert len(set(steps.values())) == 1

# The encoders differ: no control is a copy of another.
contents = {(run.artefact(name) / "model.safetensors").read_bytes() for name in ["mae", *models]}
assert len(contents) == len(models) + 1
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# A component earns its place if PaCX-MAE without it is worse, and a control refutes the method if it does
# as well: shuffled pairs, untrained teachers, more steps of MAE, a ridge from pixels or from the frozen MAE
# to the teachers. The table of claims says which of these differences are larger than what matters in
# this run, and the ladder how far all of them are from what the X-ray holds. What is forgotten shows in
# the tasks that no teacher knows; the lungs and the MAE's own decoder say less.

# %% tags=["hide-input"]
if run.is_phantom:
    display(show(verdicts.loc[primary, ["claim", "estimate [95 %]", "verdict"]]))
else:
    say("See the table of components above; the controls need phantoms.")

# %% [markdown]
# ## Exercises
#
# 1. Suppose untrained teachers gave all of the gain. Would the method be useless?
#
# ```{dropdown} Answer
# No: the encoder would still be better, for nothing but pairs. But the explanation would be wrong.
# It would not be the teachers' knowledge of physiology that is distilled, and one could save their
# training.
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
# Both. The small run could not tell, its interval was wide. "Not distinguishable from zero" is not
# "zero".
# ```
#
# 4. Why does "anatomy is kept" need a margin, when "PaCX-MAE is better" could have done with zero?
#
# ```{dropdown} Answer
# No finite sample shows that a difference is exactly zero. It can show that the difference is smaller
# than something, and that something has to be named before looking. A gain could be tested against zero,
# but then a claim would hold on a difference that nobody would notice.
# ```
#
# ## Next
#
# The encoder has changed. [Chapter 10](10_attention_shift) asks where it looks now.
#
# ## References
#
# The method and its component analysis: {cite:p}`liu2026pacx`. Randomised controls of this kind:
# {cite:p}`adebayo2018sanity`. Claims: {cite:p}`holm1979simple`, {cite:p}`schuirmann1987comparison`.
