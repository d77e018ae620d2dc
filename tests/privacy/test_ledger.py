from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from synthehr.cli import main
from synthehr.errors import BudgetExceededError, ConfigError, DataError, InternalError
from synthehr.privacy.accountant import EpsilonDelta, Gaussian, epsilon_of
from synthehr.privacy.budget import Budget
from synthehr.privacy.chain import GENESIS, Amount, link_after, replay
from synthehr.privacy.ledger import Ledger, Reservation

DIGEST = "ab" * 32
COUNT = EpsilonDelta(stage="count", epsilon=0.01, delta=0.0)
WHAT = {"model": "marginal", "policy": "standard"}


def budget(epsilon: float, delta: float = 1e-6) -> Budget:
    return Budget(epsilon=epsilon, delta=delta)


def opened(path: Path, epsilon: float = 3.0, delta: float = 1e-5) -> Ledger:
    return Ledger.open(path, population="clinic", budget=budget(epsilon, delta), by="A. Steward", why="teaching")


def reserve(ledger: Ledger, epsilon: float, delta: float = 1e-6) -> Reservation:
    return ledger.reserve(budget(epsilon, delta), by="B. Analyst", why="course data", what=WHAT)


def amount(epsilon: str, delta: str) -> Amount:
    return Amount(epsilon=Decimal(epsilon), delta=Decimal(delta))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return opened(tmp_path / "clinic.ledger")


@pytest.fixture
def used(ledger: Ledger) -> Ledger:
    """Opened with 3; 1 settled, 0.5 reserved, 0.25 settled: five entries after the opening."""
    reserve(ledger, 1.0).settle([COUNT], DIGEST)
    reserve(ledger, 0.5)
    reserve(ledger, 0.25).settle([], "cd" * 32)
    return ledger


def edit(ledger: Ledger, *statements: str) -> None:
    """Someone changes the file by hand: guards off, statements, guards on again as they were."""
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as connection:
        guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, guard in guards:
            connection.execute(guard)


# Sums


def test_spent_reserved_and_remaining_add_up_by_hand(used: Ledger) -> None:
    standing = used.standing()
    # Settled: 1 + 0.25 with delta 2 * 1e-6. Open: 0.5 with delta 1e-6. Left of 3 and 1e-5: 1.25 and 7e-6.
    assert standing.spent == amount("1.25", "0.000002")
    assert standing.reserved == amount("0.5", "0.000001")
    assert used.remaining() == amount("1.25", "0.000007")
    assert [entry.kind for entry in standing.entries] == ["open", "reserve", "settle", "reserve", "reserve", "settle"]


def test_three_times_a_tenth_is_three_tenths_and_no_more_fits(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l", epsilon=0.3)
    for _ in range(3):
        reserve(ledger, 0.1)
    assert ledger.remaining().epsilon == 0
    with pytest.raises(BudgetExceededError):
        reserve(ledger, 1e-12)


def test_what_is_told_to_remain_can_be_asked_for(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l", epsilon=1.0)
    reserve(ledger, 1 / 3)
    reserve(ledger, 0.1 + 0.2)
    reserve(ledger, ledger.remaining().as_floats()["epsilon"])
    assert 0 <= ledger.remaining().epsilon < Decimal("1e-15")


@pytest.mark.parametrize(
    ("epsilon", "delta", "says"),
    [
        (2.0, 1e-6, "epsilon requested 2, remaining 1.25, difference 0.75. Spent or reserved are epsilon 1.75 of 3"),
        (1.0, 1e-5, "delta requested 1e-05, remaining 7e-06, difference 3e-06"),
        (2.0, 1e-5, "difference 0.75; delta requested"),
    ],
)
def test_what_does_not_fit_is_refused_with_requested_remaining_difference(
    used: Ledger, epsilon: float, delta: float, says: str
) -> None:
    before = used.standing()
    for refused in (used.check, lambda wanted: used.reserve(wanted, by="x", why="y", what=WHAT)):
        with pytest.raises(BudgetExceededError) as caught:
            refused(budget(epsilon, delta))
        assert says in str(caught.value)
    assert used.standing() == before


# Settling


def test_a_release_is_charged_what_its_label_promises(ledger: Ledger) -> None:
    events = [COUNT, Gaussian(stage="pairs", noise_multiplier=10.0)]
    reserve(ledger, 1.0).settle(events, DIGEST)
    settled = ledger.standing().entries[-1]
    assert settled.kind == "settle"
    assert (settled.amount, settled.release) == (amount("1.0", "0.000001"), DIGEST)
    assert settled.events == tuple(events)


def test_a_fit_that_refused_after_the_count_is_charged_the_count_alone(ledger: Ledger) -> None:
    reserve(ledger, 1.0).settle([COUNT], None)
    assert ledger.standing().spent == amount("0.01", "0")
    assert ledger.remaining() == amount("2.99", "0.00001")


def test_a_fit_that_refused_before_any_touch_is_charged_nothing(ledger: Ledger) -> None:
    reserve(ledger, 1.0).settle([], None)
    assert ledger.remaining() == amount("3", "0.00001")


def test_events_of_a_refusal_cost_the_pure_ones_plus_the_others_composed(ledger: Ledger) -> None:
    others = [Gaussian(stage="domain:x", noise_multiplier=10.0, count=2)]
    reserve(ledger, 1.0).settle([COUNT.model_copy(update={"count": 3}), *others], None)
    spent = ledger.standing().spent
    assert float(spent.epsilon) == pytest.approx(0.03 + epsilon_of(others, delta=1e-6), abs=1e-15)
    assert spent.delta == Decimal("0.000001")


def test_more_than_was_reserved_is_an_internal_error_and_stays_reserved(ledger: Ledger) -> None:
    reservation = reserve(ledger, 1.0)
    for digest in (None, DIGEST):
        with pytest.raises(InternalError, match="reserved epsilon 1 spent"):
            reservation.settle([Gaussian(stage="pairs", noise_multiplier=1.0)], digest)
    with pytest.raises(InternalError, match="delta"):
        reservation.settle([EpsilonDelta(stage="x", epsilon=0.0, delta=1e-4)], DIGEST)
    assert ledger.standing().reserved == amount("1.0", "0.000001")


def test_a_reservation_is_settled_once(ledger: Ledger) -> None:
    reservation = reserve(ledger, 1.0)
    reservation.settle([], DIGEST)
    with pytest.raises(InternalError, match="settled before"):
        reservation.settle([], None)
    assert ledger.standing().spent.epsilon == 1


# Opening


def test_an_existing_file_is_not_opened_anew(used: Ledger) -> None:
    with pytest.raises(ConfigError, match="exists"):
        opened(used.path, epsilon=100.0)
    assert len(used.verify().entries) == 6


def test_the_file_is_its_owners_alone_also_while_in_use(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.path)) as reader:
        assert reader.execute("SELECT count(*) FROM entry").fetchone() == (1,)
        reserve(ledger, 1.0)
        names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ledger.path.parent.iterdir()}
    assert names == {"clinic.ledger": 0o600, "clinic.ledger-wal": 0o600, "clinic.ledger-shm": 0o600}
    assert [path.name for path in ledger.path.parent.iterdir()] == ["clinic.ledger"]


def test_another_population_is_refused(ledger: Ledger) -> None:
    assert Ledger.at(ledger.path, population="clinic").path == ledger.path
    with pytest.raises(ConfigError, match="of population 'clinic', not 'ward'"):
        Ledger.at(ledger.path, population="ward")


def test_what_is_no_ledger_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no ledger at all, but long enough to be looked at\n" * 20)
    (tmp_path / "empty").touch()
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE entry (seq INTEGER)")
    for name, says in (("absent", "not there"), ("text", "not a database"), ("empty", "no entries")):
        with pytest.raises(DataError, match=says):
            Ledger.at(tmp_path / name)
    with pytest.raises(DataError, match="not those of a ledger"):
        Ledger.at(tmp_path / "other")


def test_a_second_name_of_the_file_is_refused(ledger: Ledger) -> None:
    (ledger.path.parent / "alias").hardlink_to(ledger.path)
    with pytest.raises(DataError, match="second name"):
        Ledger.at(ledger.path)


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "bell\x07", "\x1b[2Jwiped", "x" * 501, "\udcff"])
def test_texts_that_could_disguise_an_entry_are_refused(ledger: Ledger, text: str) -> None:
    for words in ({"by": text}, {"why": text}, {"what": {"model": text}}, {"what": {text: "m"}}):
        with pytest.raises(ConfigError, match="one line"):
            ledger.reserve(budget(1.0), **{"by": "b", "why": "w", "what": WHAT, **words})
    assert len(ledger.standing().entries) == 1


# Tampering


TAMPERED = {
    "a byte of a reason": ["UPDATE entry SET content = replace(content, 'course', 'coarse') WHERE seq = 4"],
    "the opening epsilon": ["""UPDATE entry SET content = replace(content, '"3.0"', '"9.0"') WHERE seq = 1"""],
    "a smaller settlement": ["""UPDATE entry SET content = replace(content, '"1.0"', '"0.1"') WHERE seq = 3"""],
    "a hash": ["UPDATE entry SET hash = previous WHERE seq = 3"],
    "a deleted entry": ["DELETE FROM entry WHERE seq = 4"],
    "a deleted entry, renumbered": ["DELETE FROM entry WHERE seq = 4", "UPDATE entry SET seq = seq - 1 WHERE seq > 4"],
    "the opening deleted": ["DELETE FROM entry WHERE seq = 1"],
    "all deleted": ["DELETE FROM entry"],
    "two swapped": [f"UPDATE entry SET seq = {a} WHERE seq = {b}" for a, b in ((99, 2), (2, 4), (4, 99))],
    "two contents swapped": [
        "UPDATE entry SET content = (SELECT e.content FROM entry e WHERE e.seq = 6 - entry.seq) WHERE seq IN (2, 4)"
    ],
    "an entry put in twice": ["INSERT INTO entry SELECT 7, previous, content, hash FROM entry WHERE seq = 6"],
    "spaces in the JSON": ["UPDATE entry SET content = content || ' ' WHERE seq = 6"],
    "bytes for text": ["UPDATE entry SET content = CAST(content AS BLOB) WHERE seq = 4"],
    "bytes that are no text": ["UPDATE entry SET content = CAST(x'ff' AS TEXT) WHERE seq = 4"],
    "another kind of file": ["PRAGMA application_id = 1"],
    "a table beside": ["CREATE TABLE more (x)"],
    "a column more": ["ALTER TABLE entry ADD COLUMN x"],
}


@pytest.mark.parametrize("harm", TAMPERED)
def test_an_edited_ledger_is_found_out_and_not_spent_from(used: Ledger, harm: str) -> None:
    edit(used, *TAMPERED[harm])
    for use in (used.verify, used.remaining, lambda: reserve(used, 0.1), lambda: Ledger.at(used.path)):
        with pytest.raises(DataError):
            use()


def test_the_message_names_the_first_entry_that_does_not_hold(used: Ledger) -> None:
    edit(used, TAMPERED["a byte of a reason"][0])
    with pytest.raises(DataError, match="entry 4 was edited"):
        used.verify()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET content = '' WHERE seq = 1",
        "DELETE FROM entry WHERE seq = 6",
        "INSERT INTO entry VALUES (8, 'x', 'y', 'z')",
        "INSERT INTO entry VALUES (7, 'x', 'y', 'z')",
        "INSERT OR REPLACE INTO entry SELECT seq, previous, 'x', hash FROM entry WHERE seq = 6",
        "REPLACE INTO entry SELECT 1, previous, 'x', hash FROM entry WHERE seq = 1",
    ],
)
def test_the_file_itself_refuses_changes(used: Ledger, statement: str) -> None:
    with (
        closing(sqlite3.connect(used.path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="entries of a ledger"),
    ):
        connection.execute(statement)
    used.verify()


@pytest.mark.parametrize("guard", ["entries_are_not_changed", "entries_are_not_deleted", "entries_follow_the_last"])
def test_a_guard_taken_off_is_found_out(used: Ledger, guard: str) -> None:
    with closing(sqlite3.connect(used.path)) as connection:
        connection.execute(f"DROP TRIGGER {guard}")
        connection.commit()
    with pytest.raises(DataError, match="triggers"):
        used.verify()


def test_a_guard_put_back_weaker_is_found_out(used: Ledger) -> None:
    with closing(sqlite3.connect(used.path)) as connection:
        connection.execute("DROP TRIGGER entries_are_not_deleted")
        connection.execute("CREATE TRIGGER entries_are_not_deleted BEFORE DELETE ON entry BEGIN SELECT 1; END")
        connection.commit()
    with pytest.raises(DataError, match="triggers"):
        used.verify()


def test_a_cut_tail_is_found_out_by_a_noted_head_and_not_without(used: Ledger) -> None:
    noted = used.verify().head
    early = used.standing().hashes[2]
    edit(used, "DELETE FROM entry WHERE seq = 6")
    assert len(used.verify().entries) == 5, "the chain alone cannot know"
    assert used.verify(head=early.upper()).hashes[2] == early
    with pytest.raises(DataError, match="noted head"):
        used.verify(head=noted)


def test_a_chain_written_anew_is_found_out_by_a_noted_head(used: Ledger) -> None:
    standing = used.verify()
    rows, previous = [], GENESIS
    for entry in standing.entries:
        changed = entry.model_copy(update={"epsilon": Decimal("0.001")}) if entry.seq > 1 else entry
        link = link_after(previous, changed)
        rows.append(f"({link.seq}, '{link.previous}', '{link.content}', '{link.hash}')")
        previous = link.hash
    edit(used, "DELETE FROM entry", f"INSERT INTO entry VALUES {', '.join(rows)}")
    used.verify()
    with pytest.raises(DataError, match="noted head"):
        used.verify(head=standing.head)


def test_a_chain_with_good_hashes_but_broken_rules_is_refused(used: Ledger) -> None:
    opening, first, settled, second, *_ = used.standing().entries

    def chain(*entries: object) -> list:
        links, previous = [], GENESIS
        for seq, entry in enumerate(entries, start=1):
            links.append(link_after(previous, entry.model_copy(update={"seq": seq})))
            previous = links[-1].hash
        return links

    assert replay(chain(opening, first, settled, second)).spent.epsilon == 1
    more = {"epsilon": Decimal("1.1")}
    for entries, says in (
        ((first,), "opening"),
        ((opening, first, opening), "opening"),
        ((opening, settled), "no open reservation"),
        ((opening, first, settled, settled), "no open reservation"),
        ((opening, first, settled.model_copy(update=more)), "more than was reserved"),
        ((opening, first, first, first, second), "more than the ledger was opened with"),
        ((opening, first.model_copy(update={"epsilon": Decimal("1e-5000")}), first), "added up"),
        ((), "no opening"),
    ):
        with pytest.raises(DataError, match=says):
            replay(chain(*entries))


# Command line


def run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main(["ledger", *map(str, words)])
    out, err = capfd.readouterr()
    return code, out, err


def test_the_command_opens_shows_and_verifies(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clinic.ledger"
    words = ["open", path, "--population", "clinic", "--epsilon", 3, "--delta", 1e-5, "--signed-off-by", "A. Steward"]
    code, out, err = run(capfd, *words, "--purpose", "teaching", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["remaining"] == {"epsilon": 3.0, "delta": 1e-5}
    reserve(Ledger.at(path), 1.0).settle([COUNT], DIGEST)
    reserve(Ledger.at(path), 0.5)

    code, out, err = run(capfd, "show", path)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()[1:5]] == [
        ["total", "epsilon", "3", "delta", "1e-05"],
        ["spent", "epsilon", "1", "delta", "1e-06"],
        ["reserved", "epsilon", "0.5", "delta", "1e-06"],
        ["remaining", "epsilon", "1.5", "delta", "8e-06"],
    ]
    for words_ in ("population clinic", "A. Steward", "teaching", "of 2: release abababababab", "model marginal"):
        assert words_ in out

    told = json.loads(run(capfd, "show", path, "--json")[1])
    assert [entry["kind"] for entry in told["entries"]] == ["open", "reserve", "settle", "reserve"]
    assert told["entries"][2]["release"] == DIGEST
    assert told["head"] == told["entries"][-1]["hash"]

    code, out, _ = run(capfd, "verify", path, "--head", told["entries"][0]["hash"])
    assert code == 0
    assert "4 entries hold; the noted head is in it" in out
    assert told["head"] in out


def test_the_command_tells_what_is_wrong_in_one_line(used: Ledger, capfd: pytest.CaptureFixture[str]) -> None:
    opening = ["--population", "p", "--epsilon", 1, "--delta"]
    for code, words in (
        (2, ["open", used.path, *opening, 1e-6]),
        (2, ["open", used.path.parent / "new", *opening, 2]),
        (2, ["open", used.path.parent / "no" / "new", *opening, 1e-6]),
        (3, ["show", used.path.parent / "absent"]),
        (3, ["verify", used.path, "--head", "0" * 64]),
    ):
        found, out, err = run(capfd, *words)
        assert (found, out, err.count("\n")) == (code, "", 1), err
    edit(used, TAMPERED["the opening epsilon"][0])
    for word in ("show", "verify"):
        found, out, err = run(capfd, word, used.path, "--json")
        assert (found, out) == (3, "")
        assert "entry 1 was edited" in err
