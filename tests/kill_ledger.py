"""Kill processes that spend from a ledger, at random moments, and compare it with what they may have used.

``python tests/kill_ledger.py --kills 100 --seed 0`` forks spenders that open, reserve, "touch rows", settle and refuse
in a loop, two at a time on one ledger, and sends each SIGKILL at its own random moment. Before a spender touches
rows it writes what it is about to use into a side file, with fsync; after each entry it writes the head of the chain.
After each pair of kills: ``verify`` passes, every head that a spender saw is still in the chain, every release that
one believed to be settled is settled, what is spent or reserved is at least what was used, and never more than the
total. Ends with exit code 0 and one line, or with 1 and the broken promise.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

from synthehr.errors import BudgetExceededError, ConfigError, DataError
from synthehr.privacy.accountant import EpsilonDelta, Gaussian
from synthehr.privacy.budget import Budget
from synthehr.privacy.ledger import Ledger

TOTAL = Budget(epsilon=3.0, delta=1e-3)
LONGEST_SECONDS = 0.6
PAIRS_A_LEDGER = 4


class Diary:
    """A spender's own record, on disk before it goes on."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *words: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())
        os.fsync(self._descriptor)


def spend(path: Path, diary: Diary, draws: random.Random) -> None:
    """Open the ledger where there is none, then reserve, use and settle until killed or out of budget."""
    try:
        ledger = Ledger.open(path, population="p", budget=TOTAL, by="child", why="kill test")
        diary.write("head", ledger.standing().head)
    except ConfigError:
        ledger = Ledger(path)
    while True:
        epsilon = draws.choice([0.001, 0.01, 0.1])
        try:
            reservation = ledger.reserve(
                Budget(epsilon=epsilon, delta=1e-6), by="child", why="kill test", what={"model": "none"}
            )
        except (BudgetExceededError, DataError):  # used up; or the other one was killed while it opened the ledger
            time.sleep(0.01)
            continue
        # What is used is known before rows are touched: all of it, or the count alone where the fit will refuse.
        refuses = draws.random() < 0.3
        used = f"{Decimal(repr(epsilon)) / 100}" if refuses else repr(epsilon)
        diary.write("use", reservation.seq, used)
        if draws.random() < 0.1:
            continue  # as if the fit had failed: never settled
        if refuses:
            reservation.settle([EpsilonDelta(stage="count", epsilon=float(used), delta=0.0)], None)
        else:
            digest = secrets.token_hex(32)
            events = [Gaussian(stage="pairs", noise_multiplier=20_000.0)] if draws.random() < 0.02 else []
            reservation.settle(events, digest)
            diary.write("release", digest)
        diary.write("head", ledger.standing().head)


def spender(path: Path, diary: Path, seed: int) -> int:
    """Fork a spender and give its process number."""
    child = os.fork()
    if child:
        return child
    try:
        spend(path, Diary(diary), random.Random(seed))
    except BaseException as error:  # noqa: BLE001 - told by the exit code, below
        os.write(2, f"spender: {type(error).__name__}: {error}\n".encode())
        os._exit(70)
    os._exit(71)


def compare(path: Path, diaries: list[Path]) -> str:
    """Hold the ledger against the diaries; the ledger's standing in words.

    Raises:
        AssertionError: a promise is broken.
        DataError: the ledger does not verify.
    """
    lines = [line for diary in diaries if diary.exists() for line in diary.read_text().splitlines(keepends=True)]
    notes = [line.split() for line in lines if line.endswith("\n")]
    uses = [(int(note[1]), Decimal(note[2])) for note in notes if note[0] == "use"]
    ledger = Ledger(path)
    try:
        standing = ledger.verify()
    except DataError as error:
        assert "opening was interrupted" in str(error) or "not there" in str(error), error
        assert not notes, "a spender used a ledger that was never opened"
        path.unlink(missing_ok=True)  # as the message says
        return "not opened"
    for note in notes:
        if note[0] == "head":
            assert note[1] in standing.hashes, "an entry that a spender saw was lost"
    counted = {seq: entry.amount.epsilon for seq, entry in standing.unsettled.items()}
    counted |= {entry.reservation: entry.amount.epsilon for entry in standing.entries if entry.kind == "settle"}
    for seq, used in uses:
        assert counted[seq] >= used, f"reservation {seq} counts {counted[seq]}, but {used} was used"
    held = standing.spent + standing.reserved
    assert held.epsilon == sum(counted.values()) >= sum(used for _, used in uses)
    assert held.within(standing.total), "more was given than there was"
    settled = {entry.release for entry in standing.entries if entry.kind == "settle"}
    assert {note[1] for note in notes if note[0] == "release"} <= settled, "a settled release was lost"
    return f"{len(standing.entries)} entries, {len(uses)} uses, {len(standing.unsettled)} unsettled"


def main(kills: int, seed: int) -> int:
    draws = random.Random(seed)
    entries = opened = unsettled = halfway = pairs = 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path, diaries = Path(folder), []
        while 2 * pairs < kills:
            if pairs % PAIRS_A_LEDGER == 0:
                path, diaries = Path(folder) / f"{pairs}.ledger", []
            mine = [Path(folder) / f"{pairs}.{at}.diary" for at in range(2)]
            diaries += mine
            children = [spender(path, diary, draws.getrandbits(32)) for diary in mine]
            # Short lives as often as long ones, so that kills fall into the opening too.
            moments = sorted((LONGEST_SECONDS * draws.random() ** 2, child) for child in children)
            start = time.monotonic()
            for moment, child in moments:
                time.sleep(max(0.0, moment - (time.monotonic() - start)))
                os.kill(child, signal.SIGKILL)
            for child in children:
                status = os.waitpid(child, 0)[1]
                assert os.WIFSIGNALED(status), "a spender ended before it was killed"
            told = compare(path, diaries)
            pairs, halfway = pairs + 1, halfway + (told == "not opened")
            if pairs % PAIRS_A_LEDGER == 0 or 2 * pairs >= kills:
                opened += told != "not opened"
                words = told.split() if told != "not opened" else ["0"] * 5
                entries, unsettled = entries + int(words[0]), unsettled + int(words[4])
    seconds = time.monotonic() - begun
    sys.stdout.write(
        f"{2 * pairs} kills, {opened} ledgers, {entries} entries, {unsettled} left unsettled, "
        f"{halfway} killed before an opening was done, {seconds:.0f} s: all hold\n"
    )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    chosen = secrets.randbits(32) if options.seed is None else options.seed
    try:
        sys.exit(main(options.kills, chosen))
    except (AssertionError, DataError) as broken:
        sys.stdout.write(f"seed {chosen}: {broken}\n")
        sys.exit(1)
