"""What may leave the custodian: the public form of a report, and the question whether a cohort may be published.

A report is computed on real records and is not differentially private, its public form no more than the other. The
public form is coarse instead: verdicts stay, numbers are rounded to steps that one patient among hundreds does not
move except by sitting on an edge, cells of few patients are pooled, and whatever the tool does not know how to
coarsen is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synthehr.errors import NotFitToPublishError
from synthehr.evaluation.demands import DEMANDS
from synthehr.evaluation.findings import ColumnProfile, PairProfile, Sections, Sizes, WorstPair
from synthehr.reporting.document import CheckEntry, ReportDocument, load_document
from synthehr.reporting.words import check_words

if TYPE_CHECKING:
    from synthehr.reporting.report import Report

__all__ = ["assert_fit_to_publish", "public_document"]

STAMP = "For the public: verdicts and coarse shares alone. No record and no exact number of real patients."
GRID = 0.05
"""Shares and distances are told in steps of this size, and a cell of fewer patients is pooled."""

FEWEST = 10
"""Fewest patients of any cohort in a cell that is told."""

_MOST_CELLS = 5
_PUBLIC_PROVENANCE = ("suite", "seed", "release_digest", "versions", "model", "synthetic_seed")
_DECLARED = frozenset({"validity", "fidelity", "utility", "inference", "fairness"})
"""Sections whose scopes are names from the schema. Those of other sections may be values, and are left out."""


def assert_fit_to_publish(report: Report | ReportDocument | str | Path) -> None:
    """Raise unless the report shows that its cohort may be published. Made for a test: it raises an AssertionError.

    Args:
        report: a report, its document, or the path of a report folder or ``report.json``.

    Raises:
        NotFitToPublishError: the verdict is not ``pass``, the release promises its patients nothing, or an audit
            showed more than it promises. Lists the checks that stand in the way, without numbers.
        DataError: the path holds no report.
    """
    if isinstance(report, str | Path):
        document = load_document(report)
    else:
        document = report if isinstance(report, ReportDocument) else report.document
    reasons = [f"{check.id}: {check.counts_as}" for check in document.checks if check.counts_as != "pass"]
    privacy = document.privacy
    if not privacy.claimed or privacy.epsilon is None:
        reasons.append("nothing is promised to patients: evaluate with the release that the cohort was drawn from")
    elif (privacy.audited_epsilon_lower_bound or 0.0) > privacy.epsilon:
        reasons.append("an audit showed more than the epsilon that was promised")
    if reasons:
        raise NotFitToPublishError(
            f"the cohort is not fit to publish by suite {document.suite!r}: {'; '.join(reasons)}"
        )


def public_document(document: ReportDocument) -> ReportDocument:
    """The public form of a report; that of a public form is the same."""
    if document.audience == "public":
        return document
    privacy = document.privacy
    bound = privacy.audited_epsilon_lower_bound
    not_private = "The synthetic cohort is NOT PRIVATE. " if "NOT PRIVATE" in document.stamp else ""
    return ReportDocument(
        audience="public",
        stamp=not_private + STAMP,
        verdict=document.verdict,
        suite=document.suite,
        seed=document.seed,
        privacy=privacy.model_copy(
            update={"audited_epsilon_lower_bound": None if bound is None else int(10 * bound) / 10}
        ),
        checks=tuple(_coarse_check(check, at) for at, check in enumerate(document.checks)),
        sections=_coarse_sections(document.sections),
        provenance={key: document.provenance[key] for key in _PUBLIC_PROVENANCE if key in document.provenance},
    )


def _coarse_check(check: CheckEntry, at: int) -> CheckEntry:
    """The verdict with coarse numbers; ids and scopes that may quote a value are left out."""
    named = check.scope == "all" or check.section in _DECLARED
    bare = check.model_copy(update={"why": ""})
    return check.model_copy(
        update={
            "id": check.id if named else f"{check.id.split('[')[0]}[{at + 1}]",
            "scope": check.scope if named else "withheld",
            "value": _coarse(check.value),
            "ci": None,
            "reference": _coarse(check.reference),
            "excess": None,
            "excess_ci": None,
            "why": check.why if check.metric in DEMANDS else check_words(bare).strip(),
        }
    )


def _coarse(value: float | None) -> float | None:
    """The value in steps of 0.05, or to one significant digit where it is above one."""
    if value is None:
        return None
    if abs(value) > 1:
        return float(f"{value:.1g}")
    return _step(value)


def _step(share: float) -> float:
    return round(round(share / GRID) * GRID, 2) + 0.0


def _coarse_sections(sections: Sections) -> Sections:
    """Bins pooled, shares and distances in steps; findings that have no coarse form are left out."""
    sizes = sections.sizes
    least = min(sizes.train, sizes.holdout, sizes.synthetic)
    smallest = max(GRID, FEWEST / max(1, least))
    columns = tuple(made for column in sections.columns if (made := _coarse_column(column, smallest)) is not None)
    return Sections(
        sizes=Sizes(
            train=_at_least(sizes.train), holdout=_at_least(sizes.holdout), synthetic=_at_least(sizes.synthetic)
        ),
        columns=columns,
        pairs=None if sections.pairs is None else _coarse_pairs(sections.pairs),
    )


def _at_least(size: int) -> int:
    """The largest of 1, 2, 5, 10, 20, ... that is no more than ``size``."""
    return max(
        (factor * 10**k for k in range(len(str(size))) for factor in (1, 2, 5) if factor * 10**k <= size), default=0
    )


def _coarse_column(column: ColumnProfile, smallest: float) -> ColumnProfile | None:
    """Cells pooled until each has ``smallest`` of every cohort; None where not two are left."""
    ordered = column.kind in {"integer", "number", "date", "datetime"}
    tail = [at for at in range(len(column.labels)) if column.labels[at] in ("undeclared", "missing")]
    values = tail[0] if tail else len(column.labels)  # the undeclared and the missing ones stand last
    pools = _neighbours(column, values, smallest) if ordered else _common(column, values, smallest)
    taken = {at for _, pool in pools for at in pool}
    missing = [at for at in tail if column.labels[at] == "missing"]
    rest = [at for at in range(len(column.labels)) if at not in taken and at not in missing]
    # A cell of few patients goes without a trace: even its label would tell that there is such a patient.
    pools += [(name, pool) for name, pool in (("missing", missing), ("all others", rest)) if pool]
    pools = [(name, pool) for name, pool in pools if _least(column, pool) >= smallest]
    if len(pools) < 2:
        return None

    def shares(whose: Sequence[float]) -> tuple[float, ...]:
        return tuple(_step(sum(whose[at] for at in pool)) for _, pool in pools)

    return ColumnProfile(
        column=column.column,
        kind=column.kind,
        labels=tuple(name for name, _ in pools),
        train=shares(column.train),
        holdout=shares(column.holdout),
        synthetic=shares(column.synthetic),
        distance=_step(column.distance),
        reference=_step(column.reference),
    )


def _least(column: ColumnProfile, cells: Sequence[int]) -> float:
    """The smallest share that these cells have together in any cohort."""
    return min(sum(whose[at] for at in cells) for whose in (column.train, column.holdout, column.synthetic))


def _common(column: ColumnProfile, values: int, smallest: float) -> list[tuple[str, list[int]]]:
    """The values that are common in every cohort, each by itself; those that no schema declares are only numbered."""
    common = [at for at in range(values) if _least(column, [at]) >= smallest]
    common = sorted(sorted(common, key=lambda at: -column.synthetic[at])[:_MOST_CELLS])
    names = [column.labels[at] for at in common]
    hidden = iter(range(1, len(names) + 1))
    names = [f"undeclared value {next(hidden)}" if name.startswith("undeclared value ") else name for name in names]
    return [(name, [at]) for name, at in zip(names, common, strict=True)]


def _neighbours(column: ColumnProfile, values: int, smallest: float) -> list[tuple[str, list[int]]]:
    """Neighbouring bins pooled; their edges came of real values, so they are told by their order alone."""
    wanted = max(smallest, 1.0 / _MOST_CELLS - 1e-9)
    pools: list[list[int]] = [[]]
    for at in range(values):
        if pools[-1] and _least(column, pools[-1]) >= smallest and sum(column.train[i] for i in pools[-1]) >= wanted:
            pools.append([])
        pools[-1].append(at)
    if len(pools) > 1 and _least(column, pools[-1]) < smallest:
        pools[-2] += pools.pop()
    if _least(column, pools[0]) < smallest:
        return []
    return [(f"part {at} of {len(pools)}, from the lowest", pool) for at, pool in enumerate(pools, start=1)]


def _coarse_pairs(profile: PairProfile) -> PairProfile:
    return PairProfile(
        columns=profile.columns,
        distance=tuple(tuple(_step(one) for one in row) for row in profile.distance),
        reference=tuple(tuple(_step(one) for one in row) for row in profile.reference),
        worst=tuple(
            WorstPair(
                first=one.first,
                second=one.second,
                distance=_step(one.distance),
                reference=_step(one.reference),
            )
            for one in profile.worst
        ),
    )
