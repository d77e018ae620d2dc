"""Which column tells patients apart, and how tables hang together: guessed by name and by inclusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synthehr.schema.ages import words_of
from synthehr.schema.profile import Profile

__all__ = ["Link", "Links", "guess_links", "patient_column"]

_PATIENT = frozenset(
    (
        "patient",
        "patients",
        "pat",
        "pid",
        "subject",
        "subjects",
        "person",
        "persons",
        "people",
        "mrn",
        "participant",
        "rand",
    )
)
_KEY_ENDS = frozenset(("id", "ids", "key", "no", "nbr", "number", "num", "code", "uuid", "sno", "mrn"))
_ROOTS = ("patients", "patient", "persons", "person", "subjects", "subject", "demographics", "participants", "people")
_PARTIAL = frozenset(("encounter", "visit", "stay", "admission", "hospital", "event", "row", "line", "record"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How a table hangs in the tree.

    Attributes:
        key: the column that names each row once.
        parent: the table above.
        foreign_key: the column that holds its key.
    """

    key: str | None = None
    parent: str | None = None
    foreign_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The tree of tables.

    Attributes:
        root: the patients' table.
        tables: the tables that lead to the root, by name, the root among them.
        left_out: tables that lead to no patient.
    """

    root: str
    tables: Mapping[str, Link]
    left_out: tuple[str, ...]


def patient_column(columns: Mapping[str, Profile]) -> str | None:
    """The column that tells the patients of a single table apart, unique or not; None where none seems to."""
    scored = [(_patient_score(p), name) for name, p in columns.items() if _may_be_key(p)]
    best = max(scored, key=lambda found: found[0], default=(0, ""))
    return best[1] if best[0] > 0 else None


def guess_links(tables: Mapping[str, Mapping[str, Profile]]) -> Links | None:
    """The tree of several tables, or None where no table seems to be the patients'."""
    keys = {name: _key(name, columns) for name, columns in tables.items()}
    into = {name: _ways_up(name, tables, keys) for name in tables}
    root = _root(tables, keys, into)
    if root is None:
        return None
    links = {root: Link(key=keys[root])}
    depth = {root: 0}
    waiting = [name for name in tables if name != root]
    while waiting:
        found = {}
        for name in waiting:
            ways = [(depth[parent], parent, column) for parent, column in into[name] if parent in links]
            if ways:
                found[name] = max(ways, key=lambda way: way[0])
        # Parents may still find a place further down: tables are hung level by level, those with open ways last.
        ready = {n: w for n, w in found.items() if all(p in links or not _leads(p, into, links) for p, _ in into[n])}
        chosen = ready or found
        if not chosen:
            break
        for name, (level, parent, column) in chosen.items():
            links[name] = Link(key=keys[name], parent=parent, foreign_key=column)
            depth[name] = level + 1
        waiting = [name for name in waiting if name not in links]
    ordered = {name: links[name] for name in sorted(links, key=lambda n: (depth[n], n))}
    return Links(root=root, tables=ordered, left_out=tuple(waiting))


def _leads(name: str, into: Mapping[str, list[tuple[str, str]]], links: Mapping[str, Link]) -> bool:
    return any(parent in links for parent, _ in into[name])


def _may_be_key(column: Profile) -> bool:
    return not column.missing and column.form in ("integer", "text") and column.distinct > 1


def _patient_score(column: Profile) -> float:
    words = words_of(column.name)
    joined = "".join(words)
    ends = bool(words) and (words[-1] in _KEY_ENDS or joined.endswith(("id", "no")))
    says_patient = bool(set(words) & _PATIENT) or any(
        joined.startswith(word) for word in ("patient", "subject", "rand")
    )
    if says_patient and (ends or len(words) == 1):
        return 4.0
    if joined == "id":
        return 3.0
    if ends and column.unique and not set(words) & _PARTIAL:
        return 2.0
    if column.unique and joined in {"rownames", "index", "row", "unnamed0", "sno"}:
        return 1.0
    return 0.5 if column.unique and ends else 0.0


def _key(table: str, columns: Mapping[str, Profile]) -> str | None:
    """The column that names each row of a table once."""
    stem = _singular(table)

    def score(name: str) -> int:
        words = words_of(name)
        joined = "".join(words)
        if joined == "id":
            return 4
        if joined in {f"{stem}id", f"{stem}key", f"{stem}no", stem}:
            return 3
        return 2 if words and (words[-1] in _KEY_ENDS or joined.endswith("id")) else 0

    scored = [(score(n), n) for n, p in columns.items() if p.unique and _may_be_key_of_one(p) and score(n)]
    return max(scored, key=lambda found: found[0])[1] if scored else None


def _may_be_key_of_one(column: Profile) -> bool:
    return column.form in ("integer", "text", "boolean")  # a table of two rows has keys 0 and 1


def _ways_up(
    name: str, tables: Mapping[str, Mapping[str, Profile]], keys: Mapping[str, str | None]
) -> list[tuple[str, str]]:
    """Tables and columns of this one that hold their key: named alike, never missing, and included."""
    ways = []
    for parent, key in keys.items():
        if parent == name or key is None:
            continue
        known = tables[parent][key].texts.unique()
        for column, held in tables[name].items():
            if held.missing or column == keys[name] or not _named_alike(column, parent=parent, key=key):
                continue
            if held.texts.is_in(known.implode()).all():
                ways.append((parent, column))
                break
    return ways


def _named_alike(column: str, *, parent: str, key: str) -> bool:
    stem, joined, of_key = _singular(parent), "".join(words_of(column)), "".join(words_of(key))
    return joined in {of_key if of_key != "id" else "", stem, f"{stem}id", f"{stem}key", f"{stem}no", f"{stem}{of_key}"}


def _singular(table: str) -> str:
    joined = "".join(words_of(table))
    return joined[:-1] if joined.endswith("s") and not joined.endswith("ss") else joined


def _root(
    tables: Mapping[str, Mapping[str, Profile]],
    keys: Mapping[str, str | None],
    into: Mapping[str, list[tuple[str, str]]],
) -> str | None:
    for name in _ROOTS:
        found = next((t for t in tables if t.lower() == name and keys[t] is not None), None)
        if found is not None:
            return found
    tops = [t for t in tables if not into[t] and keys[t] is not None]
    pointed = {top: sum(any(p == top for p, _ in into[t]) for t in tables) for top in tops}
    best = max(pointed, key=lambda t: pointed[t], default=None)
    return best if best is not None and pointed[best] else None
