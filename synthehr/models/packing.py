"""What was learned of tables as tensors and records, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.unroll import ConditionalTable
from synthehr.errors import DataError
from synthehr.models.base import ConditionalRecord, GeneratorShape, TermRecord, load_generator
from synthehr.models.columns import Learned, all_cells
from synthehr.models.loglinear import Conditional, Term
from synthehr.privacy.partition import Cells

__all__ = ["child_table", "patients_table", "terms_of", "weights_of"]


def weights_of(learned: Learned) -> dict[str, Tensor]:
    """The tensors of a table, by name."""
    found: dict[str, Tensor] = {}
    if learned.generator is not None:
        found = {name: value.detach().cpu().contiguous() for name, value in learned.generator.state_dict().items()}
    for one in learned.conditionals:
        for at, term in enumerate(one.terms):
            found[f"{one.target}/{at}"] = torch.from_numpy(np.ascontiguousarray(term.weights))
        if one.of_candidate is not None:
            found[f"{one.target}/seen"] = torch.from_numpy(np.ascontiguousarray(one.of_candidate))
    return found


def terms_of(learned: Learned) -> tuple[ConditionalRecord, ...]:
    """How each column of a child table is drawn, and outcomes of the patients' own."""
    return tuple(
        ConditionalRecord(
            target=one.target,
            terms=tuple(
                TermRecord(given=term.given, groups=tuple(tuple(group.tolist()) for group in term.groups))
                for term in one.terms
            ),
            of_candidate=one.of_candidate is not None,
        )
        for one in learned.conditionals
    )


def patients_table(
    made: ConditionalTable,
    domain: Sequence[ColumnDomain],
    shape: GeneratorShape,
    records: Sequence[ConditionalRecord],
    weights: Mapping[str, Tensor],
) -> Learned:
    """The patients' own table.

    Args:
        made: what it is learned as.
        domain: its columns.
        shape: of its generator.
        records: of outcomes that are drawn given the other columns.
        weights: of the generator, and with a slash in their names those of outcomes.

    Raises:
        DataError: the weights do not fit the domain.
    """
    cells = all_cells(made, domain, None)
    own = {name: value for name, value in weights.items() if "/" not in name}
    generator = load_generator([cells[column].size for column in made.names], shape, own)
    conditionals = _conditionals(records, cells, weights)
    return Learned(made=made, domain=tuple(domain), cells=cells, generator=generator, conditionals=conditionals)


def child_table(
    made: ConditionalTable,
    domain: Sequence[ColumnDomain],
    above: Learned,
    records: Sequence[ConditionalRecord],
    weights: Mapping[str, Tensor],
) -> Learned:
    """Another table.

    Raises:
        DataError: the weights do not fit the domain.
    """
    cells = all_cells(made, domain, above)
    conditionals = _conditionals(records, cells, weights)
    return Learned(made=made, domain=tuple(domain), cells=cells, conditionals=conditionals)


def _conditionals(
    records: Sequence[ConditionalRecord], cells: Mapping[str, Cells], weights: Mapping[str, Tensor]
) -> tuple[Conditional, ...]:
    conditionals = []
    for record in records:
        terms = []
        for at, term in enumerate(record.terms):
            names = (*term.given, record.target)
            sizes = [1 + max(group) for group in term.groups] if term.groups else [cells[n].size for n in names]
            groups = tuple(np.asarray(group, dtype=np.int64) for group in term.groups)
            found = _tensor(weights, f"{record.target}/{at}", sizes)
            terms.append(Term(given=term.given, weights=found, groups=groups))
        size = cells[record.target].size
        seen = _tensor(weights, f"{record.target}/seen", [size, 3]) if record.of_candidate else None
        conditionals.append(Conditional(target=record.target, size=size, terms=tuple(terms), of_candidate=seen))
    return tuple(conditionals)


def _tensor(weights: Mapping[str, Tensor], name: str, sizes: Sequence[int]) -> np.ndarray:
    if name not in weights or list(weights[name].shape) != list(sizes):
        raise DataError("the weights of the release do not fit its manifest: it is not as it was written")
    return weights[name].numpy()
