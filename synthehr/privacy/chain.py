"""The ledger's entries and the chain they form: values alone, no files.

Each entry is canonical JSON. Its hash is the SHA-256 of the hash before it and of its content, so that no entry can
be changed, taken out, put in or moved without breaking every hash that follows.

What releases of the same patients cost together is the **sum** of their epsilons and the sum of their deltas. A
later fit is asked for by someone who has seen the earlier releases, epsilon and delta included; sums are valid
whatever made that person ask (a privacy filter; Rogers, Roth, Ullman and Vadhan 2016). The tighter composition of
privacy-loss distributions needs parameters that are fixed beforehand, and so holds within a fit, not between fits.

Amounts are decimals as people write them, added without rounding: three times 0.1 is 0.3.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from synthehr.errors import BudgetExceededError, ConfigError, DataError
from synthehr.privacy.accountant import EpsilonDelta, Gaussian, PoissonSampledGaussian
from synthehr.privacy.budget import NEIGHBOURS, UNIT, Budget

__all__ = [
    "GENESIS",
    "Amount",
    "Entry",
    "Link",
    "Opening",
    "Reserve",
    "Settle",
    "Standing",
    "link_after",
    "plain",
    "replay",
    "said",
]

GENESIS: Final = hashlib.sha256(b"synthehr ledger 1").hexdigest()
LONGEST: Final = 500
_EXACT: Final = Context(prec=1000, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """An epsilon and a delta that are added to others exactly. Either may be 0."""

    epsilon: Decimal
    delta: Decimal

    @classmethod
    def of(cls, budget: Budget) -> Amount:
        """The amount of a promise, as the decimals that its floats are written as."""
        return cls(epsilon=Decimal(repr(float(budget.epsilon))), delta=Decimal(repr(float(budget.delta))))

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            epsilon=_EXACT.add(self.epsilon, other.epsilon),
            delta=_EXACT.add(self.delta, other.delta),
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            epsilon=_EXACT.subtract(self.epsilon, other.epsilon),
            delta=_EXACT.subtract(self.delta, other.delta),
        )

    def within(self, other: Amount) -> bool:
        """Whether both epsilon and delta are at most the other's."""
        return self.epsilon <= other.epsilon and self.delta <= other.delta

    def as_floats(self) -> dict[str, float]:
        """Both as floats, rounded down, so that what is told to remain can be asked for."""
        return {"epsilon": _down(self.epsilon), "delta": _down(self.delta)}


NOTHING: Final = Amount(epsilon=Decimal(0), delta=Decimal(0))


def _down(value: Decimal) -> float:
    near = float(value)
    return near if Decimal(repr(near)) <= value else math.nextafter(near, -math.inf)


def plain(value: Decimal) -> str:
    """A decimal as people write it, in up to 12 digits."""
    return f"{float(value):.12g}"


def _one_line(text: str) -> str:
    if not text.strip() or len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"must be one line of 1 to {LONGEST} printable characters")
    return text


def said(text: str, *, what: str) -> str:
    """Check a text before it goes into the ledger, where it stays.

    Raises:
        ConfigError: it is empty, long, or more than a line.
    """
    try:
        return _one_line(text)
    except ValueError as error:
        raise ConfigError(f"{what} {error}") from error


Text = Annotated[str, AfterValidator(_one_line)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Cost = Annotated[Decimal, Field(ge=0)]


class _Entry(BaseModel):
    """What every entry says: its number, who signs it off, when (UTC), why, and by which version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: int = Field(ge=1)
    when: Text
    by: Text
    why: Text
    version: Text

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Opening(_Entry):
    """The first entry: whose budget it is, and how much."""

    kind: Literal["open"] = "open"
    population: Text
    epsilon: Cost
    delta: Cost
    unit: Literal["patient"] = UNIT
    neighbours: Literal["add-or-remove-one"] = NEIGHBOURS


class Reserve(_Entry):
    """Budget set aside before rows are touched. It counts in full until it is settled."""

    kind: Literal["reserve"] = "reserve"
    epsilon: Cost
    delta: Cost
    what: dict[Text, Text] = Field(description="What is run, for example its model and policy.")

    @property
    def amount(self) -> Amount:
        """What is set aside."""
        return Amount(epsilon=self.epsilon, delta=self.delta)


class Settle(_Entry):
    """What a reservation really cost, and the release that was made with it, if one was."""

    kind: Literal["settle"] = "settle"
    reservation: int = Field(description="Number of the entry that set the budget aside.")
    epsilon: Cost
    delta: Cost
    release: Hash | None
    events: tuple[Annotated[Gaussian | PoissonSampledGaussian | EpsilonDelta, Field(discriminator="type")], ...]

    @property
    def amount(self) -> Amount:
        """What it cost; the rest of the reservation is free again."""
        return Amount(epsilon=self.epsilon, delta=self.delta)


Entry = Annotated[Opening | Reserve | Settle, Field(discriminator="kind")]
_ENTRY: Final[TypeAdapter[Opening | Reserve | Settle]] = TypeAdapter(Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One entry in its place in the chain."""

    seq: int
    previous: str
    content: str
    hash: str


def link_after(previous: str, entry: Opening | Reserve | Settle) -> Link:
    """The link of an entry that follows the one with hash ``previous``."""
    content = entry.to_json()
    return Link(seq=entry.seq, previous=previous, content=content, hash=_hash(previous, content))


def _hash(previous: str, content: str) -> str:
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a ledger stands after its last entry."""

    opening: Opening
    entries: tuple[Opening | Reserve | Settle, ...]
    hashes: tuple[str, ...]
    unsettled: Mapping[int, Reserve]
    spent: Amount

    @property
    def total(self) -> Amount:
        """What the ledger was opened with."""
        return Amount(epsilon=self.opening.epsilon, delta=self.opening.delta)

    @property
    def reserved(self) -> Amount:
        """What is set aside and not settled; all of it may have been spent."""
        return _sum(entry.amount for entry in self.unsettled.values())

    @property
    def remaining(self) -> Amount:
        """What may still be reserved."""
        return self.total - self.spent - self.reserved

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return self.hashes[-1]

    def check(self, wanted: Amount) -> None:
        """Refuse an amount that does not fit.

        Raises:
            BudgetExceededError: more is wanted than remains; the message names both and the difference.
        """
        remaining = self.remaining
        if wanted.within(remaining):
            return
        over, used = wanted - remaining, self.spent + self.reserved
        parts = [
            f"{name} requested {plain(asked)}, remaining {plain(left)}, difference {plain(more)}"
            for name, asked, left, more in (
                ("epsilon", wanted.epsilon, remaining.epsilon, over.epsilon),
                ("delta", wanted.delta, remaining.delta, over.delta),
            )
            if more > 0
        ]
        raise BudgetExceededError(
            f"the ledger of population {self.opening.population!r} cannot pay: {'; '.join(parts)}. "
            f"Spent or reserved are epsilon {plain(used.epsilon)} of {plain(self.total.epsilon)} and delta "
            f"{plain(used.delta)} of {plain(self.total.delta)}: ask for at most what remains"
        )


def _sum(amounts: Iterable[Amount]) -> Amount:
    total = NOTHING
    for amount in amounts:
        total += amount
    return total


def replay(links: Iterable[Link]) -> Standing:
    """Check every link from the first on and add up what the entries say.

    Raises:
        DataError: an entry was edited, is missing, stands in the wrong place, or breaks a rule of the ledger. The
            message names the first such entry.
    """
    entries: list[Opening | Reserve | Settle] = []
    hashes = [GENESIS]
    unsettled: dict[int, Reserve] = {}
    spent = set_aside = total = NOTHING
    for seq, link in enumerate(links, start=1):
        entry = _checked(link, seq=seq, previous=hashes[-1])
        if isinstance(entry, Opening) != (seq == 1):
            raise DataError("entry 1, and no other, must be the opening")
        try:
            match entry:
                case Opening():
                    total = Amount(epsilon=entry.epsilon, delta=entry.delta)
                case Reserve():
                    unsettled[seq] = entry
                    set_aside += entry.amount
                case Settle():
                    reservation = unsettled.pop(entry.reservation, None)
                    if reservation is None or not entry.amount.within(reservation.amount):
                        raise DataError(f"entry {seq} settles no open reservation, or more than was reserved")
                    set_aside -= reservation.amount
                    spent += entry.amount
            if not (spent + set_aside).within(total):
                raise DataError(f"entry {seq} takes more than the ledger was opened with")
        except DecimalException as error:
            raise DataError(f"entry {seq} holds an amount that cannot be added up") from error
        entries.append(entry)
        hashes.append(link.hash)
    if not entries:
        raise DataError("it holds no opening entry; if its opening was interrupted, remove the file and open it again")
    opening = entries[0]
    assert isinstance(opening, Opening)
    return Standing(opening=opening, entries=tuple(entries), hashes=tuple(hashes[1:]), unsettled=unsettled, spent=spent)


def _checked(link: Link, *, seq: int, previous: str) -> Opening | Reserve | Settle:
    if link.seq != seq:
        raise DataError(f"entry {seq} is missing or out of place")
    if link.previous != previous:
        raise DataError(f"entry {seq} does not follow the entry before it: one was edited, moved or taken out")
    if link.hash != _hash(previous, link.content):
        raise DataError(f"entry {seq} was edited: its content is not what its hash was taken of")
    try:
        entry = _ENTRY.validate_json(link.content)
    except ValidationError as error:
        raise DataError(f"entry {seq} is no entry of this version") from error
    if entry.seq != seq or entry.to_json() != link.content:
        raise DataError(f"entry {seq} is not written as this version writes it")
    return entry
