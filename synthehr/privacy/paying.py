"""How a fit pays from a ledger: reserve before the first touch of a row, settle once the release is made."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypedDict

from synthehr.errors import BudgetExceededError, ConfigError, InternalError
from synthehr.privacy.accountant import Account
from synthehr.privacy.budget import Budget
from synthehr.privacy.chain import Settle
from synthehr.privacy.ledger import Ledger

__all__ = ["NOT_STATED", "LedgerOptions", "Payer", "user_name"]

NOT_STATED: Final = "not stated"
_RESERVED: Final = "nothing was written; what the ledger reserved stays reserved"


class LedgerOptions(TypedDict, total=False):
    """Options of a fit that make a :class:`Payer`, under its names."""

    ledger: str | Path | None
    population: str | None
    by: str | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """The ledger that a fit spends from, and who signs for it. Without a ledger nothing is kept across fits.

    Attributes:
        ledger: its file.
        population: the patients at hand; refused where the ledger is of others.
        by: who signs off; the user's name where left out.
        why: what the release is for.

    Raises:
        ConfigError: the others are given without a ledger.
    """

    ledger: str | Path | None = None
    population: str | None = None
    by: str | None = None
    why: str | None = None

    def __post_init__(self) -> None:
        if self.ledger is None and any(part is not None for part in (self.population, self.by, self.why)):
            raise ConfigError("population, purpose and sign-off name are written into a ledger: give one with --ledger")

    def check(self, budget: Budget) -> None:
        """Refuse early what the ledger could not pay now, before any record is read.

        Raises:
            BudgetExceededError: it does not fit.
            ConfigError: the ledger is of another population.
            DataError: the ledger is missing or was tampered with.
        """
        if self.ledger is not None:
            Ledger.at(self.ledger, population=self.population).check(budget)

    @contextmanager
    def paying(self, account: Account, *, fit: str, what: Mapping[str, str]) -> Iterator[Callable[[str], None]]:
        """Run a fit inside: its budget is on disk as reserved before the fit begins.

        Yields what the fit calls with the release's digest, after the release is made and before it is saved, so
        that no release exists that was not settled. A fit that *refuses* (``BudgetExceededError`` or
        ``ConfigError``: what a public setting, or a rule on bought things, says) is charged the events on its
        account, each booked before its touch. Whatever else ends the fit, and a kill, leaves the reservation as it
        is: it counts in full.

        A fit that goes on after it was interrupted goes on with its own reservation. Where that is settled already
        (the interruption fell between settling and saving), it must make the very release that was settled. Where it is
        refused, the reservation stays in full: what an earlier process touched need not be on this account yet.

        Args:
            account: of the fit; the only one it spends from.
            fit: the fit's random name, by which a reservation is found again.
            what: what is run, for the ledger's readers.

        Raises:
            BudgetExceededError: the ledger cannot pay.
            ConfigError: the ledger is of another population, or the fit was refused and charged before.
            DataError: the ledger is missing or was tampered with.
        """
        if self.ledger is None:
            yield lambda _digest: None
            return
        ledger = Ledger.at(self.ledger, population=self.population)
        known = ledger.of_fit(fit)
        if isinstance(known, Settle):
            if known.release is None:
                raise ConfigError("this fit was refused, and charged for what it had bought: start a new one")
            yield partial(_same_release, known)
            return
        reservation = known or ledger.reserve(
            account.budget, by=self.by or user_name(), why=self.why or NOT_STATED, what={**what, "fit": fit}
        )
        if reservation.budget != account.budget:
            raise InternalError("the ledger holds another reservation under the name of this fit")
        settled = False

        def settle(digest: str) -> None:
            nonlocal settled
            reservation.settle(account.events, digest)
            settled = True

        try:
            yield settle
        except (BudgetExceededError, ConfigError):
            if not settled and known is None:
                reservation.settle(account.events, None)
            raise
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(str(interrupt) or _RESERVED) from interrupt


def _same_release(settled: Settle, digest: str) -> None:
    if settled.release != digest:
        raise InternalError("a fit that was settled makes another release than it was settled for")


def user_name() -> str:
    """The name under which this process runs, for where nobody signed by another."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user of that number
        return f"user {os.getuid()}"
