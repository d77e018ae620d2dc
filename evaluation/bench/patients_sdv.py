"""sdv's HMA (all tables at once) and PAR (sequences of one table), without privacy, as anyone would use them.

PAR knows one table of sequences. Here a Gaussian copula learns the patients, with whether they have labs and events,
and PAR the labs and the events, each in the context of its patients; patients without rows, which PAR cannot learn,
are those that the copula made so.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import patients_common
import torch
from patients_common import Cell, Tables, as_text, kept
from sdv.metadata import Metadata
from sdv.multi_table import HMASynthesizer
from sdv.sequential import PARSynthesizer
from sdv.single_table import GaussianCopulaSynthesizer

_KINDS = {"integer": "numerical", "number": "numerical", "boolean": "boolean", "category": "categorical"}


def fit(train: Tables, cell: Cell) -> patients_common.Sampler:
    """Default settings of both."""
    torch.manual_seed(cell["seed"])
    torch.set_num_threads(cell["threads"])
    return (_hma if cell["method"] == "sdv-hma" else _par)(_given(train, cell), cell)


def _hma(train: Tables, cell: Cell) -> patients_common.Sampler:
    tables = {}
    for name in train:
        about = _columns(cell, name)
        if name == "patient":
            tables[name] = {"primary_key": "id", "columns": about | {"id": {"sdtype": "id"}}}
        else:
            tables[name] = {"columns": about | {"id": {"sdtype": "id"}}}
    links = [
        {"parent_table_name": "patient", "parent_primary_key": "id", "child_table_name": n, "child_foreign_key": "id"}
        for n in train
        if n != "patient"
    ]
    metadata = Metadata.load_from_dict({"tables": tables, "relationships": links})
    model = HMASynthesizer(metadata, verbose=False)
    model.fit(train)
    return lambda count: _numbered(model.sample(num_rows=count, main_table_name="patient"))


def _par(train: Tables, cell: Cell) -> patients_common.Sampler:
    children = [name for name in train if name != "patient"]
    patients = train["patient"].copy()
    for child in children:
        patients[f"has {child}"] = patients["id"].isin(train[child]["id"])
    about = _columns(cell, "patient") | {f"has {child}": {"sdtype": "boolean"} for child in children}
    flat = Metadata.load_from_dict({"tables": {"patient": {"columns": about}}})
    root = GaussianCopulaSynthesizer(flat)
    root.fit({"patient": patients.drop(columns="id")})
    context = list(kept(cell, "patient"))
    sequences = {child: _sequences(train, child, context, cell) for child in children}

    def sample(count: int) -> Tables:
        everyone = _only(root.sample(count))
        everyone.insert(0, "id", range(1, count + 1))
        made = {"patient": everyone}
        for child, model in sequences.items():
            with_rows = everyone[everyone[f"has {child}"].astype(bool)]
            made[child] = _only(model.sample_sequential_columns(with_rows[["id", *context]]))
        return made

    return sample


def _sequences(train: Tables, child: str, context: list[str], cell: Cell) -> PARSynthesizer:
    rows = train[child].sort_values(["id", "days"], kind="stable").merge(train["patient"], on="id")
    about = _columns(cell, "patient") | _columns(cell, child) | {"id": {"sdtype": "id"}}
    table = {"columns": about, "sequence_key": "id", "sequence_index": "days"}
    metadata = Metadata.load_from_dict({"tables": {child: table}})
    model = PARSynthesizer(metadata, context_columns=context, cuda=False)
    model.fit({child: rows})
    return model


def _only(made: pd.DataFrame | Tables) -> pd.DataFrame:
    """The table of a synthesizer of one table, which it gives alone or by name."""
    return next(iter(made.values())) if isinstance(made, dict) else made


def _columns(cell: Cell, name: str) -> dict[str, dict[str, Any]]:
    return {column: {"sdtype": _KINDS[about["kind"]]} for column, about in kept(cell, name).items()}


def _given(train: Tables, cell: Cell) -> Tables:
    given = {}
    for name, table in train.items():
        text = {c: as_text(table[c]) for c, about in kept(cell, name).items() if about["kind"] == "category"}
        given[name] = table.assign(**text)
    return given


def _numbered(tables: Tables) -> Tables:
    """Keys as whole numbers."""
    number = {key: at for at, key in enumerate(tables["patient"]["id"], start=1)}
    return {name: table.assign(id=table["id"].map(number)) for name, table in tables.items()}


if __name__ == "__main__":
    patients_common.run(fit, packages=["sdv", "deepecho", "copulas", "torch", "numpy", "pandas"])
