"""The results of patients.py as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from patients_cell import Cell, finished

__all__ = ["render"]

_LINES = {
    "lab_rows_tv": "labs per patient, TV",
    "event_rows_tv": "events per patient, TV",
    "prevalence_r2": "prevalence of tests and events, R²",
    "bigrams_r2": "bigrams of codes, R²",
    "value_ks": "value by test, mean KS",
    "lab_gaps_ks": "gaps of labs, KS",
    "event_gaps_ks": "gaps of events, KS",
    "parent_child_tv": "pairs of patient and row, mean TV",
    "event_prevalence_r2": "events alone: prevalence, R²",
    "event_bigrams_r2": "events alone: bigrams, R²",
    "event_parent_child_tv": "events alone: pairs of patient and row, mean TV",
    "after_end": "rows after the end of follow-up",
    "death_auc": "death from labs and events, AUC",
    "death_age_auc": "the same with age and sex, AUC",
}
_INTRODUCTION = """# Whole patients side by side

Written by `evaluation/bench/patients.py --render` from `{name}`; [README.md](../README.md) says what each method was
given, `patients_score.py` what the figures are. Train parts of nafld1, nafld2 and nafld3 with at most 40 labs and
events a patient; 3,510 held out patients. TV, KS: less is better; R², AUC: more. `real` is what the held out patients,
or learning from real ones, reach. Several fits: median (lowest to highest). Delta is 1e-05.
"""


def render(results: Path, out: Path) -> None:
    """Write the Markdown of a results file; nothing where there are no results."""
    done = finished(results)
    if not done:
        return
    parts = [_INTRODUCTION.format(name=results.name)]
    parts += [_table(patients, done) for patients in sorted({cell.patients for cell in done})]
    aside = out.with_suffix(".part")
    aside.write_text("\n".join(parts))
    aside.replace(out)


def _table(patients: int, done: Mapping[Cell, Mapping[str, str]]) -> str:
    """One line a figure, one column a method."""
    groups: dict[tuple[str, float], list[Mapping[str, str]]] = {}
    for cell, row in done.items():
        if cell.patients == patients:
            groups.setdefault((cell.method, cell.epsilon), []).append(row)
    order = sorted(groups, key=lambda group: (math.isinf(group[1]), not group[0].startswith("ours"), group))
    every = [row for rows in groups.values() for row in rows]
    head = ["", "real", *(f"{name}, {'no privacy' if math.isinf(e) else f'epsilon {e:g}'}" for name, e in order)]
    lines = [head, ["---"] * len(head)]
    for figure, text in _LINES.items():
        real = figure.replace("_auc", "_auc_real") if figure.endswith("_auc") else f"{figure}_floor"
        lines.append([text, _middle(every, real), *(_spread(groups[group], figure) for group in order)])
    for figure, text in (("fit_seconds", "fit, s"), ("sample_seconds", "sampling, s"), ("fit_cpu_seconds", "CPU s")):
        lines.append([text, "", *(_spread(groups[group], figure, digits=0) for group in order)])
    told = [", ".join(sorted({_status(row) for row in groups[group]})) for group in order]
    lines.append(["status", "", *told])
    lines.append(["fits", "", *(str(len(groups[group])) for group in order)])
    versions = sorted({f"- {row['method']}: {row['versions']}" for row in every if row["versions"]})
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"## {patients:,} patients\n\n{table}\n\n" + "\n".join(versions) + "\n"


def _status(row: Mapping[str, str]) -> str:
    text = row["status"].replace("|", "\\|")
    return f"{text} (cap {row['cap']})" if text == "did not end" else text


def _values(rows: list[Mapping[str, str]], figure: str) -> list[float]:
    return [float(row[figure]) for row in rows if row.get(figure)]


def _middle(rows: list[Mapping[str, str]], figure: str) -> str:
    values = _values(rows, figure)
    return f"{median(values):.3f}" if values else ""


def _spread(rows: list[Mapping[str, str]], figure: str, *, digits: int = 3) -> str:
    values = _values(rows, figure)
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
