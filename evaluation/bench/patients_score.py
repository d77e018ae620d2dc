"""A scorer of whole patients that knows no method and no code of synthehr: polars, numpy and scikit-learn alone.

Given the three nafld tables (patient, lab, event) of a train part, a holdout and a synthetic cohort, all with the same
bound on rows per patient. ``…_floor`` is the same figure with the holdout in the synthetic cohort's place, cut to as
many patients; distances are 0 where equal and 1 where disjoint.

* ``lab_rows_tv``, ``event_rows_tv``: total variation of the number of rows of a patient, none included, in the cells
  of ``ROWS``.
* ``prevalence_r2``: how well the share of synthetic patients with a code gives the real one, over the six tests and ten
  events: 1 - sum of squared differences / sum of squares about the mean (not a squared correlation).
* ``bigrams_r2``: the same of four distributions together: unordered pairs of codes on one day, and ordered pairs of
  codes on one day and on the next day with rows, for labs and for events.
* ``value_ks``: Kolmogorov-Smirnov distance of the values of a test, meaned over tests with 50 values or more in train.
* ``lab_gaps_ks``, ``event_gaps_ks``: the same of the days between a patient's consecutive rows.
* ``parent_child_tv``: total variation of the joint shares of a patient's column (5 bins) and a column of a row of
  theirs (days in 10 bins, test, event, value in 4 bins for each test), meaned over all such pairs.
* ``lab_…``, ``event_…`` of the last three but values: the same of one table alone, which methods that make one have.
* ``death_auc``: area under the ROC curve on holdout patients of a logistic regression that learned death from the labs
  and events up to day 365 of synthetic patients (how often each, and the last value); ``death_auc_real`` of real ones;
  ``death_auc_low``, ``_high``: 95 % limits over redrawn holdout patients. ``death_age_…``: age and sex besides.
  From rows between day 0 and 365 alone, 3,000 real patients teach next to nothing (0.55 by boosted trees, 0.64 so).
* ``out_of_order``, ``after_end``: share of patients with rows whose days fall in the order of the table (none by
  construction where a method writes them sorted), and share of rows after the end of follow-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

__all__ = ["FIGURES", "ROWS", "read_tables", "score"]

FIGURES = (
    *(f"{of}_{name}{floor}" for of in ("lab", "event") for name in ("rows_tv", "gaps_ks") for floor in ("", "_floor")),
    *(
        f"{of}{name}{floor}"
        for of in ("", "lab_", "event_")
        for name in ("prevalence_r2", "bigrams_r2", "parent_child_tv")
        for floor in ("", "_floor")
    ),
    *("value_ks", "value_ks_floor"),
    *("death_auc", "death_auc_low", "death_auc_high", "death_auc_real"),
    *("death_age_auc", "death_age_auc_low", "death_age_auc_high", "death_age_auc_real"),
    *("out_of_order", "after_end", "after_end_floor"),
)
ROWS = {"lab": (0, 1, 2, 4, 6, 8, 12, 16, 20, 25, 30, 35, 39), "event": (0, 1, 2, 3, 4, 5, 6, 8)}
"""Most rows of each cell; a last cell has more."""

_CODES = {"lab": "test", "event": "event"}
_NUMBERS = ("age", "weight", "height", "bmi", "futime")
_FEWEST_VALUES = 50
_FIRST_YEAR = 365
_LARGEST = 300.0
_TESTS = ("chol", "dbp", "fib4", "hdl", "sbp", "smoke")
_EVENTS = (
    "MI",
    "afib",
    "ang/isc",
    "cardiac arrest",
    "diabetes",
    "dyslipidemia",
    "heart failure",
    "htn",
    "nafld",
    "stroke",
)
_REDRAWN = 200
Tables = Mapping[str, pl.DataFrame]
Numbers = np.ndarray


def read_tables(folder: Path) -> dict[str, pl.DataFrame]:
    """The three tables of a folder, rows of a child as they stand there."""
    return {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("patient", "lab", "event")}


def score(*, train: Tables, holdout: Tables, synthetic: Tables) -> dict[str, float]:
    """All figures of one synthetic cohort; those of a table without a row, or of shares all alike, are left out."""
    size = min(len(part["patient"]) for part in (train, holdout, synthetic))
    real, other, made = (_cut(part, size) for part in (train, holdout, synthetic))
    figures: dict[str, float] = {}
    for name, part in (("", made), ("_floor", other)):
        found = _distances(real, part)
        figures |= {f"{figure}{name}": value for figure, value in found.items() if not np.isnan(value)}
    if all(made[name].height for name in _CODES):
        figures |= _death(train, holdout, synthetic)
    figures["out_of_order"] = _out_of_order(synthetic)
    return figures


def _cut(part: Tables, size: int) -> Tables:
    chosen = part["patient"].head(size).select("id")
    return {name: frame.join(chosen, on="id", how="semi", maintain_order="left") for name, frame in part.items()}


def _distances(real: Tables, part: Tables) -> dict[str, float]:
    figures: dict[str, float] = {}
    has = [name for name in _CODES if part[name].height]
    for name in has:
        figures[f"{name}_rows_tv"] = _tv(_row_cells(real, name), _row_cells(part, name))
        figures[f"{name}_gaps_ks"] = _ks(_gaps(real[name]), _gaps(part[name]))
    whole = len(has) == len(_CODES)
    for of, names in ((("", list(_CODES)),) if whole else ()) + tuple((f"{name}_", [name]) for name in has):
        figures[f"{of}prevalence_r2"] = _r2(_joined([(_prevalence(real, n), _prevalence(part, n)) for n in names]))
        pairs = [(made(real[n], _CODES[n]), made(part[n], _CODES[n])) for n in names for made in (_same_day, _next_day)]
        figures[f"{of}bigrams_r2"] = _r2(_joined(pairs))
        figures[f"{of}parent_child_tv"] = _parent_child(real, part, names)
    if "lab" in has:
        figures["value_ks"] = _value_distance(real["lab"], part["lab"])
    if whole:
        figures["after_end"] = _after_end(part)
    return figures


def _row_cells(part: Tables, name: str) -> Numbers:
    counts = part["patient"].select("id").join(part[name].group_by("id").len(), on="id", how="left")["len"]
    cell = np.searchsorted(ROWS[name], counts.fill_null(0).to_numpy(), side="left")
    return np.bincount(cell, minlength=len(ROWS[name]) + 1) / len(cell)


def _tv(p: Numbers, q: Numbers) -> float:
    return float(np.abs(p - q).sum() / 2)


def _prevalence(part: Tables, name: str) -> pl.DataFrame:
    code = _CODES[name]
    had = part[name].select("id", code).unique().group_by(code).len("share")
    return had.select(
        key=pl.concat_str(pl.lit(name), code, separator=" "), share=pl.col("share") / len(part["patient"])
    )


def _days(rows: pl.DataFrame, code: str) -> pl.DataFrame:
    """Each code of each day of a patient once, the days of a patient numbered."""
    once = rows.select("id", "days", code=pl.col(code)).unique()
    return once.with_columns(visit=pl.col("days").rank("dense").over("id").cast(pl.Int64))


def _same_day(rows: pl.DataFrame, code: str) -> pl.DataFrame:
    days = _days(rows, code)
    pairs = days.join(days, on=["id", "visit"], suffix="_other").filter(pl.col("code") < pl.col("code_other"))
    return _shares(pairs, f"{code} on one day")


def _next_day(rows: pl.DataFrame, code: str) -> pl.DataFrame:
    days = _days(rows, code)
    after = days.with_columns(visit=pl.col("visit") - 1)
    return _shares(days.join(after, on=["id", "visit"], suffix="_other"), f"{code} on the next day")


def _shares(pairs: pl.DataFrame, what: str) -> pl.DataFrame:
    counted = pairs.group_by("code", "code_other").len("share")
    return counted.select(
        key=pl.concat_str(pl.lit(what), "code", "code_other", separator=" "),
        share=pl.col("share") / max(pairs.height, 1),
    )


def _joined(pairs: Iterable[tuple[pl.DataFrame, pl.DataFrame]]) -> pl.DataFrame:
    return pl.concat(
        a.join(b, on="key", how="full", coalesce=True, suffix="_made").fill_null(0.0).sort("key") for a, b in pairs
    )


def _r2(shares: pl.DataFrame) -> float:
    truth, made = shares["share"].to_numpy(), shares["share_made"].to_numpy()
    spread = float(np.square(truth - truth.mean()).sum())
    return float(1 - np.square(truth - made).sum() / spread) if spread > 0 else float("nan")


def _gaps(rows: pl.DataFrame) -> Numbers:
    ordered = rows.sort("id", "days")
    gap = ordered.select(gap=pl.col("days").diff().over("id"))["gap"].drop_nulls()
    return np.sort(gap.to_numpy().astype(float))


def _ks(first: Numbers, second: Numbers) -> float:
    """Largest difference of two distribution functions; both samples sorted."""
    if len(first) == 0 or len(second) == 0:
        return 1.0
    at = np.concatenate([first, second])
    below = [np.searchsorted(sample, at, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _value_distance(real: pl.DataFrame, made: pl.DataFrame) -> float:
    found = []
    for (test,), rows in real.partition_by("test", as_dict=True).items():
        values = rows["value"].drop_nulls()
        if len(values) >= _FEWEST_VALUES:
            other = made.filter(pl.col("test") == test)["value"].drop_nulls()
            found.append(_ks(np.sort(values.to_numpy()), np.sort(other.to_numpy())))
    return float(np.mean(found))


def _parent_child(real: Tables, part: Tables, names: Iterable[str]) -> float:
    """Mean over patients' columns and columns of their rows of the distance of joint shares."""
    found = []
    for name in names:
        code = _CODES[name]
        joined = [of[name].join(of["patient"], on="id") for of in (real, part)]
        parents = [_parent_codes(real["patient"], rows) for rows in joined]
        children = [_child_codes(joined[0], rows, code) for rows in joined]
        for parent in parents[0]:
            for child in children[0]:
                both = [p[parent] * 1000 + c[child] for p, c in zip(parents, children, strict=True)]
                cells, where = np.unique(np.concatenate(both), return_inverse=True)
                shares = [np.bincount(one, minlength=len(cells)) / len(one) for one in np.split(where, [len(both[0])])]
                found.append(_tv(*shares))
    return float(np.mean(found))


def _parent_codes(patients: pl.DataFrame, rows: pl.DataFrame) -> dict[str, Numbers]:
    codes = {name: _binned(patients[name], rows[name], 5) for name in _NUMBERS}
    return codes | {n: rows[n].cast(pl.Int64).fill_null(2).to_numpy() for n in ("male", "died")}


def _child_codes(real: pl.DataFrame, rows: pl.DataFrame, code: str) -> dict[str, Numbers]:
    known = {value: at for at, value in enumerate(sorted(real[code].unique().to_list()))}
    codes = {
        code: rows[code].replace_strict(known, default=len(known), return_dtype=pl.Int64).fill_null(99).to_numpy(),
        "days": _binned(real["days"], rows["days"], 10),
    }
    if "value" in rows.columns:
        codes["value"] = codes[code] * 10
        for value in known:
            here = (rows[code] == value).fill_null(value=False).to_numpy()
            seen = real.filter(pl.col(code) == value)["value"]
            codes["value"] = codes["value"] + np.where(here, _binned(seen, rows["value"], 4), 0)
    return codes


def _binned(seen: pl.Series, values: pl.Series, bins: int) -> Numbers:
    cuts = np.unique(np.quantile(seen.drop_nulls().to_numpy(), np.linspace(0, 1, bins + 1)[1:-1]))
    code = np.searchsorted(cuts, values.cast(pl.Float64).fill_null(0.0).to_numpy(), side="right")
    return np.where(values.is_null().to_numpy(), len(cuts) + 1, code)


def _after_end(part: Tables) -> float:
    ends = part["patient"].select("id", "futime")
    rows = pl.concat([part[name].select("id", "days") for name in _CODES]).join(ends, on="id")
    return float((rows["days"] > rows["futime"]).mean())  # type: ignore[arg-type]


def _out_of_order(part: Tables) -> float:
    broken = [
        part[name].group_by("id").agg(broken=(pl.col("days").diff() < 0).any()).filter("broken").select("id")
        for name in _CODES
    ]
    return pl.concat(broken).n_unique() / len(part["patient"])


def _until_first_year(part: Tables, *, besides: tuple[str, ...]) -> pl.DataFrame:
    """Of each patient up to the end of the first year: how often each test, its last value, how often each event."""
    labs, events = (part[name].filter(pl.col("days") <= _FIRST_YEAR) for name in _CODES)
    columns = [part["patient"].select("id", *besides, died=pl.col("died").cast(pl.Int8))]
    for test in _TESTS:
        rows = labs.filter(pl.col("test") == test).sort("days", maintain_order=True)
        last = pl.col("value").last().alias(f"last {test}")
        columns.append(rows.group_by("id").agg(pl.len().alias(f"n {test}"), last))
    for event in _EVENTS:
        columns.append(events.filter(pl.col("event") == event).group_by("id").agg(pl.len().alias(f"n {event}")))
    table = columns[0]
    for column in columns[1:]:
        table = table.join(column, on="id", how="left")
    return table.with_columns(pl.col("^n .*$").fill_null(0)).drop("id")


def _death(train: Tables, holdout: Tables, synthetic: Tables) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, besides in (("death", ()), ("death_age", ("age", "male"))):
        learners = [_until_first_year(part, besides=besides) for part in (train, synthetic)]
        test = _until_first_year(holdout, besides=besides)
        truth = test["died"].to_numpy()
        from_real, from_made = (_predicted(learner, test) for learner in learners)
        low, high = _limits(truth, from_made)
        figures |= {
            f"{name}_auc": float(roc_auc_score(truth, from_made)),
            f"{name}_auc_low": low,
            f"{name}_auc_high": high,
            f"{name}_auc_real": float(roc_auc_score(truth, from_real)),
        }
    return figures


def _limits(truth: Numbers, predicted: Numbers) -> tuple[float, float]:
    """95 % limits of an area under the curve, by drawing patients of either outcome anew."""
    draw = np.random.default_rng(0)
    groups = [np.flatnonzero(truth == value) for value in (0, 1)]
    areas = []
    for _ in range(_REDRAWN):
        rows = np.concatenate([draw.choice(group, len(group)) for group in groups])
        areas.append(roc_auc_score(truth[rows], predicted[rows]))
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def _predicted(learner: pl.DataFrame, test: pl.DataFrame) -> Numbers:
    """The chance of death of each test patient; the same for all where no patient to learn from died, or all did."""
    known = learner.drop_nulls("died")
    if known["died"].n_unique() < 2:
        return np.zeros(len(test))
    features = [name for name in learner.columns if name != "died"]
    x, asked = (frame.select(features).cast(pl.Float64).to_numpy() for frame in (known, test))
    some = ~np.isnan(x).all(axis=0)
    middle = np.zeros(x.shape[1])
    middle[some] = np.nanmedian(x[:, some], axis=0)
    # A blood pressure typed as 13,682 would else be the only one that counts.
    filled, wanted = (np.clip(np.where(np.isnan(one), middle, one), -_LARGEST, _LARGEST) for one in (x, asked))
    scale = StandardScaler().fit(filled)
    model = LogisticRegression(C=0.1, max_iter=1000).fit(scale.transform(filled), known["died"].to_numpy())
    return model.predict_proba(scale.transform(wanted))[:, 1]
