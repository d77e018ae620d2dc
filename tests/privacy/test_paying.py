from __future__ import annotations

from pathlib import Path

import pytest

from synthehr.errors import BudgetExceededError, ConfigError, DataError, InternalError, SynthehrError
from synthehr.privacy.accountant import Account, EpsilonDelta
from synthehr.privacy.budget import Budget
from synthehr.privacy.ledger import Ledger
from synthehr.privacy.paying import Payer

DIGEST = "ab" * 32
COUNT = EpsilonDelta(stage="count", epsilon=0.25, delta=0.0)
BUDGET = Budget(epsilon=1.0, delta=1e-6)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    total = Budget(epsilon=1.5, delta=1e-5)
    return Ledger.open(tmp_path / "ledger", population="clinic", budget=total, by="A. Steward", why="teaching")


def pay(
    ledger: Ledger,
    *,
    error: BaseException | None = None,
    makes: bool = True,
    touches: bool = True,
    fit: str = "f1",
    digest: str = DIGEST,
) -> None:
    """A fit that touches rows for the count, makes a release, and may end by an error before or after that."""
    account = Account(BUDGET)
    account.plan([COUNT])
    payer = Payer(ledger=ledger.path, by="B. Analyst", why="course")
    with payer.paying(account, fit=fit, what={"model": "m"}) as settle:
        assert float((ledger.standing().reserved + ledger.standing().spent).epsilon) == 1.0
        if touches:
            account.spend(COUNT)
        if makes:
            settle(digest)
        if error is not None:
            raise error


def test_a_release_is_settled_under_its_digest(ledger: Ledger) -> None:
    pay(ledger)
    last = ledger.standing().entries[-1]
    assert last.kind == "settle"
    assert (last.release, last.by, last.why, last.events) == (DIGEST, "B. Analyst", "course", (COUNT,))
    assert float(ledger.standing().spent.epsilon) == 1.0


@pytest.mark.parametrize("error", [BudgetExceededError("delta"), ConfigError("device")])
@pytest.mark.parametrize(("touches", "cost"), [(True, 0.25), (False, 0.0)])
def test_a_refusal_costs_what_was_booked_before_it(
    ledger: Ledger, error: SynthehrError, touches: bool, cost: float
) -> None:
    with pytest.raises(type(error)):
        pay(ledger, error=error, makes=False, touches=touches)
    assert float(ledger.standing().spent.epsilon) == cost
    assert not ledger.standing().unsettled


@pytest.mark.parametrize(
    "error", [RuntimeError(), DataError("row 3"), KeyboardInterrupt(), SystemExit(), MemoryError()]
)
@pytest.mark.parametrize("touches", [True, False])
def test_any_other_end_leaves_the_whole_reservation(ledger: Ledger, error: BaseException, touches: bool) -> None:
    with pytest.raises(type(error)):
        pay(ledger, error=error, makes=False, touches=touches)
    assert float(ledger.standing().reserved.epsilon) == 1.0
    assert float(ledger.remaining().epsilon) == 0.5


@pytest.mark.parametrize("error", [RuntimeError(), ConfigError("output exists")])
def test_what_fails_after_settling_stays_settled(ledger: Ledger, error: Exception) -> None:
    with pytest.raises(type(error)):
        pay(ledger, error=error)
    assert float(ledger.standing().spent.epsilon) == 1.0


def test_what_the_ledger_cannot_pay_does_not_begin(ledger: Ledger) -> None:
    pay(ledger)
    with pytest.raises(BudgetExceededError, match=r"requested 1, remaining 0.5, difference 0.5"):
        pay(ledger, error=AssertionError("it began"), fit="f2")
    with pytest.raises(BudgetExceededError, match="difference"):
        Payer(ledger=ledger.path).check(BUDGET)
    assert len(ledger.verify().entries) == 3


def test_without_a_ledger_nothing_is_kept_and_nothing_may_be_signed() -> None:
    Payer().check(BUDGET)
    with Payer().paying(Account(BUDGET), fit="f1", what={}) as settle:
        settle(DIGEST)
    for words in ({"by": "x"}, {"why": "x"}, {"population": "x"}):
        with pytest.raises(ConfigError, match="--ledger"):
            Payer(**words)


def test_the_ledger_of_other_patients_is_refused(ledger: Ledger) -> None:
    payer = Payer(ledger=ledger.path, population="ward")
    with pytest.raises(ConfigError, match="ward"):
        payer.check(BUDGET)
    with pytest.raises(ConfigError, match="ward"), payer.paying(Account(BUDGET), fit="f1", what={}):
        pass
    assert len(ledger.standing().entries) == 1


def test_a_fit_that_goes_on_goes_on_with_its_own_reservation(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt):
        pay(ledger, error=KeyboardInterrupt(), makes=False)
    pay(ledger)
    kinds = [entry.kind for entry in ledger.verify().entries]
    assert kinds == ["open", "reserve", "settle"]
    assert ledger.standing().entries[1].what["fit"] == "f1"


def test_what_is_settled_can_only_make_the_release_it_was_settled_for(ledger: Ledger) -> None:
    pay(ledger)
    pay(ledger)
    with pytest.raises(InternalError, match="another release"):
        pay(ledger, digest="cd" * 32)
    assert len(ledger.verify().entries) == 3


def test_what_was_refused_and_charged_does_not_go_on(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceededError):
        pay(ledger, error=BudgetExceededError("delta"), makes=False)
    with pytest.raises(ConfigError, match="refused"):
        pay(ledger)
    assert len(ledger.verify().entries) == 3


def test_a_refusal_when_going_on_gives_nothing_back(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt):
        pay(ledger, error=KeyboardInterrupt(), makes=False)
    with pytest.raises(ConfigError):  # this account has not booked yet what the first process touched
        pay(ledger, error=ConfigError("device"), makes=False, touches=False)
    assert float(ledger.standing().reserved.epsilon) == 1.0
