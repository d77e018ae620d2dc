"""What the draft of a schema says of one column, and why: a guess for a person to review."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from synthehr.schema.ages import says_age, words_of
from synthehr.schema.identifiers import identifier_by_name, identifier_by_pattern, quasi_identifier
from synthehr.schema.profile import Profile

__all__ = ["Guess", "Guesser", "guess_outcome", "is_birth", "unit_of"]

_MOST_VALUES = 200
_FEW = 5
_QUESTION = "'?' seems to stand for missing, but is no missing value here: empty those cells"
_NOTES = frozenset(("note", "notes", "comment", "comments", "remark", "remarks", "narrative", "freetext", "report"))
_MONEY = frozenset(
    ("cost", "charge", "charges", "amount", "income", "expense", "expenses", "price", "revenue", "total")
)
_LEAST_CODE = 100_000  # whole numbers that are all larger seem to be codes of a terminology
_TELLING = 5  # letters of a word that tells a unit within a longer name
_DAYS_OF_A_LIFE = (-400, 45_000)
_UNITS: Mapping[str, str] = {
    "kg": "weight wt weightkg bodyweight",
    "cm": "height ht heightcm bodyheight waist",
    "kg/m2": "bmi",
    "mm[Hg]": "sbp dbp sysbp diabp systolic diastolic meanbp map bloodpressure",
    "/min": "heartrate heartrte hr hrt pulse resp rr respiratoryrate resprate",
    "Cel": "temp temperature",
    "%": "spo2 hba1c hematocrit",
    "mg/dL": "glucose cholesterol totchol chol hdl hdlc ldl ldlc triglycerides creatinine crea bilirubin bili bun",
    "g/dL": "albumin alb hemoglobin hgb",
    "mmol/L": "sodium sod potassium chloride bicarbonate lactate",
    "10*3/uL": "wbc wblc platelet platelets plt",
}
_TIME_WORDS: Mapping[str, str] = {
    "d": "day days futime los slos dnrday hday",
    "h": "hour hours hrs",
    "min": "minute minutes mins",
    "mo": "month months",
    "a": "year years",
}
_COUNTED = frozenset(("count", "num", "number", "n", "visits", "days", "day", "time", "total", "score", "age", "dose"))
_CODED = frozenset(("id", "code", "type", "class", "category", "group", "grp", "status", "level", "stage", "period"))
_BIRTH = frozenset(("birthdate", "dob", "dateofbirth", "birthday", "birthdatetime", "dateborn", "born", "birth"))
_OUTCOMES = (
    *("outcome", "died", "death", "dead", "deceased", "expired", "mortality", "hospitalexpireflag", "hospdead"),
    *("deathflag", "deathevent", "readmitted", "readmission", "target", "label"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One column of a draft.

    Attributes:
        entry: what the schema says of it.
        why: the reason, in words for the person who reviews it; no value of a record.
    """

    entry: Mapping[str, Any]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesser:
    """Guesses of the columns of one table.

    Attributes:
        least: patients who must hold a value before it is named.
        owners: the patient of each row, shape ``(rows,)``.
        root: is it the patients' table?
        alone: is it the only table?
        today: from which the year of ages is taken.
        anchored: is there a birth that offsets count from?
        others: the other columns of the table, for those that say the same twice.
    """

    least: int
    owners: pl.Series
    root: bool
    alone: bool
    today: dt.date
    anchored: bool
    others: Mapping[str, Profile] = field(default_factory=dict)

    def of(self, column: Profile) -> Guess:
        """What the draft says of a column that is no key."""
        if column.form in ("date", "datetime"):
            return self._time(column)
        why = _why_dropped(column)
        if why is not None:
            return Guess(entry={"kind": "text" if column.form == "empty" else "identifier"}, why=f"{why}: dropped")
        if column.form == "text":
            return self._text(column)
        if column.form == "boolean":
            return self._with(column, {"kind": "boolean"}, "two values, true and false")
        return self._number(column)

    def _with(self, column: Profile, entry: Mapping[str, Any], why: str) -> Guess:
        nullable = {"nullable": True} if column.missing else {}
        quasi = quasi_identifier(column.name)
        known = [f"quasi-identifier ({quasi})"] if quasi is not None else []
        return Guess(entry={**entry, **nullable}, why="; ".join([*known, why] if why else known))

    def _time(self, column: Profile) -> Guess:
        if self.root and is_birth(column):
            if self.alone:
                at = self.today.replace(month=1, day=1).isoformat()
                entry = {"kind": "age", "at": at, "bounds": [0, 120]}
                return self._with(column, entry, "date of birth, by its name: read as the age on that day")
            return Guess(entry={"kind": "anchor"}, why="date of birth, by its name: all times count from it; dropped")
        low, high = _DAYS_OF_A_LIFE if self.anchored else (0, _DAYS_OF_A_LIFE[1])
        from_what = "birth" if self.anchored else "the patient's first date"
        if column.form == "date":
            entry = {"kind": "offset", "bounds": [low, high]}
            return self._with(column, entry, f"dates: read as days since {from_what}")
        entry = {"kind": "offset", "of": "datetime", "unit": "h", "bounds": [low * 24, high * 24]}
        return self._with(column, entry, f"times: read as hours since {from_what}")

    def _number(self, column: Profile) -> Guess:
        words = set(words_of(column.name))
        coded = _is_code(column) and not words & _COUNTED
        few = column.distinct <= _FEW and not words & (_COUNTED | _MONEY) and len(column.texts) >= 20 * column.distinct
        if coded or (column.form == "integer" and few):
            return self._category(
                column, "whole numbers, taken for codes" if coded else "few whole numbers, taken for codes"
            )
        bounds = [0, 120] if says_age(column.name) and _within(column, 0, 120) else [*(column.bounds or ())]
        unit = unit_of(column.name)
        entry: dict[str, Any] = {"kind": column.form, "bounds": _plain(bounds, whole=column.form == "integer")}
        if unit is not None:
            entry["unit"] = unit
        if column.form == "number" and column.places is not None:
            entry["precision"] = round(10.0**-column.places, column.places)
        why = "bounds rounded outward" + ("; unit by its name" if unit is not None else "")
        if column.question_marks:
            why = f"{_QUESTION}; {why}"
        return self._with(column, entry, why)

    def _text(self, column: Profile) -> Guess:
        values = column.texts.drop_nulls()
        if set(words_of(column.name)) & _NOTES:
            return _dropped("text", "free text, by its name")
        twin = self._twin(column)
        if twin is not None:
            return _dropped("text", f"says the same as {twin!r}")
        holders = self._holders(column)
        common = holders.filter(pl.col("patients") >= self.least)
        if len(values) >= 20 and common.height <= 1 and column.distinct > 0.5 * len(values):
            return _dropped("text", "nearly every row has its own: free text or an identifier")
        if _is_prose(values):
            return _dropped("text", "free text, by its length")
        return self._category(column, "")

    def _category(self, column: Profile, why: str) -> Guess:
        holders = self._holders(column)
        common = holders.filter(pl.col("patients") >= self.least)["value"].sort().to_list()
        common = [value for value in common if value == value.strip()]  # polars leaves some blanks that Python takes
        also = [why] if why else []
        if column.question_marks:
            also.append(_QUESTION)
        if len(common) == holders.height <= _MOST_VALUES and not column.question_marks:
            return self._with(column, {"kind": "category", "values": common}, "; ".join(also))
        shown = ", ".join(map(str, common[:20])) + (", ..." if len(common) > 20 else "")
        also.append(
            f"values of fewer than {self.least} patients are not shown" + (f"; common: {shown}" if common else "")
        )
        return self._with(column, {"kind": "category", "discover": True}, "; ".join(also))

    def _holders(self, column: Profile) -> pl.DataFrame:
        """How many patients hold each value."""
        held = pl.DataFrame({"value": column.texts, "owner": self.owners}).drop_nulls("value")
        return held.group_by("value").agg(pl.col("owner").n_unique().alias("patients"))

    def _twin(self, column: Profile) -> str | None:
        """A code in another column that tells this column's value, where this one only describes it."""
        if not set(words_of(column.name)) & {"description", "display", "label", "name", "text", "title"}:
            return None
        own = words_of(column.name)
        for name, other in self.others.items():
            words = words_of(name)
            if name == column.name or "code" not in "".join(words) or other.form not in ("integer", "text"):
                continue
            same_stem = "".join(own).replace("description", "") == "".join(words).replace("code", "")
            pairs = pl.DataFrame({"code": other.texts, "text": column.texts})
            if same_stem and pairs.n_unique() <= 1.05 * other.texts.n_unique() + 1:
                return name
        return None


def is_birth(column: Profile) -> bool:
    """Whether a column holds dates of birth, by its name."""
    return column.form in ("date", "datetime") and "".join(words_of(column.name)) in _BIRTH


def unit_of(name: str) -> str | None:
    """The UCUM unit that a column's name suggests."""
    if says_age(name):
        return "a"
    words = words_of(name)
    joined = "".join(words)
    for unit, names in _UNITS.items():
        known = names.split()
        if joined in known or any(word in known and len(word) >= _TELLING for word in words):
            return unit
    last = words[-1] if words else ""
    return next((unit for unit, names in _TIME_WORDS.items() if last in names.split() and last not in ("year",)), None)


def guess_outcome(
    columns: Mapping[str, Profile], *, table: str, learned: Mapping[str, Guess], last_too: bool
) -> str | None:
    """The column that a study of the table would predict: named so, as the table, or with ``last_too`` the last."""
    fit = {
        "".join(words_of(name)): name
        for name, guess in learned.items()
        if guess.entry["kind"] in ("boolean", "category") and columns[name].distinct <= 2 * _FEW
    }
    for name in (*_OUTCOMES, "".join(words_of(table)), "status", "event"):
        if name in fit:
            return fit[name]
    last = list(columns)[-1] if columns and last_too else None
    return last if last in fit.values() and last is not None and quasi_identifier(last) is None else None


def _why_dropped(column: Profile) -> str | None:
    """Why a column is never read: it cannot be, holds nothing, or identifies by its name or its values."""
    if column.form == "nested":
        return "nested or binary values, which no kind can hold"
    if column.form == "empty":
        return "no values"
    if column.row_number:
        return "a count of the rows"
    named = identifier_by_name(column.name)
    if named is not None:
        return f"{named}, by its name"
    pattern = identifier_by_pattern(column.texts.drop_nulls()) if column.form in ("integer", "text") else None
    return None if pattern is None else f"most values look like {pattern}"


def _dropped(kind: str, why: str) -> Guess:
    return Guess(entry={"kind": kind}, why=f"{why}: dropped")


def _within(column: Profile, low: float, high: float) -> bool:
    return column.bounds is not None and column.bounds[0] >= low and column.bounds[1] <= high + 10


def _plain(bounds: list[float], *, whole: bool) -> list[float]:
    return [int(b) if whole or float(b).is_integer() else b for b in bounds]


def _is_code(column: Profile) -> bool:
    """Whether whole numbers seem to name things rather than count or measure them."""
    words = words_of(column.name)
    whole = column.texts.drop_nulls()
    if not whole.str.contains(r"^\d+$").all():
        return False
    if (set(words) & _CODED and column.distinct <= _MOST_VALUES) or "".join(words).endswith(("code", "id")):
        return True
    return not set(words) & _MONEY and float(whole.cast(pl.Float64).min() or 0) >= _LEAST_CODE  # type: ignore[arg-type]


def _is_prose(values: pl.Series) -> bool:
    """Long texts of several words, mostly their own."""
    length = values.str.len_chars().mean()
    return isinstance(length, float) and length > 60 and values.n_unique() > 0.2 * len(values)
