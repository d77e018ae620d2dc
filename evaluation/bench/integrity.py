"""Keys, parents, order, bounds and declared rules of sampled tables, looked at by code that knows nothing of synthehr.

    python evaluation/bench/integrity.py [--rows 1000000] [--patients 14039] [--epsilon 3] [--release DIR]

fits the three nafld tables, samples patients until there are so many rows below them, and counts violations: of what
holds by construction, of which one makes the command end with 1, and of regularities that no one declared, beside
those of the real train part. Results are results/integrity.csv and results/integrity.md.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from nafld_tables import SCHEMA, bounded, nafld_tables, split_by_patient

__all__ = ["RULES", "Finding", "declared", "regularities", "table_of", "violations"]

RESULTS = Path(__file__).parent / "results" / "integrity.csv"
DELTA = 1e-5
_SLACK = 0.005
Tables = Mapping[str, pl.DataFrame]


def _followed(name: str) -> Callable[[Tables], pl.Series]:
    """Whether each row of a table lies within the follow-up of its patient."""
    return lambda tables: _beside(tables, name, "futime").select(pl.col("days") <= pl.col("futime")).to_series()


RULES: dict[str, Callable[[Tables], pl.Series]] = {
    f"{name}.days <= patient.futime": _followed(name) for name in ("lab", "event")
}
"""The rules that nafld.yaml declares, each with code of its own that tells which rows keep it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, how often, and how often it was not as it must be (or as real rows mostly are)."""

    check: str
    looked_at: int
    violations: int

    @property
    def rate(self) -> float:
        """Violations of those looked at; 0 where there were none."""
        return self.violations / self.looked_at if self.looked_at else 0.0


def declared() -> dict[str, Any]:
    """The schema of nafld.yaml."""
    schema: dict[str, Any] = yaml.safe_load(SCHEMA.read_text())
    return schema


def violations(tables: Tables, schema: Mapping[str, Any]) -> list[Finding]:
    """What must hold by construction: keys, parents, number and order of rows, types, bounds, values, rules.

    Args:
        tables: by name.
        schema: as the YAML file holds it.

    Raises:
        KeyError: a rule is declared for which there is no code here.
    """
    found = []
    for name, table in schema["tables"].items():
        frame = tables[name]
        found += _keys(name, table, frame, tables, schema)
        for column, about in table["columns"].items():
            if about["kind"] != "id":
                found += _values(f"{name}.{column}", frame, column, about)
    for rule in schema.get("rules", []):
        kept = RULES[rule](tables)
        found.append(_finding(f"rule {rule}", len(kept), kept.not_() | kept.is_null()))
    return found


def _finding(check: str, looked_at: int, broken: pl.Series | int) -> Finding:
    times = broken if isinstance(broken, int) else int(broken.sum())
    return Finding(check=check, looked_at=looked_at, violations=times)


def _keys(
    name: str, table: Mapping[str, Any], frame: pl.DataFrame, tables: Tables, schema: Mapping[str, Any]
) -> Iterable[Finding]:
    rows = frame.height
    if "key" in table:
        key = frame[table["key"]]
        yield _finding(f"{name}: key is there", rows, key.is_null())
        yield _finding(f"{name}: key is its own", rows, rows - key.n_unique())
    if "parent" not in table:
        return
    foreign = table["foreign_key"]
    above = tables[table["parent"]][schema["tables"][table["parent"]]["key"]]
    orphans = frame.join(above.alias(foreign).to_frame(), on=foreign, how="anti", nulls_equal=False).height
    yield _finding(f"{name}: parent is there", rows, orphans)
    owners = _owners(name, tables, schema)
    if "max_rows" in table:
        counts = owners.value_counts()["count"]
        yield _finding(f"{name}: rows of a patient", len(counts), counts > table["max_rows"])
    if "order_by" in table:
        day = frame[table["order_by"]]
        later = pl.DataFrame({"of": frame[foreign], "day": day}).select(pl.col("day").diff().over("of") < 0)
        yield _finding(f"{name}: in the order of {table['order_by']}", rows, later.to_series().fill_null(False))


def _owners(name: str, tables: Tables, schema: Mapping[str, Any]) -> pl.Series:
    """The patient of each row, by joins up to the root."""
    table, keys = schema["tables"][name], tables[name].select(pl.col(schema["tables"][name]["foreign_key"]).alias("at"))
    while (parent := table["parent"]) != schema["subject"]:
        table = schema["tables"][parent]
        above = tables[parent].select(pl.col(table["key"]).alias("at"), pl.col(table["foreign_key"]).alias("next"))
        keys = keys.join(above, on="at", how="left", maintain_order="left").select(pl.col("next").alias("at"))
    return keys["at"]


def _values(where: str, frame: pl.DataFrame, column: str, about: Mapping[str, Any]) -> Iterable[Finding]:
    values, kind, rows = frame[column], about["kind"], frame.height
    types = {"integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean}
    yield _finding(f"{where}: type", 1, int(values.dtype != types.get(kind, pl.String)))
    if not about.get("nullable", False):
        yield _finding(f"{where}: is there", rows, values.is_null())
    if "values" in about:
        yield _finding(f"{where}: declared values", rows, values.drop_nulls().is_in(about["values"]).not_())
    if kind in ("integer", "number"):
        low, high = _bounds(frame, about)
        yield _finding(f"{where}: bounds", rows, ((values < low) | (values > high)).fill_null(False))
        step = about.get("precision")
        if step is not None:
            off = ((values / step) - (values / step).round()).abs() > 1e-6
            yield _finding(f"{where}: steps of {step:g}", rows, off.fill_null(False))


def _bounds(frame: pl.DataFrame, about: Mapping[str, Any]) -> tuple[pl.Series, pl.Series]:
    bounds, rows = about["bounds"], frame.height
    if isinstance(bounds, Mapping):
        code = frame[about["per"]]
        low, high = (
            code.replace_strict({of: float(pair[at]) for of, pair in bounds.items()}, default=None) for at in (0, 1)
        )
        return low, high
    return pl.repeat(bounds[0], rows, eager=True), pl.repeat(bounds[1], rows, eager=True)


def _beside(tables: Tables, name: str, column: str) -> pl.DataFrame:
    """A table of nafld with a column of its patients."""
    return tables[name].join(tables["patient"].select("id", column), on="id", how="left", maintain_order="left")


def regularities(tables: Tables, once: Sequence[str]) -> list[Finding]:
    """What real nafld rows nearly always keep though nobody declared it.

    Args:
        tables: patient, lab and event.
        once: events that a patient has once at most, in real rows.
    """
    found = []
    for name, code in (("lab", "test"), ("event", "event")):
        rows = _beside(tables, name, "age")
        unborn = rows["days"] < -365.25 * (rows["age"] + 1)
        found.append(_finding(f"{name}s before birth", rows.height, unborn))
        days = tables[name].group_by("id", "days", code).len("times")
        found.append(_finding(f"{code} twice on one day", days.height, days["times"] > 1))
    for event in once:
        of_patient = tables["event"].filter(pl.col("event") == event).group_by("id").len("times")
        found.append(_finding(f"{event} twice", of_patient.height, of_patient["times"] > 1))
    return found


def once_in_most(tables: Tables, *, share: float = 0.99) -> list[str]:
    """Events that at least this share of the patients who have them have once."""
    times = tables["event"].group_by("id", "event").len("times")
    alone = times.group_by("event").agg((pl.col("times") == 1).mean().alias("alone")).filter(pl.col("alone") >= share)
    return sorted(alone["event"].to_list())


def table_of(hard: Sequence[Finding], soft: Sequence[tuple[Finding, Finding]], *, about: str) -> str:
    """Markdown of both kinds."""
    broken = sum(one.violations for one in hard)
    text = [
        "# Integrity of sampled rows",
        "",
        f"Written by `evaluation/bench/integrity.py`. {about}",
        "",
        f"**By construction** ({len(hard)} checks): {broken} violations.",
        "",
        "| check | looked at | violations |",
        "| --- | --- | --- |",
        *(f"| {one.check} | {one.looked_at:,} | {one.violations:,} |" for one in hard),
        "",
        "**Regularities that were not declared**, beside the real train part; more than real + 0.5 % is marked.",
        "",
        "| regularity | real | synthetic | |",
        "| --- | --- | --- | --- |",
    ]
    for real, made in soft:
        mark = "more" if made.rate > real.rate + _SLACK else ""
        text.append(f"| {made.check} | {real.rate:.2%} | {made.rate:.2%} | {mark} |")
    return "\n".join([*text, ""])


def main() -> int:
    """Fit, sample, look."""
    options = _options()
    import synthehr

    schema, begun = declared(), time.perf_counter()
    train, _ = split_by_patient(nafld_tables(), patients=options.patients)
    train = bounded(train, most=40)
    if options.release is None:
        cohort = synthehr.read(train, schema=schema)
        release = synthehr.fit(cohort, epsilon=options.epsilon, delta=DELTA, policy="exploratory", seed=0)
    else:
        release = synthehr.Release.load(options.release)
    fitted = time.perf_counter()
    tables, patients = _sampled(release, options.rows)
    rows = sum(tables[name].height for name in ("lab", "event"))
    hard = violations(tables, schema)
    real, made = (regularities(part, once_in_most(train)) for part in (train, tables))
    about = (
        f"{len(train['patient']):,} real patients at epsilon {options.epsilon:g} ({fitted - begun:.0f} s), "
        f"{patients:,} synthetic ones with {rows:,} rows of labs and events ({time.perf_counter() - fitted:.0f} s)."
    )
    text = table_of(hard, list(zip(real, made, strict=True)), about=about)
    options.results.with_suffix(".md").write_text(text)
    with options.results.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "check", "looked_at", "violations", "real_rate"])
        writer.writerows(["hard", one.check, one.looked_at, one.violations, ""] for one in hard)
        writer.writerows(
            ["soft", one.check, one.looked_at, one.violations, round(of_real.rate, 6)]
            for of_real, one in zip(real, made, strict=True)
        )
    print(text)
    return int(any(one.violations for one in hard))


def _sampled(release: Any, rows: int) -> tuple[dict[str, pl.DataFrame], int]:
    """Tables of so many patients that those below them have so many rows; they come in one sample."""
    trial = release.sample(2000, seed=1).tables
    each = sum(trial[name].height for name in ("lab", "event")) / 2000
    patients = int(rows / max(each, 1e-3) * 1.02) + 100
    return dict(release.sample(patients, seed=2).tables), patients


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of labs and events, at least about so many")
    parser.add_argument("--patients", type=int, help="of the train part; all by default")
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--release", type=Path, help="sample this one; the schema must be declared()'s")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
