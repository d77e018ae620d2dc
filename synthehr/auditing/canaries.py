"""A fit with canary patients: black-box, on the synthetic patients that come of it.

The fit is one of its own, on a copy of the records with canaries among them, with an account of its own, and its
release is thrown away. What it spends on the real patients is spent: where that matters, the fit is booked on a ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import numpy as np
import polars as pl

from synthehr.auditing.door import fair_coins
from synthehr.auditing.mechanisms import grid_of
from synthehr.cohort import Cohort
from synthehr.errors import ConfigError
from synthehr.evaluation.attacks_membership import share_ratio
from synthehr.evaluation.attacks_space import nearest, space_of
from synthehr.evaluation.audit import audit_guesses
from synthehr.evaluation.audit_result import Audited
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.longitudinal_patients import whole_patients
from synthehr.pipeline import fit
from synthehr.privacy.paying import LedgerOptions
from synthehr.randomness import SystemNoise
from synthehr.release import Release
from synthehr.schema.model import IdColumn, Schema

__all__ = ["audit_by_canaries"]

_TINY = 1e-3


def audit_by_canaries(
    release: Release,
    source: Cohort[Schema],
    *,
    canaries: int,
    alpha: float,
    device: str = "auto",
    on_progress: Callable[[str], None] | None = None,
    **paid: Unpack[LedgerOptions],
) -> Audited:
    """Fit anew as the release was fitted, with about half of the canaries among the records, and guess which.

    Args:
        release: what is audited; its settings are used again.
        source: the real patients.
        canaries: made-up patients, each in or out by a fair coin.
        alpha: chance of accusing a correct fit.
        device: of the fit.
        on_progress: told each stage.
        paid: the ledger that the fit spends from, see :func:`synthehr.pipeline.fit`.

    Raises:
        ConfigError: there are fewer than 10 canaries.
        BudgetExceededError: the policy, the rule on delta or the ledger refuses.

    Privacy: a fit of (epsilon, delta) on the source's patients, on an account of its own.
    """
    if canaries < 10:
        raise ConfigError(f"an audit needs at least 10 canary patients, not {canaries}")
    tell = on_progress if on_progress is not None else _silent
    everyone = odd_patients(release, canaries)
    coins = fair_coins(canaries)
    tell("fit with canaries")
    privacy = release.manifest.privacy
    model = release.manifest.model.name
    audited = fit(
        _together(source, everyone.take(np.flatnonzero(coins))),
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        model=model,
        policy=privacy.policy,
        device=device,
        **paid,
    )
    tell("sample")
    synthetic = audited.sample(max(2 * audited.manifest.patients_bought, 1_000))
    tell("attack")
    bench = Bench.open(train=everyone, holdout=source, synthetic=synthetic, seed=0)
    parts = whole_patients(bench)
    space = space_of(parts)
    closeness = np.log(nearest(space.train, space.holdout) + _TINY) - np.log(
        nearest(space.train, space.synthetic) + _TINY
    )
    scores = {
        "near copies": closeness,
        "pairs of values": share_ratio(parts.train.codes, parts.synthetic.codes, parts.holdout.codes, parts),
    }
    return Audited(
        mechanism="canaries",
        claimed=privacy.epsilon,
        experiments={
            name: audit_guesses(score, coins, grid=grid_of(canaries), delta=privacy.delta, alpha=alpha / len(scores))
            for name, score in scores.items()
        },
    )


def odd_patients(release: Release, number: int) -> Cohort[Schema]:
    """Synthetic patients whose own columns are shuffled apart: values that occur, in company that does not."""
    sampled = release.sample(number, allow_insecure=True)
    schema = release.schema
    draws = SystemNoise().spawn()
    root = sampled.root
    columns = [
        root[name]
        if isinstance(schema.root.columns.get(name), IdColumn)
        else root[name][draws.permutation(number)].alias(name)
        for name in root.columns
    ]
    tables = {**sampled.tables, schema.subject: pl.DataFrame(columns)}
    return Cohort(tables, schema=schema)


def _together(source: Cohort[Schema], canaries: Cohort[Schema]) -> Cohort[Schema]:
    """The records and the canaries in one cohort; canaries have keys of synthetic patients."""
    tables = {}
    for name, frame in source.tables.items():
        common = [column for column in frame.columns if column in canaries.tables[name].columns]
        added = canaries.tables[name]
        alike = pl.DataFrame([added[column].cast(frame[column].dtype) for column in common])
        tables[name] = pl.concat([frame.select(common), alike])
    return Cohort(tables, schema=source.schema)


def _silent(_: str) -> None:
    """Tell no one."""
