"""One index of all names of resources, and references resolved through it.

A resource is called by its type and id, by the ``fullUrl`` of its bundle entry (``urn:uuid:`` or absolute), by its
identifiers (``Type?identifier=system|value``, which is how conditional and logical references say it), or, contained,
by its owner's name, ``#`` and its id.
"""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["Index", "leads_elsewhere", "leads_in_circles", "resolve"]

_VERSION = r"/_history/[^/]*$"
_TYPED = r"(?:^|/)([A-Z][A-Za-z]+)(?:/[^/?#]+|\?[^/]*=.*)$"
_TYPE_AND_ID = r"([A-Z][A-Za-z]+/[A-Za-z0-9.\-]+)$"
_PERCENT = {"%7C": "|", "%7c": "|", "%3A": ":", "%3a": ":", "%2F": "/", "%2f": "/"}


class Index:
    """All names of the resources that references may lead to.

    Args:
        aliases: ``alias``, ``type`` and ``_r``, the number of the resource.
        left_out: numbers of resources that count as not there.

    A name that belongs to two resources leads to neither.
    """

    def __init__(self, aliases: pl.DataFrame, *, left_out: pl.Series) -> None:
        there = aliases.filter(~pl.col("_r").is_in(left_out.implode())).unique(["type", "alias", "_r"])
        one = there.group_by("type", "alias").agg(pl.col("_r").first(), pl.len().alias("_n")).filter(pl.col("_n") == 1)
        self._of: dict[str, pl.DataFrame] = {
            str(kind): frame.select("alias", "_r").sort("_r", "alias")
            for (kind,), frame in one.partition_by("type", as_dict=True).items()
        }

    def of(self, kind: str) -> pl.DataFrame:
        """The names of resources of one type: ``alias`` and ``_r``."""
        empty = pl.DataFrame(schema={"alias": pl.String, "_r": pl.UInt64})
        return self._of.get(kind, empty)


def leads_elsewhere(raw: pl.Expr, *, target: str) -> pl.Expr:
    """Whether a reference says itself that it leads to another type than ``target``."""
    kind = raw.str.replace(_VERSION, "").str.extract(_TYPED, 1)
    return (kind.is_not_null() & (kind != target)).fill_null(value=False)


def resolve(frame: pl.LazyFrame, column: str, *, target: str, index: Index, to: str) -> pl.LazyFrame:
    """Add the column ``to``: the number of the resource that each reference leads to, null where it leads nowhere.

    An absolute reference that no ``fullUrl`` matches is tried by its type and id, since bulk data has no ``fullUrl``.
    """
    names = index.of(target)
    raw = pl.col(column).str.replace(_VERSION, "")
    exact = raw.str.replace_many(list(_PERCENT), list(_PERCENT.values()))
    by_id = pl.when(raw.str.starts_with("http")).then(raw.str.extract(_TYPE_AND_ID, 1))
    exact_name, id_name, found = f"_{to}_exact", f"_{to}_id", f"_{to}_found"
    here = frame.with_columns(exact.alias(exact_name), by_id.alias(id_name))
    for name, into in ((exact_name, to), (id_name, found)):
        lookup = names.lazy().rename({"alias": name, "_r": into})
        here = here.join(lookup, on=name, how="left", maintain_order="left")
    return here.with_columns(pl.coalesce(to, found).alias(to)).drop(exact_name, id_name, found)


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
