"""CTGAN and TVAE without privacy, by the package ctgan: baselines to compare with, never to release.

A baseline reads every row as often as it likes, books nothing and makes no release: its state holds rows of patients.
Nothing on the way to a release may import this module; import-linter keeps that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from synthehr.encoding.lattice import as_number, lattice_of
from synthehr.errors import ConfigError, DataError
from synthehr.randomness import FloatArray
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    IntegerColumn,
    NumberColumn,
    Table,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BASELINES", "DEVICES", "EPOCHS", "FittedBaseline", "check_settings", "fit_baseline"]

BASELINES = ("ctgan", "tvae")
DEVICES = ("auto", "cpu", "cuda")
EPOCHS = 300
_ROUND = 32768
_MOST_DIGITS = 6
_PARTS = ("", "value", "missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labels:
    """A column of labels: codes into its distinct values, a missing one among them."""

    values: pl.Series

    def encode(self, series: pl.Series) -> dict[str, np.ndarray]:
        codes = pl.DataFrame({"value": self.values, "code": np.arange(len(self.values))})
        joined = series.to_frame("value").join(codes, on="value", how="left", nulls_equal=True, maintain_order="left")
        return {"": joined["code"].to_numpy()} if len(self.values) > 1 else {}

    def decode(self, drawn: dict[str, np.ndarray], *, rows: int) -> pl.Series:
        codes = drawn.get("", np.zeros(rows, dtype=np.int64))
        return self.values.gather(codes.astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A numeric or temporal column.

    ctgan takes no missing values among numbers: a missing one becomes an indicator column, which is learned with all
    the others, and a draw from the observed values in its place, which leaves the column's distribution as it is.
    """

    column: Any
    observed: FloatArray
    missing: bool
    seed: int

    def encode(self, series: pl.Series) -> dict[str, np.ndarray]:
        numbers = as_number(series).to_numpy()
        absent = np.isnan(numbers)
        parts: dict[str, np.ndarray] = {}
        if self.observed.size and self.observed[0] < self.observed[-1]:
            draws = np.random.default_rng(self.seed)
            parts["value"] = np.where(absent, draws.choice(self.observed, size=len(numbers)), numbers)
        if self.missing and self.observed.size:
            parts["missing"] = absent.astype(np.int64)
        return parts

    def decode(self, drawn: dict[str, np.ndarray], *, codes: pl.Series | None, rows: int) -> pl.Series:
        if not self.observed.size:
            return self._on_grid(np.zeros(rows), np.ones(rows, dtype=bool), bounds=(0.0, 1.0))
        values = drawn.get("value", np.full(rows, self.observed[0])).astype(np.float64)
        absent = drawn.get("missing", np.zeros(rows)).astype(bool)
        if not np.isfinite(values).all():
            raise DataError("the baseline made values that are no numbers: fit it with more records or other epochs")
        if codes is None:
            return self._on_grid(values, absent, bounds=getattr(self.column, "bounds", None))
        pieces, order = [], []
        for code in codes.unique():
            at = np.flatnonzero((codes.is_null() if code is None else codes.eq(code).fill_null(value=False)).to_numpy())
            pieces.append(self._on_grid(values[at], absent[at], bounds=self.column.bounds_of(code)))
            order.append(at)
        return pl.concat(pieces).gather(np.argsort(np.concatenate(order)))

    def _on_grid(self, values: FloatArray, absent: np.ndarray, *, bounds: Any) -> pl.Series:
        """The nearest values that the column can take, between its bounds or else the extremes observed."""
        column = self.column
        if isinstance(column, IntegerColumn | NumberColumn):
            if bounds is None:
                low, high = float(self.observed[0]), float(self.observed[-1])
                bounds = (low, high if high > low else low + 1.0)
            lattice = lattice_of(column, bounds=bounds)
        else:
            lattice = lattice_of(column)
        positions = np.rint((values - lattice.origin) / lattice.step)
        return lattice.column(np.clip(positions, 0, lattice.points - 1).astype(np.int64), absent)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedBaseline:
    """A fitted CTGAN or TVAE with what turns its rows into values. Holds rows of patients; there is no way to save it.

    Attributes:
        model: ``ctgan`` or ``tvae``.
        table: the declared columns.
        columns: how each kept column was coded.
        network: the model of the package ctgan.
    """

    model: str
    table: Table
    columns: dict[str, _Labels | _Measured]
    network: Any

    def draw(self, n: int, *, seed: int) -> pl.DataFrame:
        """Kept columns of ``n`` synthetic rows, in their declared types and within their declared bounds."""
        self.network.set_random_state(seed)
        frames = [self._decode(self._rows(min(_ROUND, n - at))) for at in range(0, n, _ROUND)]
        return pl.concat(frames)

    def _rows(self, rows: int) -> pd.DataFrame:
        with _plain_work():
            drawn: pd.DataFrame = self.network.sample(rows)
        return drawn

    def _decode(self, drawn: pd.DataFrame) -> pl.DataFrame:
        frame: dict[str, pl.Series] = {}
        numbered = enumerate(self.columns.items())
        # Labels first: a number may depend on the code of its row, whatever the order of the columns.
        for at, (name, coding) in sorted(numbered, key=lambda one: isinstance(one[1][1], _Measured)):
            mine = {part: drawn[_label(at, part)].to_numpy() for part in _PARTS if _label(at, part) in drawn}
            if isinstance(coding, _Labels):
                frame[name] = coding.decode(mine, rows=len(drawn))
            else:
                codes = frame[coding.column.per] if getattr(coding.column, "per", None) is not None else None
                frame[name] = coding.decode(mine, codes=codes, rows=len(drawn))
        return pl.DataFrame({name: frame[name] for name in self.columns})


def _label(at: int, part: str) -> str:
    """The name under which ctgan sees a part of a column: it must not be able to quote a name or a value."""
    return f"{at}{part}"


def check_settings(*, model: str, epochs: int, device: str) -> None:
    """Refuse settings that cannot be right.

    Raises:
        ConfigError: there is no such model or device, or less than one epoch.
    """
    if model not in BASELINES:
        raise ConfigError(f"baseline {model!r} is unknown: choose one of {', '.join(BASELINES)}")
    if device not in DEVICES:
        raise ConfigError(f"device {device!r} is unknown to a baseline: choose one of {', '.join(DEVICES)}")
    if epochs < 1:
        raise ConfigError(f"epochs must be at least 1, not {epochs}")


def fit_baseline(
    rows: pl.DataFrame, *, table: Table, model: str, epochs: int = EPOCHS, seed: int = 0, device: str = "auto"
) -> FittedBaseline:
    """Fit a baseline to the rows of patients, without any privacy.

    Args:
        rows: one row per patient, as its schema declares.
        table: the declared columns.
        model: ``ctgan`` or ``tvae``, with the settings that the package has for them.
        epochs: passes over the rows.
        seed: of weights, batches and draws.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: there is no such model or device, or less than one epoch.
        DataError: every column is constant, so that there is nothing to learn.

    Privacy: none. Nothing is booked, and what comes of it is stamped not private.
    """
    check_settings(model=model, epochs=epochs, device=device)
    columns = {name: _coding(column, rows[name], seed=seed) for name, column in table.kept.items()}
    coded, discrete = _coded(rows, columns)
    if coded.empty:
        raise DataError("every column is constant: there is nothing for a baseline to learn")
    with _plain_work():
        from ctgan import CTGAN, TVAE

        network = (CTGAN if model == "ctgan" else TVAE)(epochs=epochs, enable_gpu=device != "cpu")
        network.set_random_state(seed)
        network.fit(coded, discrete_columns=discrete)
    return FittedBaseline(model=model, table=table, columns=columns, network=network)


def _coding(column: Any, series: pl.Series, *, seed: int) -> _Labels | _Measured:
    if isinstance(column, CategoryColumn | BooleanColumn):
        return _Labels(values=series.unique().sort())
    observed: FloatArray = as_number(series).drop_nulls().sort().to_numpy()
    if isinstance(column, NumberColumn) and column.precision is None:
        column = column.model_copy(update={"precision": _precision(column, observed)})
    return _Measured(column=column, observed=observed, missing=series.null_count() > 0, seed=seed)


def _precision(column: NumberColumn, observed: FloatArray) -> float | None:
    """The decimal places that all observed values and all bounds have, as SDV's rounding finds them; None without."""
    pairs = [*column.per_code.values()] if column.per_code else [column.bounds] if column.bounds is not None else []
    numbers = np.concatenate([observed, *(np.asarray(pair, dtype=np.float64) for pair in pairs)])
    for digits in range(_MOST_DIGITS + 1):
        if np.array_equal(numbers, np.round(numbers, digits)):
            return math.pow(10.0, -digits)
    return None


def _coded(rows: pl.DataFrame, columns: dict[str, _Labels | _Measured]) -> tuple[pd.DataFrame, list[str]]:
    """The table as ctgan takes it, without missing values, and the names of its discrete columns."""
    import pandas as pd

    parts = {
        _label(at, part): values
        for at, (name, coding) in enumerate(columns.items())
        for part, values in coding.encode(rows[name]).items()
    }
    return pd.DataFrame(parts), [name for name in parts if not name.endswith("value")]


@contextmanager
def _plain_work() -> Iterator[None]:
    """Let ctgan work quietly and in this process alone.

    From 500 rows on it would send patients' rows to other processes, on the way to which joblib may lay them on disk.
    Its libraries' warnings may quote values.
    """
    from joblib.parallel import parallel_config

    with parallel_config(backend="sequential"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
