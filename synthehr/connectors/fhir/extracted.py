"""What the pieces of a source hold, while they are read and once they were: rows of views, names, positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import polars as pl

from synthehr.connectors.fhir.badlines import BadRecord
from synthehr.connectors.fhir.cells import MOST_BYTES_OF_TEXT, column_of, dtype_of_fhir, longest_text, too_long
from synthehr.connectors.fhir.consent import ConsentRecord
from synthehr.connectors.fhir.references import aliases_of, by_id, read_references
from synthehr.connectors.fhir.sources import Piece
from synthehr.connectors.fhir.views import CompiledView
from synthehr.connectors.fhir.viewset import REFERENCES, TableView, ViewColumnRole
from synthehr.errors import DataError

__all__ = ["VIEW_ERRORS", "Extracted", "Turn", "name_of"]

VIEW_ERRORS = (DataError, AttributeError, TypeError, ValueError, KeyError, IndexError, RecursionError)


@dataclass(slots=True, kw_only=True)
class Extracted:
    """What one piece holds.

    Attributes:
        piece: its number.
        file: number of its (first) file.
        lines: lines in it; none where its files are one record each.
        records: resources met, bad ones included.
        numbers: how many numbers of resources were given out.
        searched: whether some reference goes by an identifier.
        absolute: whether some reference may be found by its type and id alone.
        tables: rows by view, with ``_r``, the number of the resource in the piece; references as
            :func:`synthehr.connectors.fhir.references.read_references` keeps them.
        resources: of each resource that was read: ``_r``, type, name (``Type/id``) and its hash (contained ones have
            none), file, line in the piece, offset.
        aliases: all names of each resource that others may point to.
        types: resources by type that were read or passed over, without bad ones.
        consents: what the Consent resources say.
        bad: what was left out; lines are counted within the piece.
    """

    piece: int
    file: int
    lines: int = 0
    records: int = 0
    numbers: int = 0
    searched: bool = False
    absolute: bool = False
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    resources: pl.DataFrame = field(default_factory=pl.DataFrame)
    aliases: pl.DataFrame = field(default_factory=pl.DataFrame)
    types: Counter[str] = field(default_factory=Counter)
    consents: list[ConsentRecord] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)


Mark: TypeAlias = tuple[int, Counter[str], list[tuple[list[Any], int]]]


class _References(NamedTuple):
    """The references of a piece: the row of each in what is kept of them."""

    places: dict[str | None, int | None]
    found: pl.DataFrame

    def columns(self, column: ViewColumnRole, cells: Iterable[str | None]) -> list[pl.Series]:
        """A column of references, and beside it what they are found by where the whole text is no name."""
        at = pl.Series([self.places[cell] for cell in cells], dtype=pl.UInt32)
        whole = self.found["subject" if column.role == "subject" else "exact"]
        return [whole.gather(at).alias(column.name), self.found["id"].gather(at).alias(by_id(column.name))]


class Turn:
    """The rows of one piece while it is read."""

    def __init__(
        self,
        piece: Piece,
        views: dict[str, list[tuple[TableView, CompiledView]]],
        lookups: dict[str, list[tuple[TableView, CompiledView]]],
        *,
        secret: int,
    ) -> None:
        self.out = Extracted(piece=piece.number, file=piece.file)
        self.file = piece.file
        self._views = views
        self._lookups = lookups
        self._secret = secret
        self.longest = 0
        names = [view.name for by_type in (*views.values(), *lookups.values()) for view, _ in by_type]
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in names}
        self._at: dict[str, list[int]] = {name: [] for name in names}
        self._resources: list[tuple[str, str | None, int, int, int]] = []
        self._aliases: list[tuple[str, str, int]] = []

    def mark(self) -> Mark:
        """Where the turn stands, so that it can go back there."""
        found: list[list[Any]] = [*self._rows.values(), *self._at.values()]
        found += [self._resources, self._aliases, self.out.consents, self.out.bad]
        return self.out.records, self.out.types.copy(), [(each, len(each)) for each in found]

    def back_to(self, mark: Mark) -> None:
        """Forget all that came after the mark."""
        self.out.records, self.out.types, lists = mark
        for each, size in lists:
            del each[size:]

    def refuse(self, reason: str, *, line: int, offset: int) -> None:
        """Leave a record out."""
        self.out.records += 1
        self.out.bad.append(BadRecord(file=self.file, line=line, offset=offset, reason=reason))

    def pass_over(self, kind: str) -> None:
        """Count a resource that no view wants."""
        self.out.records += 1
        self.out.types[kind] += 1

    def take(
        self, resource: dict[str, Any], kind: str, full_url: str | None, *, line: int, offset: int, target: bool
    ) -> None:
        """Run the views on a resource, and keep its rows and names."""
        at = len(self._resources)
        made = []
        for view, compiled in (*self._views.get(kind, ()), *self._lookups.get(kind, ())):
            try:
                made.append((view.name, list(compiled.rows(resource))))
            except VIEW_ERRORS:
                self.refuse(f"does not fit the view {view.name!r}", line=line, offset=offset)
                return
        self.pass_over(kind)
        name = name_of(resource, kind, full_url)
        for name_of_view, rows in made:
            self._rows[name_of_view].extend(rows)
            self._at[name_of_view].extend([at] * len(rows))
        self._resources.append((kind, name, self.file, line, offset))
        if target:
            self._aliases.extend((alias, kind, at) for alias in _aliases(resource, kind, name, full_url))
        contained = resource.get("contained")
        if contained and name is not None:
            self._take_contained(contained, name, line=line, offset=offset)

    def _take_contained(self, contained: list[Any], owner: str, *, line: int, offset: int) -> None:
        """Rows of contained resources that others look up, under their owner's name."""
        for inner in contained:
            kind = inner.get("resourceType")
            if not isinstance(kind, str) or kind not in self._lookups or not isinstance(inner.get("id"), str):
                continue
            try:
                made = [(view.name, list(compiled.rows(inner))) for view, compiled in self._lookups[kind]]
            except VIEW_ERRORS:
                continue
            at = len(self._resources)
            alias = f"{owner}#{inner['id']}"
            self._resources.append((kind, alias, self.file, line, offset))
            self._aliases.append((alias, kind, at))
            for view, rows in made:
                self._rows[view].extend(rows)
                self._at[view].extend([at] * len(rows))

    def finish(self) -> Extracted:
        """The rows as frames."""
        out, wrong = self.out, dict[int, str]()
        out.numbers = len(self._resources)
        made = {
            view.name: (view, list(zip(*self._rows[view.name], strict=True)))
            for by_type in (*self._views.values(), *self._lookups.values())
            for view, _ in by_type
            if self._rows[view.name]
        }
        references = self._references(made.values())
        out.tables = {name: self._frame(view, cells, references, wrong) for name, (view, cells) in made.items()}
        out.resources = self._resources_frame()
        if wrong:
            self._take_back(wrong)
        aliases = [alias for alias in self._aliases if alias[2] not in wrong]
        out.aliases = aliases_of(aliases, secret=self._secret)
        return out

    def _resources_frame(self) -> pl.DataFrame:
        kind, name, file, line, offset = zip(*self._resources, strict=True) if self._resources else ((),) * 5
        names = pl.Series("name", name, dtype=pl.String)
        return pl.DataFrame(
            [
                pl.Series("_r", range(len(kind)), dtype=pl.UInt64),
                pl.Series("type", kind, dtype=pl.String),
                names,
                names.hash(seed=self._secret).set(names.str.contains("#", literal=True), None).alias("hash"),
                pl.Series("file", file, dtype=pl.UInt32),
                pl.Series("line", line, dtype=pl.UInt32),
                pl.Series("offset", offset, dtype=pl.UInt64),
            ]
        )

    def _references(self, made: Iterable[tuple[TableView, list[tuple[Any, ...]]]]) -> _References:
        """All references of the piece, each once."""
        distinct: set[Any] = set()
        for view, cells in made:
            for column in view.with_role(*REFERENCES):
                distinct.update(cells[column.place])
        distinct.discard(None)
        places = dict(zip(distinct, range(len(distinct)), strict=True))
        found = read_references(places, secret=self._secret)
        self.out.searched |= bool(found["search"].any())
        self.out.absolute |= found["id"].null_count() < found.height
        return _References({None: None, **places}, found)

    def _frame(
        self, view: TableView, cells: list[tuple[Any, ...]], references: _References, wrong: dict[int, str]
    ) -> pl.DataFrame:
        at = self._at[view.name]
        made = [pl.Series("_r", at, dtype=pl.UInt64)]
        for column in view.columns:
            if column.role in REFERENCES:
                made += references.columns(column, cells[column.place])
            else:
                dtype = dtype_of_fhir(column.type)
                made.append(column_of(column.name, cells[column.place], dtype, at=at, wrong=wrong))
        frame = pl.DataFrame(made)
        if self.longest > MOST_BYTES_OF_TEXT and longest_text(frame) > MOST_BYTES_OF_TEXT:
            for series in made:
                wrong.update(too_long(series, at=at) if series.dtype == pl.String else {})
        return frame

    def _take_back(self, wrong: dict[int, str]) -> None:
        """Leave out resources of which a cell had the wrong type after all."""
        gone = pl.Series(list(wrong), dtype=pl.UInt64).implode()
        for at, reason in sorted(wrong.items()):
            kind, name, file, line, offset = self._resources[at]
            if name is not None and "#" in name:  # a contained resource: its owner counts, and stays
                continue
            self.out.types[kind] -= 1
            self.out.bad.append(BadRecord(file=file, line=line, offset=offset, reason=reason))
        self.out.tables = {name: frame.filter(~pl.col("_r").is_in(gone)) for name, frame in self.out.tables.items()}
        self.out.resources = self.out.resources.filter(~pl.col("_r").is_in(gone))


def name_of(resource: dict[str, Any], kind: str, full_url: str | None) -> str | None:
    """Type and id of a resource; where it has none, the address that its bundle gives it."""
    given = resource.get("id")
    return f"{kind}/{given}" if given else full_url


def _aliases(resource: dict[str, Any], kind: str, name: str | None, full_url: str | None) -> set[str]:
    """All the names that a reference may call a resource by."""
    names = {each for each in (name, full_url) if each is not None}
    for identifier in resource.get("identifier") or ():
        value, system = identifier.get("value"), identifier.get("system")
        if isinstance(value, str) and value:
            names.add(f"{kind}?identifier={value}")
            if isinstance(system, str):
                names.add(f"{kind}?identifier={system}|{value}")
            else:
                names.add(f"{kind}?identifier=|{value}")
    return names
