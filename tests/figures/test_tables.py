"""Tables beside the published ones: one line a key and probe."""

import pandas as pd

from pacx.figures.tables import beside_the_paper, show


def results(**facts):
    """Scores of MAE and PaCX-MAE on the first benchmark of the paper's table."""
    rows = []
    for model, value in {"mae": 0.6, "pacx": 0.7}.items():
        row = {
            "dataset": "tb", "task": "binary", "metric": "AUROC", "model": model, "value": value,
            "low": value - 0.1, "high": value + 0.1, "reference": "mae", "difference_value": 0.1,
            "difference_low": 0.05, "difference_high": 0.15,
        }  # fmt: skip
        rows.append(row | facts)
    return pd.DataFrame(rows)


def lines_of(table, metric="AUROC"):
    part = table[(table["dataset"] == "TB (Shenzhen)") & (table["metric"] == metric)]
    return part.set_index("source")["PaCX-MAE"]


def test_both_probes_have_a_line_and_other_poolings_none():
    ours = [
        results(pooling=pooling, probe=probe).assign(value=value)
        for pooling, probe, value in (
            ("mean", "converged", 0.9), ("cls", "converged", 0.8), ("cls", "paper", 0.7),
            ("mean", "paper", 0.6),
        )
    ]  # fmt: skip
    lines = lines_of(beside_the_paper(pd.concat(ours), "transfer"))
    assert list(lines.index) == ["paper", "this run", "this run, the paper's probe"]
    assert lines["this run"].startswith("0.800")
    assert lines["this run, the paper's probe"].startswith("0.700")


def test_where_the_papers_probe_was_not_trained_it_has_no_line():
    ours = pd.concat([results(pooling="cls", probe="converged"), results(metric="F1")])
    table = beside_the_paper(ours, "transfer")
    assert list(lines_of(table).index) == ["paper", "this run"]
    assert lines_of(table, "F1")["this run"].startswith("0.700")  # masks have no pooling either
    assert list(lines_of(beside_the_paper(results(), "transfer")).index) == ["paper", "this run"]


def test_codes_are_shown_in_words():
    frame = pd.DataFrame({"pooling": ["cls", "32 components"], "probe": ["paper", "converged"]})
    shown = show(frame).data
    assert shown["pooling"].tolist() == ["CLS token", "32 components"]
    assert shown["probe"].tolist() == ["the paper's", "converged"]
