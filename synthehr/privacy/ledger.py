"""The ledger: what all releases of one population have cost together, kept in a file that outlives every process.

A fit **reserves** its (epsilon, delta) before it touches a row and **settles** afterwards. What does not fit is
refused. A reservation that was never settled (the process was killed, the machine went down, the fit failed) counts
in full for ever: nobody can know what it used. There is no entry that gives budget back by hand.

The file is SQLite in WAL mode with ``synchronous=FULL``: an entry is on disk before ``reserve`` returns, and a kill
at any moment leaves it whole or absent. Writers exclude each other (``BEGIN IMMEDIATE``), so that of two that race
for the last budget one is refused. Triggers refuse to change or delete an entry, and the chain of hashes
(:mod:`synthehr.privacy.chain`) shows it where someone did so nevertheless. The chain is checked at each use.

What the chain cannot show by itself: that its *last* entries were cut off, that the whole file was replaced by an
older copy, or that someone wrote all entries anew with new hashes. Whoever answers for the ledger notes its head (the
last hash) somewhere else; ``verify(head=...)`` then shows that the noted entry, and so all before it, still stands.

The file is its owner's alone (mode 0600), keeps no count of patients and nothing read from a record, and must not be
on a network file system, where SQLite's locks do not hold. Copy it with ``sqlite3 FILE '.backup COPY'``; a copy that
is spent from is a second budget, which nothing here can see.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from synthehr.errors import ConfigError, DataError, InternalError
from synthehr.privacy.accountant import EpsilonDelta, Event, epsilon_of
from synthehr.privacy.budget import Budget
from synthehr.privacy.chain import (
    GENESIS,
    Amount,
    Link,
    Opening,
    Reserve,
    Settle,
    Standing,
    link_after,
    plain,
    replay,
    said,
)

__all__ = ["Ledger", "Reservation"]

_APPLICATION: Final = 0x73796C31  # "syl1"
_PATIENCE_SECONDS: Final = 60.0
_ROUNDING: Final = Decimal("1e-9")
_GUARD: Final = "CREATE TRIGGER {} BEFORE {} ON entry BEGIN SELECT RAISE(ABORT, 'entries of a ledger {}'); END"
_TABLE: Final = (
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, previous TEXT NOT NULL, content TEXT NOT NULL, hash TEXT NOT NULL)",
    _GUARD.format("entries_are_not_changed", "UPDATE", "are not changed"),
    _GUARD.format("entries_are_not_deleted", "DELETE", "are not deleted"),
    "CREATE TRIGGER entries_follow_the_last BEFORE INSERT ON entry "  # noqa: S608 - constants alone
    "WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entry) "
    f"OR NEW.previous IS NOT coalesce((SELECT hash FROM entry ORDER BY seq DESC LIMIT 1), '{GENESIS}') "
    "BEGIN SELECT RAISE(ABORT, 'entries of a ledger follow the last one'); END",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Budget set aside for one fit, under the number of its entry."""

    ledger: Ledger
    seq: int
    budget: Budget
    by: str
    why: str

    def settle(self, events: Sequence[Event], release_digest: str | None) -> None:
        """Write down what was done with the budget. Called once, before the release is saved.

        A release is charged what its label promises: all that was reserved. Where no release was made because the
        fit *refused* (a public setting, or a rule on what it had bought), it is charged the events alone: what was
        booked before rows were touched. After any other failure do not settle: the reservation then stays.

        Args:
            events: all events on the fit's account. What pure events say may decide over the others.
            release_digest: of the release that was made, or None where the fit refused to make one.

        Raises:
            InternalError: the events cost more than was reserved, or it was settled before.
            DataError: the ledger was tampered with or cannot be written.
        """
        reserved = Amount.of(self.budget)
        cost = _cost(events, delta=self.budget.delta)
        if cost.epsilon > reserved.epsilon + reserved.epsilon * _ROUNDING or cost.delta > reserved.delta:
            raise InternalError(
                f"a fit that reserved epsilon {plain(reserved.epsilon)} spent {plain(cost.epsilon)}: "
                "it stays reserved in full, and nothing must be released"
            )
        if release_digest is not None or not cost.within(reserved):
            cost = reserved
        with self.ledger._adding() as (standing, add):
            if self.seq not in standing.unsettled:
                raise InternalError(f"reservation {self.seq} of the ledger is not open: it was settled before")
            add(
                Settle(
                    seq=len(standing.entries) + 1,
                    **_signed(self.by, self.why),
                    reservation=self.seq,
                    epsilon=cost.epsilon,
                    delta=cost.delta,
                    release=release_digest,
                    events=tuple(events),
                )
            )


class Ledger:
    """The account of one population, in a file. Every call opens it, checks it whole and closes it.

    Attributes:
        path: of the SQLite file.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def open(cls, path: str | Path, *, population: str, budget: Budget, by: str, why: str) -> Ledger:
        """Make a new ledger.

        Args:
            path: of the file; it must not exist.
            population: names the patients. All extracts of the same patients must spend from the same ledger.
            budget: what all their releases may cost together.
            by: who signs it off.
            why: what it is for.

        Raises:
            ConfigError: the file exists or cannot be made, or a text is not one line.
        """
        ledger, amount = cls(path), Amount.of(budget)
        opening = Opening(
            seq=1,
            **_signed(by, why),
            population=said(population, what="the population's id"),
            epsilon=amount.epsilon,
            delta=amount.delta,
        )
        try:
            os.close(os.open(ledger.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError as error:
            raise ConfigError(f"ledger {str(path)!r} exists: choose another path, or spend from it") from error
        except OSError as error:
            raise ConfigError(f"ledger {str(path)!r} cannot be made: its parent must be a folder you own") from error
        with ledger._connected() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            with _transaction(connection):
                for statement in _TABLE:
                    connection.execute(statement)
                _insert(connection, link_after(GENESIS, opening))
        folder = os.open(ledger.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return ledger

    @classmethod
    def at(cls, path: str | Path, *, population: str | None = None) -> Ledger:
        """The ledger in an existing file.

        Args:
            path: of the file.
            population: the patients at hand; refused where the ledger is of others.

        Raises:
            DataError: there is none, or it was tampered with.
            ConfigError: it belongs to another population.
        """
        ledger = cls(path)
        owner = ledger.standing().opening.population
        if population is not None and population != owner:
            raise ConfigError(f"ledger {str(path)!r} is of population {owner!r}, not {population!r}")
        return ledger

    def standing(self) -> Standing:
        """All entries, checked and added up.

        Raises:
            DataError: the file is missing, is no ledger, or was tampered with.
        """
        with self._connected() as connection, _transaction(connection, writes=False):
            return self._replayed(connection)

    def remaining(self) -> Amount:
        """What may still be reserved.

        Raises:
            DataError: the ledger was tampered with.
        """
        return self.standing().remaining

    def check(self, budget: Budget) -> None:
        """Refuse early what would not fit now. Only :meth:`reserve` holds it.

        Raises:
            BudgetExceededError: it does not fit.
            DataError: the ledger was tampered with.
        """
        self.standing().check(Amount.of(budget))

    def reserve(self, budget: Budget, *, by: str, why: str, what: Mapping[str, str]) -> Reservation:
        """Set budget aside. It is on disk when this returns; only then may a row be touched.

        Args:
            budget: the most that will be spent.
            by: who signs it off.
            why: what the release is for.
            what: what is to be run, for example its model and policy. Nothing private.

        Raises:
            BudgetExceededError: more is wanted than remains.
            ConfigError: a text is not one line.
            DataError: the ledger was tampered with or cannot be written.
        """
        amount = Amount.of(budget)
        told = {said(key, what="a key of what is run"): said(value, what=key) for key, value in what.items()}
        signed = _signed(by, why)
        with self._adding() as (standing, add):
            standing.check(amount)
            seq = len(standing.entries) + 1
            add(Reserve(seq=seq, **signed, epsilon=amount.epsilon, delta=amount.delta, what=told))
        return Reservation(ledger=self, seq=seq, budget=budget, by=by, why=why)

    def of_fit(self, fit: str) -> Reservation | Settle | None:
        """What this ledger knows of a fit that wrote its name into ``what``: open, settled, or nothing.

        Raises:
            DataError: the ledger was tampered with.
        """
        standing = self.standing()
        for entry in standing.entries:
            if isinstance(entry, Reserve) and entry.what.get("fit") == fit:
                if entry.seq in standing.unsettled:
                    budget = Budget(epsilon=float(entry.epsilon), delta=float(entry.delta))
                    return Reservation(ledger=self, seq=entry.seq, budget=budget, by=entry.by, why=entry.why)
                return next(e for e in standing.entries if isinstance(e, Settle) and e.reservation == entry.seq)
        return None

    def verify(self, *, head: str | None = None) -> Standing:
        """Check the file, its triggers, every hash and every sum.

        Args:
            head: a head that was noted earlier; it must still be in the chain.

        Raises:
            DataError: something does not hold; the message says where.
        """
        with self._connected() as connection, _transaction(connection, writes=False):
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise self._broken("the file itself is damaged")
            standing = self._replayed(connection)
        if head is not None and head.strip().lower() not in standing.hashes:
            raise self._broken("the noted head is not in it, so entries were cut off or written anew since")
        return standing

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise DataError(f"ledger {str(self.path)!r} is not there: open one with synthehr ledger open")
        if self.path.stat().st_nlink != 1:
            raise self._broken("the file has a second name (hard link), under which it could be spent twice")
        uri = f"{self.path.resolve().as_uri()}?mode=rw"
        try:
            connection = sqlite3.connect(uri, uri=True, timeout=_PATIENCE_SECONDS, isolation_level=None)
            try:
                for setting in ("synchronous = FULL", "fullfsync = ON", "trusted_schema = OFF"):
                    connection.execute(f"PRAGMA {setting}")
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise DataError(
                f"ledger {str(self.path)!r} cannot be used ({error}): it must be a ledger file, in a folder where you "
                "may write"
            ) from error

    @contextmanager
    def _adding(self) -> Iterator[tuple[Standing, _Add]]:
        """The standing, and the way to add one entry to it, while no other process can."""
        with self._connected() as connection, _transaction(connection):
            standing = self._replayed(connection)
            yield standing, _Add(connection, standing.head)

    def _replayed(self, connection: sqlite3.Connection) -> Standing:
        settings = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "journal_mode")]
        found = connection.execute(_OBJECTS).fetchall()
        if not found:
            raise self._broken("it holds no entries; if its opening was interrupted, remove the file")
        if settings != [_APPLICATION, "wal"] or found != _expected_objects():
            raise self._broken("its table or the triggers that guard it are not those of a ledger")
        rows = connection.execute("SELECT seq, previous, content, hash FROM entry ORDER BY seq").fetchall()
        for row in rows:
            if [type(cell) for cell in row] != [int, str, str, str]:
                raise self._broken("an entry holds something else than text")
        try:
            return replay(Link(seq=row[0], previous=row[1], content=row[2], hash=row[3]) for row in rows)
        except DataError as error:
            raise self._broken(str(error)) from error

    def _broken(self, what: str) -> DataError:
        return DataError(f"ledger {str(self.path)!r} does not hold: {what}. Spend from it no more; ask who keeps it")


class _Add:
    """Adds one entry to the chain, inside the transaction that read its head."""

    __slots__ = ("_connection", "_head")

    def __init__(self, connection: sqlite3.Connection, head: str) -> None:
        self._connection, self._head = connection, head

    def __call__(self, entry: Reserve | Settle) -> None:
        _insert(self._connection, link_after(self._head, entry))


_OBJECTS: Final = "SELECT type, name, sql FROM sqlite_master ORDER BY name"


@cache
def _expected_objects() -> list[tuple[str, str, str]]:
    connection = sqlite3.connect(":memory:")
    try:
        for statement in _TABLE:
            connection.execute(statement)
        return connection.execute(_OBJECTS).fetchall()
    finally:
        connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection, *, writes: bool = True) -> Iterator[None]:
    """All or nothing; where it ``writes``, no other process writes between its reading and its writing."""
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, link: Link) -> None:
    values = (link.seq, link.previous, link.content, link.hash)
    connection.execute("INSERT INTO entry (seq, previous, content, hash) VALUES (?, ?, ?, ?)", values)


def _signed(by: str, why: str) -> dict[str, str]:
    return {
        "by": said(by, what="the name that signs off"),
        "why": said(why, what="the purpose"),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": f"synthehr {version('synthehr')}",
    }


def _cost(events: Sequence[Event], *, delta: float) -> Amount:
    """What events cost where those that are pure came first and may have decided over the others.

    The pure ones add up; the others, whose parameters are fixed once the pure ones are known, compose as
    privacy-loss distributions at ``delta``. Rounded up.
    """
    pure = [event for event in events if isinstance(event, EpsilonDelta) and event.delta == 0.0]
    others = [event for event in events if event not in pure]
    first = sum((Decimal(repr(event.epsilon)) * event.count for event in pure), Decimal(0))
    then = epsilon_of(others, delta=delta) if others else 0.0
    if math.isinf(then):
        raise InternalError("the events of a fit cost more than its delta allows; nothing must be released")
    return Amount(epsilon=first + Decimal(repr(then)), delta=Decimal(repr(delta)) if others else Decimal(0))
