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
from pacx.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - What the ECG, the labs, the contrastive and the regression loss each contribute.
# - Three controls that could have refuted the method: shuffled pairs, untrained teachers, more
#   steps of MAE.
# - What a teacher with random weights still knows.
# - What the encoder forgets during distillation, which setting forgets less, and at what price.
# - How to write a claim so that a table of intervals can reject it.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | both losses of stage 2 | they are switched off one by one | [chapter 05](05_distillation) |
# | probes, pairs and intervals | the yardstick | [chapter 06](06_clinical_transfer) |
# | few labels | half of the comparison | [chapter 07](07_label_efficiency) |
# | {term}`Control`, {term}`LayerNorm`, {term}`R²` | what is compared, and how | [glossary](../book/glossary) |

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
from pacx.training.pipeline import chosen_variants

chosen = ["pacx", *chosen_variants(run)]

# %% tags=["hide-input"]
import pandas as pd

from pacx.figures.style import name_of
from pacx.figures.tables import folded, show
from pacx.training.distill import VARIANTS

wording = {
    "modalities": "one teacher instead of two",
    "learning_rate_factor": "learning rate times {}",
    "shuffled": "every X-ray has somebody else's ECG and labs",
    "trained_teachers": "teachers have random weights",
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

models = [*chosen, "mae-continued", "mae-compared"]
train_side_by_side(run, *models)

# %% [markdown]
# ## The paper's component analysis
#
# The paper's five variants, as far as this run has them, on those of the paper's data sets that
# this profile has. The paper gives one number a cell. Here each has an interval, and you can see how
# many differences are smaller than it.

# %%
from IPython.display import Markdown, display

from pacx.evaluation.transfer import compare_probes, open_benchmark
from pacx.figures.tables import beside_the_paper

parts_of_pacx = ["pacx-ecg", "pacx-labs", "pacx-contrastive", "pacx-regression", "pacx"]
parts_of_pacx = [name for name in parts_of_pacx if name in models]
paper_sets = [n for n in run.profile.benchmarks if n in ("chexchonet", "medmod", "vindr-cxr")]
published_on = [open_benchmark(run, name) for name in paper_sets]
components = [
    compare_probes(run, dataset, ["mae", *parts_of_pacx], metric=metric)
    for dataset in published_on
    for metric in ("AUROC", "F1")
]
components = pd.concat(components, ignore_index=True).drop(columns=["pooling", "fraction"])
_ = run.save_results("components", components)

# %% tags=["remove-input"]
show(beside_the_paper(components, "components"))

# %% mystnb={"image": {"alt": "Forest plots of the difference from the MAE for each component variant, one panel a benchmark; filled dots are AUROC, hollow dots F1, with 95 percent intervals."}} tags=["hide-input"]
from pacx.figures.results import forest, forest_panels

gains = components[components["model"] != "mae"]
_ = forest_panels(
    gains, panels="dataset", filled="metric", x_label="difference in score, variant minus MAE"
)

# %% [markdown]
# ## Against the truth of phantoms
#
# Phantoms allow a sharper question: the mean over the tasks of *physiology*, with few labels and
# with all, and over those of *anatomy*, which no teacher knows. Each is read from the CLS token
# (filled) and from the mean of the patches (hollow).

# %%
from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS

few = min(run.profile.label_efficiency.fractions)
outcomes = {
    f"physiology, {few:.0%} of labels": (PHYSIOLOGY_TASKS, few),
    "physiology, all labels": (PHYSIOLOGY_TASKS, 1.0),
    "anatomy, all labels": (ANATOMY_TASKS, 1.0),
}
poolings = {"cls": "CLS token", "mean": "mean of patches"}
if run.is_phantom:
    phantoms = open_benchmark(run, "phantom-truth")
    parts = [
        compare_probes(
            run, phantoms, models, tasks=tasks, fraction=fraction, pooling=pooling
        ).assign(outcome=outcome, read=read)
        for outcome, (tasks, fraction) in outcomes.items()
        for pooling, read in poolings.items()
    ]
    controls = run.save_results("controls", pd.concat(parts, ignore_index=True))
else:
    display(
        Markdown(
            "The rest of this chapter needs the phantoms' true state; on real data it is left out."
        )
    )

# %% mystnb={"image": {"alt": "Three forest plots side by side: difference from the MAE for each variant and control on physiology with few labels, physiology with all labels and anatomy; filled dots are the CLS token, hollow dots the mean of patches."}} tags=["hide-input"]
if run.is_phantom:
    _ = forest_panels(controls, panels="outcome", filled="read")

# %% tags=["hide-input"]
from pacx.evaluation.statistics import Estimate, difference_of, interval, verdict


def share(row):
    """A variant's gain as a share of PaCX-MAE's gain, where both are clearly above zero."""
    gain, whole = difference_of(row), difference_of(pacx.loc[(row["outcome"], row["pooling"])])
    return f"{gain.value / whole.value:.0%}" if min(gain.low, whole.low) > 0 else "–"


if run.is_phantom:
    pacx = controls[controls["model"] == "pacx"].set_index(["outcome", "pooling"])
    summary = pd.DataFrame(
        {
            "outcome": controls["outcome"],
            "read from": controls["read"],
            "variant": controls["model"].map(name_of),
            "gain over MAE [95 %]": [str(difference_of(row)) for _, row in controls.iterrows()],
            "share of PaCX-MAE's gain": [share(row) for _, row in controls.iterrows()],
        }
    )
    at_the_cls = summary[summary["read from"] == "CLS token"].pivot(
        index="variant", columns="outcome", values="gain over MAE [95 %]"
    )
    in_order = at_the_cls.loc[summary["variant"].unique(), list(outcomes)].reset_index()
    in_order = in_order.rename_axis(columns=None)
    display(show(in_order))
    display(folded(show(summary), "From the patches as well, and as a share of PaCX-MAE's gain"))

# %% [markdown]
# The table in sight has the gain over the MAE, read from the CLS token. In the folded one a share is
# left out (a dash) unless the interval of the variant's own gain and that of PaCX-MAE's are both above
# zero. It is a ratio of two estimates and has no interval: for a comparison use the direct differences
# below.
#
# ## What the controls say
#
# **Shuffled pairs**: every X-ray learns from somebody else's ECG and labs. The losses, the steps
# and the teachers are the same; only the pairing is gone. If this gains as much, the gain is not
# physiology.
#
# **Untrained teachers**: the pairs are right, but the teachers have random weights. A random
# network is still a function of the signal: patients who look alike stay alike. If this gains as
# much, what the teachers had *learned* adds nothing, and the pairs do the work.
#
# **MAE continued**: if this gains as much, it was only more training.
#
# A run may hold further ones. **Raw targets** are not standardised, as in the paper. **Untrained
# teachers with raw targets** ask whether it is the standardisation that makes random teachers
# useful. **PaCX-MAE from the other mask ratio** starts from the second MAE; compare it with that one.

# %% tags=["hide-input"]
controls_of = ["pacx-shuffled", "pacx-untrained", "pacx-untrained-raw", "mae-continued"]
controls_of = [name for name in controls_of if name in models]


def measured(model, outcome):
    row = controls.query("model == @model and outcome == @outcome and pooling == 'cls'").iloc[0]
    gain = difference_of(row)
    return f"{outcome}: {gain}, {verdict(gain)}" + (
        f", {share(row)} of PaCX-MAE's gain" if model != "pacx" and share(row) != "–" else ""
    )


if run.is_phantom:
    lines = ["Gain over the MAE in this run, CLS token:", ""]
    for model in ["pacx", *controls_of]:
        lines.append(
            f"- **{name_of(model)}**: "
            + "; ".join(measured(model, o) for o in list(outcomes)[:2])
            + "."
        )
    display(Markdown("\n".join(lines)))

# %% [markdown]
# And directly against each other, on the same patients. A control may also do harm: where shuffled
# pairs fall below the MAE, PaCX-MAE minus shuffled holds that harm as well as what true pairs add.

# %%
opponents = [("pacx", control) for control in controls_of]
opponents += [
    ("pacx", "pacx-raw"), ("pacx-raw", "pacx-untrained-raw"), ("pacx-compared", "mae-compared"),
]  # fmt: skip
if run.is_phantom:
    direct = [
        compare_probes(
            run, phantoms, [model], tasks=tasks, fraction=fraction, reference=other
        ).assign(row=f"{name_of(model)} minus {name_of(other)}, {fraction:.0%}")
        for model, other in opponents
        if {model, other} <= set(models)
        for tasks, fraction in list(outcomes.values())[:2]
    ]
    direct = run.save_results("direct", pd.concat(direct, ignore_index=True))

# %% mystnb={"image": {"alt": "Forest plot of the direct differences on physiology tasks with few and all labels, such as PaCX-MAE minus each control, with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    _ = forest(direct, rows="row", x_label="difference in AUROC on physiology")

# %% [markdown]
# [Chapter 02](02_cxr_mae) left a question open: paper and public code disagree about the mask ratio.
# Does it matter to what a probe finds in the MAE?

# %% tags=["hide-input"]
from pacx.evaluation.evidence import dose_responses, load_evidence, pool

if run.is_phantom:
    used, other = run.profile.mae.mask_ratio, run.profile.mae.compared_mask_ratio
    text = f"MAE with the mask ratio {other:g} minus MAE with {used:g}, CLS token, in this run: "
    text += "; ".join(measured("mae-compared", outcome) for outcome in outcomes) + "."
    if (repeated := load_evidence("controls")) is not None:
        repeated = repeated.query("model == 'mae-compared' and pooling == 'cls'")
        gains = [(r.outcome, Estimate(r.value, r.low, r.high)) for r in pool(repeated).itertuples()]
        text += "\n\nIn the evidence: "
        text += "; ".join(f"{what}: {gain}, {verdict(gain)}" for what, gain in gains) + "."
    display(Markdown(text))

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
# a related one. Ridge reads all that is there linearly; the distillation losses may mostly hear what is
# loud in the embedding, so the figure is what *could* be handed on.
#
# ## What is forgotten
#
# Adapters change the encoder for one purpose. What the MAE had learned beside it may get lost. The
# paper looks at segmentation only. Here are three measures:
#
# - **tasks that no teacher knows**: devices, the patient's position, and a finding that only the
#   image shows, each by a new linear probe;
# - **the lungs**, by a new segmentation decoder;
# - **reconstruction**: the MAE's loss of [chapter 02](02_cxr_mae), averaged over several masks an image,
#   with the *MAE's own* decoder, on held-out X-rays and the same masks for every encoder.
#
# The last one is strict. Its decoder is not trained anew, so the error also rises when something is
# merely written in another way: it can overstate a loss. And a variant with an MAE term was trained
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
        for pooling, read in poolings.items()
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
    points = [painted.assign(outcome=error, read=read) for read in poolings.values()]
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
        for pooling, read in poolings.items()
    ]
    painted_by = compare_reconstruction(run, weighed[1:], reference="pacx")
    against_pacx.append(painted_by.assign(outcome="reconstruction, MSE"))
    keeping = run.save_results("keeping", pd.concat(against_pacx, ignore_index=True))
    minus_pacx = pd.DataFrame({"setting, minus PaCX-MAE": map(name_of, weighed[1:])})
    for outcome, part in keeping.groupby("outcome", sort=False):
        minus_pacx[outcome] = [str(difference_of(row)) for _, row in part.iterrows()]
    display(show(minus_pacx))

# %% [markdown]
# ## What the phantom can and cannot show
#
# In the phantom hospital we decide how strongly an X-ray shows a patient's state: the **coupling**
# of [chapter 01](01_cohort). At 0 nothing is there to be distilled, so a gain at 0 would be an
# artefact of the method, or of how it is measured. The teachers have a dose as well: the share of
# their training, from untrained to the whole. Both are part of the book's evidence
# ([how](../book/protocol)); doses between the ends, and coupling 0, have one training a cohort.
#
# This asks whether the method finds what is there, and whether it invents what is not. It cannot
# show how strongly real X-rays are coupled to ECGs and blood: that number we chose.

# %% mystnb={"image": {"alt": "Two panels: gain of PaCX-MAE over MAE in AUROC on physiology against the coupling, and against the share of the teachers' training, with 95 percent intervals over cohorts; circles few labels, squares all labels, solid CLS token, dotted mean of patches."}} tags=["hide-input"]
from pacx.figures.components import dose_response

doses = dose_responses()
if doses is not None:
    labels = {"coupling": "coupling", "teachers": "share of the teachers' training"}
    _ = dose_response(doses, labels)

# %% tags=["hide-input"]
if doses is None:
    display(Markdown("The evidence is in the book's repository; this installation has none."))
else:
    dose_of = {"coupling": "coupling {:g}", "teachers": "teachers with {:.0%} of their training"}
    lines = ["With all labels, CLS token:", ""]
    for row in doses.query("pooling == 'cls' and fraction == 1").itertuples():
        gain = Estimate(row.value, row.low, row.high)
        lines.append(f"- {dose_of[row.what].format(row.dose)}: {gain}, {verdict(gain)}.")
    # Does the rest of the training add anything? On the same cohorts, with the same training seeds.
    part = load_evidence("dose").query("what == 'teachers' and pooling == 'cls' and fraction == 1")
    whole = load_evidence("controls").query("model == 'pacx' and pooling == 'cls'")
    whole = whole[whole["outcome"] == "physiology, all labels"]
    both = part.merge(whole, on=["cohort", "seed"], suffixes=("", "_whole"))
    both["added"] = both["difference_value_whole"] - both["difference_value"]
    lines.append("")
    for row in pool(both, "added").itertuples():
        added = Estimate(row.value, row.low, row.high)
        lines.append(
            f"All of the teachers' training minus {row.dose:.0%} of it, on the same cohorts: {added}, "
            f"{verdict(added)}."
        )
    display(Markdown("\n".join(lines)))

# %% [markdown]
# ## Beside the evidence
#
# The demo's settings on fresh cohorts of **phantom** patients, with several trainings on each
# ([how](../book/protocol)). First the variants and controls:

# %% tags=["hide-input"]
from pacx.figures.tables import beside_the_evidence

if run.is_phantom:
    outcomes_of = controls.drop(columns="fraction")
    from_cls = outcomes_of[outcomes_of["pooling"] == "cls"]
    display(
        beside_the_evidence(from_cls[from_cls["model"].isin(["pacx", *controls_of])], "controls")
    )
    every = beside_the_evidence(outcomes_of, "controls")
    display(folded(every, "All variants, and from the patches"))

# %% [markdown]
# The paper's targets are raw. In the evidence, from raw targets, with trained and with random teachers,
# read from the CLS token:

# %% tags=["remove-input"]
from pacx.figures.tables import in_the_evidence

raw = "model in ['pacx-raw', 'pacx-untrained-raw'] and pooling == 'cls'"
in_the_evidence("controls", raw, "outcome")

# %% [markdown]
# Then what is forgotten, PaCX-MAE minus MAE:

# %% tags=["remove-input"]
display(beside_the_evidence(forgotten[forgotten["model"] == "pacx"], "forgetting"))
display(folded(beside_the_evidence(forgotten, "forgetting"), "The same for all settings"))

# %% [markdown]
# And what all settings keep, minus PaCX-MAE (those that may forget less: one training a cohort, but for
# the final LayerNorm):

# %% tags=["remove-input"]
kept = in_the_evidence("keeping", "reference == 'pacx'", "outcome")
folded(kept, "All settings, minus PaCX-MAE")

# %% [markdown]
# ## Claims, and whether they hold
#
# Each claim was written down before the run, with the interval that would reject it. The next cell
# measures what the claims speak of. The folded one puts each claim beside its measurement, asks whether
# the interval lies where the claim says, and counts in how many runs of the evidence it did.

# %%
from pacx.evaluation.alignment import compare_alignment
from pacx.evaluation.transfer import macro_score


def gain_over_mae(model, outcome):
    rows = controls.query("model == @model and outcome == @outcome and pooling == 'cls'")
    return difference_of(rows.iloc[0])


if run.is_phantom:
    few_labels, all_labels, _ = outcomes
    few_gain, all_gain = (gain_over_mae("pacx", outcome) for outcome in (few_labels, all_labels))
    more_steps = gain_over_mae("mae-continued", all_labels)
    lung = difference_of(lungs.query("metric == 'IoU' and model == 'pacx'").iloc[0])
    ecg, labs = (
        difference_of(compare_alignment(run, ["pacx"], target).query("metric == 'cosine'").iloc[0])
        for target in ("ecg", "labs")
    )
    if "pacx-shuffled" in models:
        point, spread = {}, {}
        for model in ("mae", "pacx", "pacx-shuffled"):
            point[model], spread[model] = macro_score(run, phantoms, model, tasks=PHYSIOLOGY_TASKS)
        parts = (
            (s["pacx-shuffled"] - s["mae"]) - 0.25 * (s["pacx"] - s["mae"]) for s in (point, spread)
        )
        quarter = interval(*parts)

# %% tags=["hide-input"]
if run.is_phantom:
    above = "PaCX-MAE minus MAE is above zero"
    cosines = "cosine of PaCX-MAE minus MAE is above zero"
    near = "Lungs: IoU of PaCX-MAE is within 0.01 of MAE's"
    claims = [
        (f"Physiology, {few:.0%} of labels: {above}", few_gain, few_gain.low > 0),
        (f"Physiology, all labels: {above}", all_gain, all_gain.low > 0),
        (near, lung, lung.low > -0.01 and lung.high < 0.01),
        (f"Alignment, ECG: {cosines}", ecg, ecg.low > 0),
        (f"Alignment, labs: {cosines}", labs, labs.low > 0),
    ]
    if "pacx-shuffled" in models:
        less = "Shuffled pairs: gain minus a quarter of PaCX-MAE's gain is below zero"
        claims.append((less, quarter, quarter.high < 0))
    claims.append(("MAE continued: its gain is not above zero", more_steps, more_steps.low <= 0))
    claims = pd.DataFrame(
        [{"claim": text, **e._asdict(), "holds": bool(ok)} for text, e, ok in claims]
    )
    claims = run.save_results("claims", claims.rename(columns={"value": "estimate"}))
    shown = claims.assign(holds=claims["holds"].map({True: "yes", False: "no"}))
    repeated = load_evidence("claims")
    if repeated is not None:
        counts = repeated.groupby("claim")["holds"].agg(["sum", "size"]).reindex(claims["claim"])
        shown["holds in the evidence"] = [
            "" if pd.isna(c["size"]) else f"{c['sum']:.0f} of {c['size']:.0f}"
            for _, c in counts.iterrows()
        ]
    display(show(shown))

# %% [markdown]
# A "no" does not say that the opposite is true. It says that this run, with its patients and its
# size, does not support the claim. The last claim is the other way round: "no" means that the interval
# lies above zero, and "yes" only that it reaches zero, which a small run passes easily. One run is also
# one training seed: the interval covers other test patients, not other trainings. The intervals are not
# corrected for the number of claims.
#
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

# %% tags=["hide-input"]
if run.is_phantom:
    held = int(claims["holds"].sum())
    lines = [f"{held} of {len(claims)} claims hold in this run."]
    if "pacx-untrained" in models:
        lines.append(
            f"Distilled from untrained teachers, {measured('pacx-untrained', all_labels)}."
        )
    on_average = teachers[(teachers["state"] == "mean") & (teachers["model"] == "teacher")]
    for _, row in on_average.iterrows():
        gap = difference_of(row)
        lines.append(
            f"{'ECG' if row['target'] == 'ecg' else 'Labs'}, mean R² over states: {row['value'] - gap.value:.3f} untrained, "
            f"{row['value']:.3f} trained; difference {gap}, {verdict(gap)}."
        )
    probed = after[after["metric"] == "AUROC"]
    worse = probed.loc[probed["difference_high"] < 0, "task"].unique()
    lines.append(
        "Anatomy tasks on which all of PaCX-MAE's interval is below the MAE, read from the CLS token or "
        f"from the patches: {', '.join(worse) if len(worse) else 'none'}."
    )
    drift = difference_of(painted.set_index("model").loc["pacx"])
    lines.append(f"Reconstruction error, PaCX-MAE minus MAE: {drift}, {verdict(drift)}.")
    display(Markdown("\n".join(f"- {line}" for line in lines)))
else:
    display(Markdown("See the table of components above; the controls need phantoms."))

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
# ## Next
#
# The encoder has changed. [Chapter 10](10_attention_shift) asks where it looks now.
#
# ## References
#
# The method and its component analysis: {cite:p}`liu2026pacx`. Randomised controls of this kind:
# {cite:p}`adebayo2018sanity`.
