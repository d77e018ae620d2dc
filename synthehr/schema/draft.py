"""Draft a schema from records, for a person to review: every guess with its reason, none of it public until then."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import yaml

from synthehr.errors import DataError
from synthehr.schema.ages import words_of
from synthehr.schema.files import load_schema
from synthehr.schema.guesses import Guess, Guesser, guess_outcome, is_birth
from synthehr.schema.identifiers import quasi_identifier
from synthehr.schema.links import Link, Links, guess_links, patient_column
from synthehr.schema.model import Schema
from synthehr.schema.profile import Profile, profile

__all__ = ["EDITOR_LINE", "LEAST", "Draft", "draft_schema", "schema_text"]

LEAST = 11  # patients who must hold a value before a draft names it: the usual rule for small cells
EDITOR_LINE = "# yaml-language-server: $schema="
_ORDERS = ("start", "date", "time", "day", "charttime", "starttime", "admittime", "visit", "period", "seq", "sequence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A schema that nobody has reviewed.

    Attributes:
        schema: what it says.
        reasons: why, by table and column.
        notes: what is to be known of the whole.
    """

    schema: Schema
    reasons: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...]

    def text(self, *, editor_schema: str | None = None) -> str:
        """The draft as ``schema.yaml``, a comment for each guess.

        Args:
            editor_schema: where editors find the JSON Schema of the file.
        """
        return schema_text(
            self.schema, reasons=self.reasons, notes=self.notes, editor_schema=editor_schema, reviewed_line=True
        )


def draft_schema(tables: Mapping[str, pl.DataFrame], *, least: int = LEAST, today: dt.date | None = None) -> Draft:
    """Draft the schema of tables as they stand.

    No value of a patient goes into it but those of categories that at least ``least`` patients hold; bounds are rounded
    outward, and those of dates are of any life. What it tells of the records is private all the same until a person has
    reviewed it.

    Args:
        tables: by name, as text or in any types.
        least: patients who must hold a value before it is named.
        today: the day by whose year ages are taken; today.

    Raises:
        DataError: there is no table, no rows, no way to tell patients apart, or nothing to learn.
    """
    if not tables or not any(frame.height and frame.width for frame in tables.values()):
        raise DataError("there is nothing to draft a schema from: give tables with columns and rows")
    for name, frame in tables.items():
        for column in frame.columns:
            if column.startswith("^") and column.endswith("$"):  # polars would take it for a pattern of names
                raise DataError(f"column {column!r} in table {name!r} must not begin with ^ and end with $: rename it")
    today = today or dt.date.today()
    found = {name: {c: profile(frame[c]) for c in frame.columns} for name, frame in tables.items()}
    if len(found) == 1:
        name, columns = next(iter(found.items()))
        key = patient_column(columns)
        if key is not None and not columns[key].unique:
            return _long(name, columns, key=key, least=least, today=today)
        links = Links(root=name, tables={name: Link(key=key)}, left_out=())
        notes = (
            [] if key is not None else ["No column seems to tell patients apart: each row is taken for one patient."]
        )
        return _assembled(found, links, least=least, today=today, notes=notes, sources={})
    links_found = guess_links(found)
    if links_found is None:
        raise DataError(
            "no table seems to hold one row for each patient, with a key that the others name: "
            "draft from one file, or call that table patient"
        )
    notes = (
        [f"Tables that lead to no patient are left out: {', '.join(links_found.left_out)}."]
        if (links_found.left_out)
        else []
    )
    return _assembled(found, links_found, least=least, today=today, notes=notes, sources={})


def _long(name: str, columns: Mapping[str, Profile], *, key: str, least: int, today: dt.date) -> Draft:
    """A single table with several rows for each patient: what is the same in all of them is the patient's."""
    texts = pl.DataFrame([p.texts for p in columns.values()])
    varies = texts.group_by(key).agg(pl.exclude(key).n_unique()).select(pl.exclude(key).max()).row(0, named=True)
    of_patient = [c for c in columns if c != key and varies[c] == 1 and columns[c].form not in ("empty", "nested")]
    if not any(columns[c].distinct > 1 for c in of_patient):
        of_patient = of_patient[:1]
    firsts = texts.unique(key, keep="first", maintain_order=True)
    root = "patient" if name != "patient" else "person"
    below = name if name.isidentifier() else "row"
    tables = {
        root: {c: profile(firsts[c]) for c in (key, *of_patient)},
        below: {c: p for c, p in columns.items() if c == key or c not in of_patient},
    }
    tables[root] = {c: replace(p, form=columns[c].form, bounds=columns[c].bounds) for c, p in tables[root].items()}
    row_key = next((c for c, p in tables[below].items() if p.unique and words_of(c)[-1:] in (("id",), ("key",))), None)
    links = Links(
        root=root,
        tables={root: Link(key=key), below: Link(key=row_key, parent=root, foreign_key=key)},
        left_out=(),
    )
    notes = [
        f"{key!r} repeats, so that {name} holds several rows for each patient: columns that never change within a "
        f"patient are in {root!r}, the others in {below!r}."
    ]
    return _assembled(tables, links, least=least, today=today, notes=notes, sources=dict.fromkeys(tables, name))


def _assembled(
    tables: Mapping[str, Mapping[str, Profile]],
    links: Links,
    *,
    least: int,
    today: dt.date,
    notes: list[str],
    sources: Mapping[str, str],
) -> Draft:
    owners = _owners(tables, links)
    alone = len(links.tables) == 1
    births = [c for c, p in tables[links.root].items() if is_birth(p)]
    document: dict[str, Any] = {"synthehr": 1, "reviewed": False, "subject": links.root, "tables": {}}
    reasons: dict[str, dict[str, str]] = {}
    quasi: list[str] = []
    for name, link in links.tables.items():
        columns = tables[name]
        guesser = Guesser(
            least=least,
            owners=owners[name],
            root=name == links.root,
            alone=alone,
            today=today,
            anchored=bool(births),
            others=columns,
        )
        linked = {c for t, other in links.tables.items() for c in _keys_in(t, other, links) if t == name}
        guesses = {c: _key_guess(c, link) if c in linked else guesser.of(p) for c, p in columns.items()}
        if name == links.root:
            guesses = _one_birth(guesses)
        document["tables"][name] = _table(
            name, link, columns, guesses, root=name == links.root, alone=alone, sources=sources
        )
        reasons[name] = {c: g.why for c, g in guesses.items()}
        kept = {c for c, g in guesses.items() if g.entry["kind"] in ("category", "boolean", "integer", "number", "age")}
        quasi += [f"{name}.{c}" for c in columns if c in kept and quasi_identifier(c) is not None]
    if "outcome" not in document["tables"][links.root]:
        _outcome_below(document, tables, links)
    if quasi:
        notes = [*notes, f"Quasi-identifiers, known to others: {', '.join(quasi)}."]
    _learns_something(document, links.root)
    return Draft(schema=load_schema(document), reasons=reasons, notes=tuple(notes))


def _outcome_below(document: Mapping[str, Any], tables: Mapping[str, Mapping[str, Profile]], links: Links) -> None:
    """Where no column of the patients is named as an outcome, the first below that is."""
    for name in links.tables:
        entries = document["tables"][name]["columns"]
        learned = {c: Guess(entry=e, why="") for c, e in entries.items() if e["kind"] not in _NOT_LEARNED}
        outcome = guess_outcome(tables[name], table="", learned=learned, last_too=False)
        if outcome is not None:
            document["tables"][name]["outcome"] = outcome
            return


def _owners(tables: Mapping[str, Mapping[str, Profile]], links: Links) -> dict[str, pl.Series]:
    """For each row of each linked table what tells its patient."""
    owners: dict[str, pl.Series] = {}
    for name, link in links.tables.items():  # parents come first
        columns = tables[name]
        if link.parent is None or link.foreign_key is None:
            height = len(next(iter(columns.values())).texts)
            owners[name] = pl.int_range(height, eager=True)
            continue
        key = links.tables[link.parent].key
        assert key is not None, "a parent has a key"
        known = pl.DataFrame({"key": tables[link.parent][key].texts, "owner": owners[link.parent]}).unique("key")
        mine = pl.DataFrame({"key": columns[link.foreign_key].texts})
        owners[name] = mine.join(known, on="key", how="left", maintain_order="left")["owner"]
    return owners


def _keys_in(table: str, link: Link, links: Links) -> set[str]:
    """Columns of a table that link tables, its own key where another table points to it."""
    pointed = any(other.parent == table for other in links.tables.values()) or link.parent is None
    return {c for c in (link.key if pointed or link.key else None, link.foreign_key) if c is not None}


def _key_guess(column: str, link: Link) -> Guess:
    return Guess(entry={"kind": "id"}, why=f"key of {link.parent}" if column == link.foreign_key else "key")


def _one_birth(guesses: Mapping[str, Guess]) -> dict[str, Guess]:
    """The first column that anchors stays; another is dropped."""
    births = [name for name, guess in guesses.items() if guess.entry["kind"] in ("anchor", "age")]
    second = Guess(entry={"kind": "identifier"}, why="a second date of birth: dropped")
    return {name: second if name in births[1:] else guess for name, guess in guesses.items()}


def _table(
    name: str,
    link: Link,
    columns: Mapping[str, Profile],
    guesses: Mapping[str, Guess],
    *,
    root: bool,
    alone: bool,
    sources: Mapping[str, str],
) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if name in sources and sources[name] != name:
        table["source"] = sources[name]
    for option in ("key", "parent", "foreign_key"):
        value = getattr(link, option)
        if value is not None:
            table[option] = value
    learned = {c: g for c, g in guesses.items() if g.entry["kind"] not in _NOT_LEARNED}
    if root:
        outcome = guess_outcome(columns, table=name, learned=learned, last_too=alone)
        if outcome is not None:
            table["outcome"] = outcome
        groups = [c for c, g in learned.items() if g.entry["kind"] in ("category", "boolean") and _makes_groups(c)]
        if groups:
            table["groups"] = groups
    else:
        order = _order_by(learned)
        if order is not None:
            table["order_by"] = order
    table["columns"] = {c: dict(g.entry) for c, g in guesses.items()}
    return table


_NOT_LEARNED = ("id", "identifier", "text", "anchor", "consent")


def _makes_groups(name: str) -> bool:
    return quasi_identifier(name) in ("sex", "race or ethnicity")


def _order_by(learned: Mapping[str, Guess]) -> str | None:
    """The column that a patient's rows follow each other by: a time, or a number that is named as one."""
    times = [c for c, g in learned.items() if g.entry["kind"] == "offset"]
    numbers = [c for c, g in learned.items() if g.entry["kind"] in ("integer", "number")]
    for order in _ORDERS:
        for name in (*times, *numbers):
            if "".join(words_of(name)) == order:
                return name
    if times:
        return times[0]
    return next((c for c in numbers if words_of(c)[-1:] in (("day",), ("hour",), ("offset",))), None)


def _learns_something(document: Mapping[str, Any], root: str) -> None:
    if all(entry["kind"] in _NOT_LEARNED for entry in document["tables"][root]["columns"].values()):
        raise DataError(
            f"table {root!r} has no column to learn: all seem to be keys, identifiers or text; write its schema by hand"
        )


def schema_text(
    schema: Schema,
    *,
    reasons: Mapping[str, Mapping[str, str]] | None = None,
    notes: tuple[str, ...] = (),
    editor_schema: str | None = None,
    reviewed_line: bool = False,
) -> str:
    """A schema as ``schema.yaml``, one line a column, with a comment where there is a reason."""
    from synthehr.schema.files import dump_schema

    contents = dump_schema(schema)
    lines = [f"{EDITOR_LINE}{editor_schema}"] if editor_schema is not None else []
    if reviewed_line:
        lines += [
            "# A draft: synthehr looked at the records and guessed. It is private until a person has reviewed it.",
            "# Bounds and values that tell nothing of single patients may stay; widen or remove the others. Then set",
            "# reviewed: true. Until then fit takes none of them for public, and buys them from the budget.",
        ]
    lines += [f"# {_one_line(note)}" for note in notes]
    for key, value in contents.items():
        if key != "tables":
            lines.append(f"{key}: {_flow(value)}")
    lines.append("tables:")
    for name, table in contents["tables"].items():
        lines.append(f"  {_flow(name)}:")
        lines += [f"    {key}: {_flow(value)}" for key, value in table.items() if key != "columns"]
        lines.append("    columns:")
        entries = {c: f"      {_flow(c)}: {_flow(_kind_first(entry))}" for c, entry in table["columns"].items()}
        for column, line in entries.items():
            why = (reasons or {}).get(name, {}).get(column)
            lines.append(f"{line}  # {_one_line(why)}" if why else line)
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    """A comment: on one line, and without characters that YAML lets nowhere stand."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def _kind_first(entry: Mapping[str, Any]) -> dict[str, Any]:
    order = ("kind", "values", "discover", "of", "at", "bounds", "unit", "precision")
    ordered = {key: entry[key] for key in (*order, *(k for k in entry if k not in order)) if key in entry}
    if isinstance(ordered.get("bounds"), list):
        ordered["bounds"] = [int(b) if isinstance(b, float) and b.is_integer() else b for b in ordered["bounds"]]
    return ordered


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    return text.strip().removesuffix("...").strip()
