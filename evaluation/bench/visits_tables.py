"""Two real tables of visits as patients and their visits: diabetes130 by patient number, and pbcseq.

What is declared is what a codebook says, as in ``cohorts.py``: bounds and categories are not read off the rows.

* ``diabetes130``: 71,518 patients, 101,766 encounters in hospital. No dates were published: encounters are ordered by
  their number within the patient, which follows the hospitals' own ids. Race and sex are the patient's (of the first
  encounter where they change), all else the encounter's.
* ``pbcseq``: 312 patients of the Mayo Clinic's trial in primary biliary cirrhosis and their 1,945 visits. ``stage`` is
  a category; ``futime`` and ``day`` count from entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
from cohorts import _DOSES, TABLES, _fitting, _icd9_group, _meta

__all__ = ["COHORTS", "visits_of"]

_YES = ["0", "1"]
_DAY: dict[str, Any] = {"kind": "integer", "bounds": [0, 6000], "unit": "d"}
_SCALES = {
    "bili": (0, 80, 0.1, False),
    "chol": (0, 3000, 1, True),
    "albumin": (0, 10, 0.01, False),
    "alk.phos": (0, 20_000, 1, True),
    "ast": (0, 3000, 0.1, False),
    "platelet": (0, 1500, 1, True),
    "protime": (5, 60, 0.1, False),
}
_PATIENT = ("race", "gender")
_MOST = {"diabetes130": 10, "pbcseq": 16}


def visits_of(name: str, folder: Path) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """The tables ``patient`` and ``visit`` and their synthehr schema.

    Args:
        name: one of ``COHORTS``.
        folder: where the published files lie.

    Raises:
        FileNotFoundError: the table's file is not there.
    """
    return COHORTS[name](folder)


def _pbcseq(folder: Path) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    rows = pl.read_csv(folder / "pbcseq.csv", null_values=["", "NA"])
    rows = rows.rename({name: name.replace(".", "_") for name in rows.columns})
    own = ["futime", "status", "trt", "age", "sex"]
    flags = ["ascites", "hepato", "spiders"]
    rows = rows.with_columns(
        pl.col("status").eq(2).alias("died"),
        pl.col("trt", "edema", "stage", *flags).cast(pl.Float64).cast(pl.String).str.strip_suffix(".0"),
    )
    patient = rows.group_by("id", maintain_order=True).first().select("id", "died", *own).drop("status")
    scales = {
        column.replace(".", "_"): _number(low, high, step, nullable=missing)
        for column, (low, high, step, missing) in _SCALES.items()
    }
    visit = {
        "day": _DAY,
        **{flag: {"kind": "category", "values": _YES, "nullable": True} for flag in flags},
        "edema": {"kind": "category", "values": ["0", "0.5", "1"]},
        **scales,
        "stage": {"kind": "category", "values": ["1", "2", "3", "4"]},
    }
    people = {
        "died": {"kind": "boolean"},
        "futime": _DAY,
        "trt": {"kind": "category", "values": _YES},
        "age": {"kind": "number", "bounds": [18, 100], "unit": "a", "precision": 0.01},
        "sex": {"kind": "category", "values": ["f", "m"]},
    }
    tables = {"patient": patient.select("id", *people), "visit": rows.select("id", *visit)}
    rules = ["visit.day <= patient.futime"]
    return tables, _schema("pbcseq", people, visit, outcome="died", group="sex", order="day", rules=rules)


def _diabetes130(folder: Path) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    spec = TABLES["diabetes130"]
    rows = pd.read_csv(folder / "diabetes130" / "diabetic_data.csv.gz", low_memory=False, na_values=["?"])
    rows = rows.sort_values(["patient_nbr", "encounter_id"]).reset_index(drop=True)
    for column in ("diag_1", "diag_2", "diag_3"):
        rows[column] = rows[column].map(_icd9_group, na_action="ignore")
    rows["readmitted_30"] = (rows["readmitted"] == "<30").astype(int)
    number = rows.groupby("patient_nbr").cumcount() + 1
    keys = {"id": rows["patient_nbr"], "number": number}
    every = pl.from_pandas(_fitting(rows, spec.columns, table="diabetes130").assign(**keys))
    first = every.group_by("id", maintain_order=True).first()
    declared: Mapping[str, Any] = _meta(spec)["schema"]["tables"]["patient"]["columns"]
    people = {column: declared[column] for column in _PATIENT}
    visit = {"number": {"kind": "integer", "bounds": [1, 100]}}
    visit |= {column: about for column, about in declared.items() if column not in _PATIENT}
    whole = [name for name, about in declared.items() if about["kind"] == "integer"]
    tables = {
        "patient": first.select("id", *people),
        "visit": every.select("id", *visit).with_columns(pl.col(whole).cast(pl.Int64)),
    }
    rules = _of_drugs()
    return tables, _schema("diabetes130", people, visit, outcome=None, group="gender", order="number", rules=rules)


def _of_drugs() -> list[str]:
    """The codebook's: ``diabetesMed`` tells whether any drug was given, and a new dose of any is a ``change``."""
    drugs = [f'visit."{name}"' for name in _DOSES]
    given = " or ".join(f"{drug} <> 'No'" for drug in drugs)
    same = " and ".join(f"{drug} in ('No', 'Steady')" for drug in drugs)
    return [
        f"visit.diabetesMed = 'No' or {given}",
        "visit.diabetesMed = 'Yes' or (" + " and ".join(f"{drug} = 'No'" for drug in drugs) + ")",
        f"visit.change = 'Ch' or ({same})",
    ]


def _number(low: float, high: float, step: float, *, nullable: bool) -> dict[str, Any]:
    kind = {"kind": "integer"} if step == 1 else {"kind": "number", "precision": step}
    return {**kind, "bounds": [low, high], "nullable": nullable}


def _schema(
    name: str,
    people: dict[str, Any],
    visit: dict[str, Any],
    *,
    outcome: str | None,
    group: str,
    order: str,
    rules: list[str],
) -> dict[str, Any]:
    key = {"id": {"kind": "id"}}
    patient = {"key": "id", "groups": [group], "columns": key | people}
    if outcome is not None:
        patient["outcome"] = outcome
    visits = {"parent": "patient", "foreign_key": "id", "order_by": order, "max_rows": _MOST[name]}
    return {
        "synthehr": 1,
        "subject": "patient",
        "tables": {"patient": patient, "visit": {**visits, "columns": key | visit}},
        "rules": rules,
    }


COHORTS = {"diabetes130": _diabetes130, "pbcseq": _pbcseq}
"""What reads each cohort from the folder of published files."""
