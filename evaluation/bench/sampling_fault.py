"""Show that mbi 1.1.0 does not sample the models that it learns, and that the bench's repaired sampling does.

Two models, learned from exact counts: two independent columns beside a third, and a ring of five. Printed is, for each
way to sample, the largest total-variation distance of a pair of columns between 20,000 drawn rows and the model itself.

    ENVS/smartnoise/bin/python evaluation/bench/sampling_fault.py
"""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
from fit_smartnoise import repaired
from mbi import Dataset, Domain, LinearMeasurement, MarkovRandomField, estimation, marginal_oracles

ROWS = 20_000


def learned(columns: dict[str, np.ndarray], sets: list[str]) -> MarkovRandomField:
    """The model of some sets of columns' exact counts; values are whole numbers from 0."""
    frame = pd.DataFrame(columns)
    domain = Domain(list(frame), [int(frame[name].max()) + 1 for name in frame])
    data = Dataset(frame, domain=domain)
    counts = [LinearMeasurement(np.asarray(data.project(tuple(s)).datavector()) + 0.0, tuple(s), 1.0) for s in sets]
    return estimation.mirror_descent(domain, counts, iters=800, marginal_oracle=marginal_oracles.message_passing_stable)


def farthest(model: MarkovRandomField, drawn: pd.DataFrame) -> str:
    """The pair that is farthest from the model, and how far."""
    distances = {}
    for pair in itertools.combinations(drawn.columns, 2):
        shape = tuple(model.domain[name] for name in pair)
        cells = np.ravel_multi_index(tuple(drawn[name].to_numpy().astype(int) for name in pair), shape)
        wanted = np.asarray(model.project(pair).datavector())
        share = np.bincount(cells, minlength=wanted.size) / len(drawn)
        distances[pair] = np.abs(share - wanted / wanted.sum()).sum() / 2
    pair = max(distances, key=lambda name: distances[name])
    return f"{'-'.join(pair)} {distances[pair]:.3f}"


def main() -> None:
    """Print a line for each model and way to sample."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    apart = {"a": rng.integers(0, 2, ROWS), "b": rng.integers(0, 20, ROWS), "c": rng.integers(0, 20, ROWS)}
    common = rng.integers(0, 6, ROWS)
    ring = {name: (common + rng.integers(0, 3, ROWS)) % 6 for name in "abcde"}
    for what, columns, sets in (
        ("independent", apart, ["ab", "ac"]),
        ("ring", ring, ["ab", "bc", "cd", "de", "ae"]),
    ):
        model = learned(columns, sets)
        ways = {
            "installed": lambda rows, model=model: model.synthetic_data(rows=rows).df,
            "its other method": lambda rows, model=model: model.synthetic_data(rows=rows, method="sample").df,
        }
        ways["repaired"] = lambda rows, plain=ways["installed"]: repaired(plain, rows)
        for way, draw in ways.items():
            print(f"{what}, {way}: {farthest(model, draw(ROWS))}")


if __name__ == "__main__":
    main()
