"""Scores of sdmetrics under their own names, beside ours: reported for those who know them, and gating nothing.

They see neither missing values nor the bins of the other cohort; ``evaluation/README.md`` shows where they mislead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.cohorts import Part, Parts
from synthehr.evaluation.influence import from_errors, groups_of
from synthehr.evaluation.intervals import Z95
from synthehr.evaluation.measurement import Measurement, undefined

__all__ = ["METRICS", "quality"]

_MOST = 2_000
_GROUPS = 5
_NAMES = {"sdmetrics_column_shapes": "Column Shapes", "sdmetrics_column_pair_trends": "Column Pair Trends"}


def quality(bench: Bench) -> dict[str, Measurement]:
    """The two properties of sdmetrics' quality report, on 2,000 patients of each cohort at most.

    Higher is better; range 0 to 1. The interval is a jackknife over five groups of all cohorts at once.
    """
    parts = bench.parts
    draw = parts.generator(32)
    sizes = min(len(parts.train), _MOST), min(parts.equal, _MOST)
    if min(sizes) < 2 * _GROUPS:
        why = f"A cohort has fewer than {2 * _GROUPS} patients."
        return {name: undefined(name, "all", "higher", why) for name in _NAMES}
    rows = (
        (parts.train, draw.choice(len(parts.train), size=sizes[0], replace=False)),
        (parts.synthetic, draw.choice(parts.synthetic_rows, size=sizes[1], replace=False)),
        (parts.holdout, draw.choice(parts.holdout_rows, size=sizes[1], replace=False)),
    )
    frames = [_frame(part, chosen, parts) for part, chosen in rows]
    groups = [groups_of(len(frame), generator=draw, groups=_GROUPS) for frame in frames]
    full = _scores(frames, parts)
    left_out = np.array(
        [
            _scores([frame[group != at] for frame, group in zip(frames, groups, strict=True)], parts)
            for at in range(_GROUPS)
        ]
    )
    t = 2.776 / Z95  # t with 4 degrees of freedom at 0.975
    found = {}
    for at, name in enumerate(_NAMES):
        own, others = left_out[:, 0, at], left_out[:, 1, at]
        errors = [
            t * float(np.sqrt((_GROUPS - 1) / _GROUPS * np.square(x - x.mean()).sum())) for x in (own, others - own)
        ]
        if not np.isfinite([*full[:, at], *errors]).all():
            found[name] = undefined(name, "all", "higher", "sdmetrics gives no number for these cohorts.")
            continue
        found[name] = from_errors(
            name,
            "all",
            "higher",
            value=float(full[0, at]),
            reference=float(full[1, at]),
            errors=(errors[0], errors[1]),
        )
    return found


def _frame(part: Part, rows: NDArray[np.int64], parts: Parts) -> pd.DataFrame:
    columns = {}
    for name in parts.coding.names:
        values = part.values[name]
        columns[name] = values.number if values.number is not None else values.text.to_pandas()  # type: ignore[union-attr]
    return pd.DataFrame(columns).iloc[rows].reset_index(drop=True)


def _scores(frames: list[pd.DataFrame], parts: Parts) -> NDArray[np.float64]:
    """Both properties of synthetic, then of holdout, against train. Shape ``(2, 2)``; NaN where there is none."""
    metadata = {
        "columns": {
            column.name: {"sdtype": "numerical" if column.edges is not None else "categorical"}
            for column in parts.coding.columns
        }
    }
    found = []
    for other in frames[1:]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own making
            from sdmetrics.reports.single_table import QualityReport

            report = QualityReport()
            report.generate(frames[0], other, metadata, verbose=False)
        scores = report.get_properties().set_index("Property")["Score"]
        found.append([float(scores[name]) for name in _NAMES.values()])
    return np.array(found)


def _measure(name: str) -> Callable[[Bench, object], Measurement]:
    return lambda bench, _: bench.once(quality)[name]


METRICS: Mapping[str, Metric] = {
    name: Metric(
        section="fidelity",
        direction="higher",
        measure=_measure(name),
        words=MetricWords(
            title=f"sdmetrics: {title}",
            failed=f"The score that sdmetrics calls {title} is lower than the suite asks for.",
            question=f"whether the score that sdmetrics calls {title} is as high as the suite asks for",
        ),
    )
    for name, title in _NAMES.items()
}
"""The scores of sdmetrics by name."""
