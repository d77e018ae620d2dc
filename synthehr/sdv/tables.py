"""Tables as SDV's users hold them: pandas in and out, in the types and the form in which they were given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from synthehr.errors import ConfigError, DataError
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    Column,
    DateColumn,
    DatetimeColumn,
    DroppedColumn,
    NumberColumn,
    Schema,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Form", "Tables", "readable", "the_table"]

Tables: TypeAlias = "pd.DataFrame | dict[str, pd.DataFrame]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How records were given.

    Attributes:
        as_frame: as a DataFrame, not in a dict by name.
        types: type of each column.
        formats: of dates that were written as text, by column.
    """

    as_frame: bool = False
    types: Mapping[str, Any] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)

    def give(self, frame: pd.DataFrame, *, schema: Schema) -> Tables:
        """The table in this form; what the schema holds as text is in the types that the records had."""
        for name, column in schema.root.kept.items():
            if name in self.formats:
                frame[name] = frame[name].dt.strftime(self.formats[name])
            elif name in self.types:
                frame[name] = _as_it_was(frame[name], column=column, was=self.types[name])
        return frame if self.as_frame else {schema.subject: frame}

    def condition(self, name: str, value: Any, *, schema: Schema) -> str:
        """That a column has this value, in the language of conditions.

        Raises:
            ConfigError: the column is not learned, or the value is none of its kind.
        """
        column = schema.root.kept.get(name)
        if column is None:
            raise ConfigError(f"a condition names {name!r}, which is no column that was learned")
        literal = _literal(value, column=column, name=name, form=self.formats.get(name))
        quoted = '"' + name.replace('"', '""') + '"'
        return f"{quoted} is null" if literal is None else f"{quoted} = {literal}"


def the_table(data: object, *, name: str) -> tuple[pd.DataFrame, bool]:
    """The one table of ``data``, with its columns named by text, and whether it was given as a DataFrame.

    Raises:
        ConfigError: ``data`` is neither a DataFrame nor a dict with this table alone.
        DataError: two columns have one name.
    """
    import pandas as pd

    frame = data
    if isinstance(data, Mapping):
        if list(data) != [name]:
            raise ConfigError(f"data must hold the table {name!r}, as the metadata has it, and no other")
        frame = data[name]
    if not isinstance(frame, pd.DataFrame):
        raise ConfigError(f"data must be a pandas DataFrame, or one by name, not {type(frame).__name__}")
    frame = frame.rename(columns=str)
    if frame.columns.duplicated().any():
        raise DataError(f"table {name!r} has two columns of one name: name each once")
    return frame, not isinstance(data, Mapping)


def readable(
    frame: pd.DataFrame, *, entries: Mapping[str, Mapping[str, Any]], schema: Schema
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table with mixed columns as plain text and written dates as dates; and the formats of those dates.

    Raises:
        DataError: a date is not written in the format of the metadata.
    """
    import pandas as pd

    made, formats = frame.copy(deep=False), {}
    for name, column in schema.root.columns.items():
        if name not in frame or isinstance(column, DroppedColumn) or not pd.api.types.is_object_dtype(frame[name]):
            continue
        form = entries[name].get("datetime_format")
        if isinstance(column, DateColumn | DatetimeColumn) and form is not None:
            moments = pd.to_datetime(frame[name], format=form, errors="coerce")
            if (moments.isna() & frame[name].notna()).any():
                raise DataError(
                    f"column {name!r} in table {schema.subject!r} is not written as its datetime_format says: "
                    "correct the records or the metadata"
                )
            made[name], formats[name] = moments, form
        else:
            made[name] = [_text(value) for value in frame[name]]
    return made, formats


def _as_it_was(series: pd.Series[Any], *, column: Column, was: Any) -> pd.Series[Any]:
    """The column in the type that the records had, where all its values can be of that type."""
    import pandas as pd

    if isinstance(column, NumberColumn) and pd.api.types.is_integer_dtype(was):
        whole = series.round()
        return whole if whole.isna().any() else whole.astype("int64")
    if not isinstance(column, CategoryColumn):
        return series
    if isinstance(was, pd.CategoricalDtype):  # with the categories drawn: those of the records are not public
        return series.astype("category")
    if pd.api.types.is_bool_dtype(was):
        truth = series.str.lower().map({"true": True, "false": False})
        return truth.astype(bool) if not truth.isna().any() else series
    if pd.api.types.is_numeric_dtype(was):
        numbers = pd.to_numeric(series, errors="coerce")
        return numbers if numbers.isna().sum() == series.isna().sum() else series  # OTHER is no number
    return series


def _text(value: Any) -> str | None:
    """A value of a mixed column as text, a missing one as none: pyarrow would quote what it cannot bring together."""
    import pandas as pd

    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if pd.api.types.is_bool(value):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _literal(value: Any, *, column: Column, name: str, form: str | None) -> str | None:
    """The value in the language of conditions; None for a missing one."""
    import pandas as pd

    text = _text(value)
    if text is None:
        return None
    if isinstance(column, CategoryColumn):
        return "'" + text.replace("'", "''") + "'"
    if isinstance(column, BooleanColumn) and text.lower() in {"true", "false"}:
        return text.lower()
    try:
        if isinstance(column, DateColumn | DatetimeColumn):
            moment = pd.Timestamp(value) if form is None else pd.to_datetime(value, format=form)
            return f"date '{moment.date()}'" if isinstance(column, DateColumn) else f"timestamp '{moment}'"
        if not isinstance(column, BooleanColumn) and math.isfinite(float(value)):
            return repr(float(value))
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"a condition on column {name!r} has a value that is no {column.kind}")
