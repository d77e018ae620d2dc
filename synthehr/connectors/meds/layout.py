"""The tables that MEDS is read as and written from, and what their columns stand for."""

from __future__ import annotations

from dataclasses import dataclass

from synthehr._files import shipped
from synthehr.connectors.deidentify import MINUTES
from synthehr.errors import ConfigError
from synthehr.schema.files import load_schema
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    NumberColumn,
    OffsetColumn,
    Schema,
    is_learned,
)

__all__ = ["BORN", "DEATH", "EVENT", "MEDS", "SPLIT", "Layout", "counts_from_birth", "default_schema"]

MEDS = "meds"  # the format's name
EVENT, BORN, DEATH, SPLIT = "event", "born", "death", "split"
_CORE = ("time", "code", "numeric_value")


def default_schema() -> Schema:
    """The declared table set of ``schemas/meds``."""
    return load_schema(shipped("schemas/meds/schema.yaml"))


def counts_from_birth(schema: Schema) -> bool:
    """Whether times count from births that no column tells, as in tables that MEDS is read as.

    On a made-up calendar such times would be read again as if they counted from the patient's first event.
    """
    try:
        return Layout.of(schema).born
    except ConfigError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the columns of a schema stand for in MEDS.

    Attributes:
        subject: the root table.
        key: its key, MEDS's subject_id.
        foreign_key: the key's name in the event table.
        statics: columns of the root table by the beginning of the codes of static events that fill them.
        born: is there a column that tells whether the birth is known?
        split: is there a column of the subject's split?
        death_unit: minutes in a unit of the column of deaths; None where there is no such column.
        time_unit: minutes in a unit of the events' time.
        numeric: does the event table have numeric_value?
        further: columns of the event table beside MEDS's first four.
    """

    subject: str
    key: str
    foreign_key: str
    statics: dict[str, str]
    born: bool
    split: bool
    death_unit: int | None
    time_unit: int
    numeric: bool
    further: tuple[str, ...]

    @classmethod
    def of(cls, schema: Schema) -> Layout:
        """The layout of a schema.

        Raises:
            ConfigError: its tables are not such as MEDS has.
        """
        root, event = schema.root, schema.tables.get(EVENT)
        if event is None or root.key is None or event.parent != schema.subject or event.foreign_key is None:
            raise _unlike("a root table with a key, and a table event below it")
        if set(schema.tables) != {schema.subject, EVENT}:
            raise _unlike("no other tables")
        time, code, number = (event.columns.get(name) for name in _CORE)
        if not isinstance(time, OffsetColumn) or not isinstance(code, CategoryColumn):
            raise _unlike("in table event a column time of kind offset and a column code of kind code or category")
        if number is not None and (not isinstance(number, NumberColumn) or number.format is not None):
            raise _unlike("in table event numeric_value of kind number")
        statics, death = {}, root.columns.get(DEATH)
        for name, column in root.columns.items():
            if not is_learned(column) or name == DEATH:
                continue
            if name == BORN and isinstance(column, BooleanColumn):
                continue
            if not isinstance(column, CategoryColumn):
                raise _unlike(f"columns of {schema.subject} that are categories, beside born and death: not {name!r}")
            if name != SPLIT:
                statics[f"{name.upper()}//"] = name
        if death is not None and not isinstance(death, OffsetColumn):
            raise _unlike("death of kind offset")
        further = [n for n, c in event.columns.items() if n not in _CORE and is_learned(c)]
        for name in further:
            if isinstance(event.columns[name], OffsetColumn):
                raise _unlike(f"times in the column time alone, not in {name!r}")
        return cls(
            subject=schema.subject,
            key=root.key,
            foreign_key=event.foreign_key,
            statics=statics,
            born=BORN in root.kept,
            split=SPLIT in root.kept,
            death_unit=None if death is None else MINUTES[death.unit],
            time_unit=MINUTES[time.unit],
            numeric=number is not None,
            further=tuple(further),
        )


def _unlike(what: str) -> ConfigError:
    return ConfigError(f"MEDS needs tables like those of schemas/meds/schema.yaml: {what}")
