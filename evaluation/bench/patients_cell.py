"""A cell of patients.py and the file of finished ones."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from patients_score import FIGURES

__all__ = ["FIELDS", "Cell", "finished"]

FIELDS = (
    *("method", "patients", "epsilon", "delta", "seed", "status", "rows"),
    *("fit_seconds", "fit_cpu_seconds", "sample_seconds", "peak_memory_mib", "epsilon_spent"),
    *FIGURES,
    *("versions", "sources", "machine", "threads", "load", "cap", "finished"),
)


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One fit; epsilon is infinite for a method without privacy.

    Attributes:
        method: its name.
        patients: of the train part.
        epsilon: what is promised of a patient over all tables.
        seed: of the method's own draws.
    """

    method: str
    patients: int
    epsilon: float
    seed: int


def finished(results: Path) -> dict[Cell, dict[str, str]]:
    """The lines of a results file; of several for one cell the last.

    Raises:
        ValueError: the file has other columns than this version writes.
    """
    if not results.exists() or results.stat().st_size == 0:
        return {}
    with results.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(f"{results.name} has other columns than this bench writes: name another file by --results")
        rows = list(reader)
    return {Cell(r["method"], int(r["patients"]), float(r["epsilon"]), int(r["seed"])): r for r in rows}
