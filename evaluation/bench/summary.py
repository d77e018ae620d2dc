"""The results of the benchmark as Markdown: a table a cohort, ours against each peer, and what it was made with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from cohorts import TABLES
from grid import OK, Cell, finished
from methods import OURS

__all__ = ["render"]

Row = Mapping[str, str]
_RIVALS = (
    "smartnoise-aim",
    "smartnoise-aim-repaired",
    "smartnoise-mst-repaired",
    "smartnoise-dpctgan",
    "mostlyai",
    "dpmm-aim",
)
_TO = "\u2013"
_INTRODUCTION = """# Ours and the peers side by side

Written by `evaluation/bench/peers.py --render` from `{name}`; [README.md](../README.md) says what each method was given
and what the figures are. Pairs and triples are mean total-variation distances from the train part, less is better;
AUC is that of boosted trees on real test patients, learned from what the method made, more is better; "told apart" is
the AUC of telling real from synthetic rows, 0.5 is never. `real` is what other real patients, or learning from real
ones, reach. Several fits: median (lowest{to}highest). One fit: its AUC with 95 % limits over redrawn test patients,
and no interval where there is none to be had. Delta is {delta}. CPU seconds are those of the
fit alone; a machine that others use too stretches the seconds by the clock more than those.
"""


def render(results: Path, out: Path) -> None:
    """Write the Markdown of a results file; nothing where there are no results."""
    done = finished(results)
    if not done:
        return
    delta = ", ".join(sorted({f"{float(row['delta']):g}" for row in done.values()}))
    parts = [_INTRODUCTION.format(name=results.name, delta=delta, to=_TO)]
    parts += [_cohort(table, done) for table in TABLES if any(cell.table == table for cell in done)]
    parts += [_against(done), _made_with(done)]
    aside = out.with_suffix(".part")
    aside.write_text("\n".join(part for part in parts if part))
    aside.replace(out)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _cohort(table: str, done: Mapping[Cell, Row]) -> str:
    """All fits of one table, by epsilon and method."""
    groups: dict[tuple[float, str], list[Row]] = {}
    for cell in sorted(done):
        if cell.table == table:
            groups.setdefault((cell.epsilon, cell.method), []).append(done[cell])
    every = [row for rows in groups.values() for row in rows]
    lines = []
    scored = next((row for row in every if row["status"] == OK), None)
    if scored is not None:
        real = [_figure(scored[name]) for name in ("tv2_floor", "tv3_floor", "trtr")]
        lines.append(["", "real", *real, "", "", "", ""])
    ours_first = sorted(groups, key=lambda key: (key[0], key[1] not in OURS, key[1]))
    lines += [_line(epsilon, method, groups[epsilon, method]) for epsilon, method in ours_first]
    head = ["epsilon", "method", "pairs", "triples", "AUC", "told apart", "fit, s", "CPU s", "fits"]
    about = f"{int(every[0]['rows']):,} train patients by {every[0]['columns']} columns"
    return f"## {table}\n\n{about}, outcome {TABLES[table].outcome}.\n\n{_table(head, lines)}"


def _line(epsilon: float, method: str, rows: Sequence[Row]) -> list[str]:
    scored = [row for row in rows if row["status"] == OK]
    name = "none" if math.isinf(epsilon) else f"{epsilon:g}"
    others = [row["status"] for row in rows if row["status"] != OK]
    if not scored:
        cap = f" (cap {rows[0]['cap']})" if others[0] == "did not end" else ""
        what = others[0].replace("|", "\\|") + cap
        return [name, method, what, "", "", "", "", "", f"0 of {len(rows)}"]
    auc = _spread(scored, "tstr")
    if len(scored) == 1 and scored[0]["tstr_low"]:
        auc += f" ({_figure(scored[0]['tstr_low'])}{_TO}{_figure(scored[0]['tstr_high'])})"
    fits = f"{len(scored)}" if not others else f"{len(scored)} of {len(rows)}"
    figures = [_spread(scored, "tv2"), _spread(scored, "tv3"), auc, _spread(scored, "c2st")]
    seconds = [f"{median(float(row[n]) for row in scored):.0f}" for n in ("fit_seconds", "fit_cpu_seconds")]
    return [name, method, *figures, *seconds, fits]


def _figure(value: str | float) -> str:
    return f"{float(value):.3f}"


def _spread(rows: Sequence[Row], name: str) -> str:
    values = [float(row[name]) for row in rows]
    if len(values) == 1:
        return _figure(values[0])
    return f"{_figure(median(values))} ({_figure(min(values))}{_TO}{_figure(max(values))})"


def _against(done: Mapping[Cell, Row]) -> str:
    """Each of our methods against each peer at each epsilon: ratios, median over the tables that have both."""
    lines = []
    for ours in OURS:
        for rival in _RIVALS:
            for epsilon in sorted({cell.epsilon for cell in done}):
                ratios = [r for t in TABLES if (r := _ratios(done, t, epsilon, ours, rival)) is not None]
                if ratios:
                    columns = [[r[i] for r in ratios if not math.isnan(r[i])] for i in range(4)]
                    lines.append([ours, rival, f"{epsilon:g}", *map(_ratio, columns), str(len(ratios))])
    if not lines:
        return ""
    head = ["ours", "peer", "epsilon", "pairs", "triples", "gap of AUC", "CPU s", "tables"]
    text = (
        "Ours divided by the peer's, of the medians over fits: median over the tables that have both "
        f"(lowest{_TO}highest). The gap of AUC is what is missing to learning from real patients; it counts as none "
        "below zero, and a table where the peer has none is left out of its ratio. Under 1, ours is better.\n"
    )
    return f"## Ours divided by the peers'\n\n{text}\n{_table(head, lines)}"


def _ratios(
    done: Mapping[Cell, Row], table: str, epsilon: float, ours: str, rival: str
) -> tuple[float, float, float, float] | None:
    """Ratios of pairs, triples, gap of AUC and CPU seconds; None where one of the two has no scored fit."""
    both = []
    for method in (ours, rival):
        rows = [
            row
            for cell, row in done.items()
            if (cell.table, cell.method, cell.epsilon) == (table, method, epsilon) and row["status"] == OK
        ]
        if not rows:
            return None
        gap = median(max(0.0, float(row["trtr"]) - float(row["tstr"])) for row in rows)
        others = [median(float(row[name]) for row in rows) for name in ("tv2", "tv3", "fit_cpu_seconds")]
        both.append((others[0], others[1], gap, others[2]))
    mine, its = both
    return tuple(a / b if b else math.nan for a, b in zip(mine, its, strict=True))  # type: ignore[return-value]


def _ratio(values: Sequence[float]) -> str:
    if not values:
        return _TO
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{median(values):.2f} ({min(values):.2f}{_TO}{max(values):.2f})"


def _made_with(done: Mapping[Cell, Row]) -> str:
    """Versions and machines, as each line of the results has them."""
    seen: dict[tuple[str, ...], int] = {}
    for cell in sorted(done, key=lambda cell: cell.method):
        row = done[cell]
        if row["versions"]:
            versions = row["versions"] + (f"; sources {row['sources']}" if row["sources"] else "")
            key = (cell.method, versions, row["machine"], row["threads"], row["cap"])
            seen[key] = seen.get(key, 0) + 1
    head = ["method", "versions", "machine", "threads", "cap", "cells"]
    return f"## Made with\n\n{_table(head, ([*key, str(count)] for key, count in seen.items()))}"
