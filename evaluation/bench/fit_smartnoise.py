"""smartnoise-synth: AIM, MST, DPCTGAN. Runs in its own environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fit_common
import pandas as pd
import torch
from mbi import Dataset, MarkovRandomField
from mbi.junction_tree import make_junction_tree
from snsynth import Synthesizer
from snsynth.transform import LabelTransformer, MinMaxTransformer, OneHotEncoder, TableTransformer
from snsynth.transform.chain import ChainTransformer


def fit(train: pd.DataFrame, cell: Mapping[str, Any]) -> fit_common.Sampler:
    """AIM and MST on codes, DPCTGAN on numbers scaled from their declared bounds and one-hot categories."""
    torch.manual_seed(cell["seed"])
    method, epsilon, delta = cell["method"], cell["epsilon"], cell["delta"]
    if method == "smartnoise-dpctgan":
        return _dpctgan(train, cell)
    bins = fit_common.Bins(train, cell, how="even" if method.endswith("-even") else "quantile")
    name = "aim" if "-aim" in method else "mst"
    synthesizer = Synthesizer.create(name, epsilon=epsilon, delta=delta)
    # What the transformer learns is which codes there are: rows that hold each once, so that it learns no more.
    codes, sizes = bins.encode(train), bins.sizes()
    every = pd.DataFrame({c: [i % size for i in range(max(sizes.values()))] for c, size in sizes.items()})
    transformer = TableTransformer([LabelTransformer(nullable=False) for _ in sizes])
    transformer.fit(every)
    synthesizer.fit(codes, transformer=transformer)

    def sample(rows: int) -> pd.DataFrame:
        return bins.decode(pd.DataFrame(synthesizer.sample(rows), columns=list(sizes)))

    return {"": sample, "repaired": lambda rows: repaired(sample, rows)}


def repaired(sample: fit_common.Sampler, rows: int) -> pd.DataFrame:
    """Sample the model as it was learned, around two faults of mbi 1.1.0 that its authors have mended since (#145).

    smartnoise-synth 1.0.8 asks for mbi below 2, where the faults still are. A column is conditioned on those that it
    shares a measured set with, where it must be those that it shares a clique of the junction tree with. And the rows
    that share a parent's value get their values in rising order without a shuffle, for every column anew, so that
    columns that the model holds independent rise together down the table; mbi's other method draws each row by itself.
    """
    plain = MarkovRandomField.synthetic_data

    def by_cliques(model: MarkovRandomField, rows: int | None = None) -> Dataset:
        cliques = list(model.cliques)
        while set(widened := list(make_junction_tree(model.domain, cliques)[0].nodes)) != set(cliques):
            cliques = widened
        wide = MarkovRandomField(
            potentials=model.potentials.expand(cliques), marginals=model.marginals, total=model.total
        )
        return plain(wide, rows=rows, method="sample")

    MarkovRandomField.synthetic_data = by_cliques
    try:
        return sample(rows)
    finally:
        MarkovRandomField.synthetic_data = plain


def _dpctgan(train: pd.DataFrame, cell: Mapping[str, Any]) -> fit_common.Sampler:
    given = fit_common.without_missing(train, cell)
    transformers = []
    for name in given:
        if given[name].dtype == object:
            transformers.append(ChainTransformer([LabelTransformer(nullable=False), OneHotEncoder()]))
        else:
            low, high = cell["columns"][name]["bounds"]
            transformers.append(MinMaxTransformer(lower=low, upper=high, nullable=False))
    synthesizer = Synthesizer.create("dpctgan", epsilon=cell["epsilon"], delta=cell["delta"], verbose=False)
    synthesizer.fit(given, transformer=TableTransformer(transformers))
    return lambda rows: fit_common.with_missing(pd.DataFrame(synthesizer.sample(rows), columns=list(given)), cell)


if __name__ == "__main__":
    fit_common.run(fit, packages=["smartnoise-synth", "mbi", "jax", "opacus", "torch", "numpy", "pandas"])
