"""One index of all names of resources, and references resolved through it.

A resource is called by its type and id, by the ``fullUrl`` of its bundle entry (``urn:uuid:`` or absolute), by its
identifiers (``Type?identifier=system|value``, which is how conditional and logical references say it), or, contained,
by its owner's name, ``#`` and its id.

Names and references are compared by 64 bits of each, so that the index of a large source stays small. Two of ten
million names fall together with a chance of three in a million; such a name then leads to neither resource. A reference
to nothing could, by the same chance, lead to a resource of another name. The hash has a secret of the run in it, so
that no ids can be made for that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import polars as pl

__all__ = ["ALIAS_COLUMNS", "Index", "aliases_of", "by_id", "leads_in_circles", "read_references", "resolve"]

ALIAS_COLUMNS = {"alias": pl.UInt64, "type": pl.String, "search": pl.Boolean, "_r": pl.UInt64}
_VERSION = r"/_history/[^/]*$"
_TYPED = r"(?:^|/)([A-Z][A-Za-z]+)(?:/[^/?#]+|\?[^/]*=.*)$"
_TYPE_AND_ID = r"([A-Z][A-Za-z]+/[A-Za-z0-9.\-]+)$"
_PERCENT = {"%7C": "|", "%7c": "|", "%3A": ":", "%3a": ":", "%2F": "/", "%2f": "/"}


class Index:
    """All names of the resources that references may lead to.

    Args:
        aliases: ``alias``, ``type`` and ``_r``, the number of the resource; some at a time.
        left_out: numbers of resources that count as not there.
        absolute: whether any reference can be found by its type and id alone.

    A name that belongs to two resources leads to neither.
    """

    def __init__(self, aliases: Iterable[pl.DataFrame], *, left_out: pl.Series, absolute: bool) -> None:
        self.absolute = absolute
        found: dict[str, list[pl.DataFrame]] = defaultdict(list)
        for some in aliases:  # apart by type at once, so that no more is ever held of all names than two numbers each
            there = some.filter(~pl.col("_r").is_in(left_out.implode())) if len(left_out) else some
            for (kind,), frame in there.partition_by("type", as_dict=True).items():
                found[str(kind)].append(frame.select("alias", "_r"))
        self._of: dict[str, pl.DataFrame] = {}
        for kind in list(found):
            names = pl.concat(found.pop(kind)).unique(maintain_order=True)
            self._of[kind] = names.filter(~pl.col("alias").is_duplicated())

    def of(self, kind: str) -> pl.DataFrame:
        """The names of resources of one type: ``alias`` and ``_r``."""
        empty = pl.DataFrame(schema={"alias": pl.UInt64, "_r": pl.UInt64})
        return self._of.get(kind, empty)


def by_id(column: str) -> str:
    """The column beside one of references that holds what they are found by where their whole text is no name."""
    return f"+{column}"


def aliases_of(names: list[tuple[str, str, int]], *, secret: int) -> pl.DataFrame:
    """Names of resources, their types and their numbers, as the index wants them, hashed with the run's secret."""
    alias, kind, at = zip(*names, strict=True) if names else ((), (), ())
    text = pl.Series(alias, dtype=pl.String)
    return pl.DataFrame(
        [
            text.hash(seed=secret).alias("alias"),
            pl.Series("type", kind, dtype=pl.String),
            text.str.contains("?identifier=", literal=True).alias("search"),
            pl.Series("_r", at, dtype=pl.UInt64),
        ]
    )


def read_references(texts: Iterable[str | None], *, secret: int) -> pl.DataFrame:
    """What is kept of references: a row for each of ``texts``, hashed with the secret that names were hashed with.

    Returns:
        ``exact``, the name that it is; ``subject``, the same, null where it says itself that it leads to something
        else than a patient; ``id``, type and id of an absolute one, by which it is tried where no ``fullUrl`` matches,
        since bulk data has none; ``search``, whether it goes by an identifier.
    """
    raw = pl.col("raw").str.replace(_VERSION, "")
    exact = raw.str.replace_many(list(_PERCENT), list(_PERCENT.values())).hash(seed=secret)
    kind = raw.str.extract(_TYPED, 1)
    last = pl.when(raw.str.starts_with("http")).then(raw.str.extract(_TYPE_AND_ID, 1))
    return pl.DataFrame({"raw": list(texts)}, schema={"raw": pl.String}).select(
        exact.alias("exact"),
        pl.when(kind.is_null() | (kind == "Patient")).then(exact).alias("subject"),
        pl.when(last.is_not_null()).then(last.hash(seed=secret)).alias("id"),
        pl.col("raw").str.contains("?", literal=True).alias("search"),
    )


def resolve(frame: pl.LazyFrame, column: str, *, target: str, index: Index, to: str) -> pl.LazyFrame:
    """Add the column ``to``: the number of the resource that each reference leads to, null where it leads nowhere."""
    names = index.of(target).lazy()
    here = frame.join(
        names.rename({"_r": to}), left_on=column, right_on="alias", how="left", maintain_order="left", coalesce=True
    )
    if not index.absolute:
        return here
    found = f"_{to}_found"
    here = here.join(
        names.rename({"_r": found}),
        left_on=by_id(column),
        right_on="alias",
        how="left",
        maintain_order="left",
        coalesce=True,
    )
    return here.with_columns(pl.coalesce(to, found).alias(to)).drop(found)


def leads_in_circles(parents: np.ndarray) -> np.ndarray:
    """Which rows come back to themselves, or to a circle, when each goes on to its parent.

    Args:
        parents: row number of each row's parent, -1 for none. Shape ``(rows,)``.

    Returns:
        Shape ``(rows,)``, boolean.
    """
    end = parents.size
    step = np.append(np.where(parents < 0, end, parents), end)
    for _ in range(max(1, end.bit_length())):  # each round doubles the length of a step
        step = step[step]
    return np.asarray(step[:-1] != end)
