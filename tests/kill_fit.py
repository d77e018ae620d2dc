"""Kill whole fits that pay from a ledger, at random moments, and compare ledger, releases and what was touched.

``python tests/kill_fit.py --kills 100 --seed 0`` forks small real fits, one after another, on one ledger, and sends
each SIGKILL at a random moment. A fit notes, with fsync, that it is about to touch rows. After each kill: ``verify``
passes; a fit that may have touched rows is spent or reserved in full; no release folder stands that was not settled,
and what stands is whole. Ends with exit code 0 and one line that tells where the kills fell, or with 1 and the
broken promise.
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
from collections import Counter
from decimal import Decimal
from pathlib import Path

import dp_accounting.pld.privacy_loss_distribution
import opendp.prelude
import safetensors.torch
import torch

import synthehr.models.training as training
from synthehr.errors import DataError
from synthehr.models.marginals import FitSettings
from synthehr.outputs import save_fit
from synthehr.privacy.budget import Budget
from synthehr.privacy.ledger import Ledger
from synthehr.release import Release
from synthehr.reporting import datasheet

EPSILON = 1.0
# Imported before the fork, so that kills fall into the fit and not into what it imports.
BEFOREHAND = (dp_accounting.pld.privacy_loss_distribution, opendp.prelude, safetensors.torch, datasheet)
SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "columns": {
                "age": {"kind": "integer", "bounds": [0, 120]},
                "sex": {"kind": "category", "values": ["f", "m"]},
                "died": {"kind": "boolean"},
            }
        }
    },
}


def fit(folder: Path, name: str) -> None:
    """One small fit, which notes its first touch before it happens."""
    torch.set_num_threads(1)
    door = training.behind_the_door

    def noted(*args: object, **kwargs: object) -> object:
        descriptor = os.open(folder / f"{name}.touch", os.O_CREAT | os.O_WRONLY)
        os.fsync(descriptor)
        return door(*args, **kwargs)

    training.behind_the_door = noted
    settings = training.TrainingSettings(bins=8, fit=FitSettings(steps=60, batch=100))
    training.TrainingSettings = lambda: settings
    out = folder / name
    save_fit(
        folder / "records.csv", schema=SCHEMA, out=out, epsilon=EPSILON, ledger=folder / "ledger", by="x", why=name
    )


def forked(folder: Path, name: str) -> int:
    """Fork a fit and give its process number."""
    child = os.fork()
    if child:
        return child
    try:
        fit(folder, name)
    except BaseException as error:  # noqa: BLE001 - told by the exit code
        os.write(2, f"fit: {type(error).__name__}: {error}\n".encode())
        os._exit(70)
    os._exit(0)


def compare(folder: Path, name: str) -> str:
    """Hold the ledger against what this fit left; how far it had come.

    Raises:
        AssertionError: a promise is broken.
        DataError: the ledger does not verify, or a release is not whole.
    """
    standing = Ledger(folder / "ledger").verify()
    mine = [entry for entry in standing.entries if entry.why == name]
    reserved = [entry for entry in mine if entry.kind == "reserve"]
    settled = [entry for entry in mine if entry.kind == "settle"]
    fits = sum(entry.kind == "reserve" for entry in standing.entries)
    assert (standing.spent + standing.reserved).epsilon == fits * Decimal(repr(EPSILON)), "budget came back"
    if (folder / f"{name}.touch").exists():
        assert len(reserved) == 1, "rows were touched without a reservation"
    if (folder / name).exists():
        assert [entry.release for entry in settled] == [Release.load(folder / name).digest], "an unpaid release"
        return "saved"
    if settled:
        return "settled"
    if (folder / f"{name}.touch").exists():
        return "touched"
    return "reserved" if reserved else "before"


def main(kills: int, seed: int) -> int:
    draws = random.Random(seed)
    begun = time.monotonic()
    reached: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [f"{draws.randint(20, 90)},{draws.choice('fm')},{draws.randint(0, 1)}" for _ in range(300)]
        (folder / "records.csv").write_text("\n".join(["age,sex,died", *rows]) + "\n")
        total = Budget(epsilon=EPSILON * (kills + 1), delta=1e-2)
        Ledger.open(folder / "ledger", population="p", budget=total, by="x", why="kill test")
        start = time.monotonic()
        status = os.waitpid(forked(folder, "whole"), 0)[1]
        longest = time.monotonic() - start
        assert status == 0, "the fit that is not killed fails"
        assert compare(folder, "whole") == "saved"
        for at in range(kills):
            child = forked(folder, f"fit {at}")
            time.sleep(longest * 1.1 * draws.random())
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            assert os.WIFSIGNALED(status) or status == 0, "a fit failed"
            reached[compare(folder, f"fit {at}")] += 1
    where = ", ".join(f"{reached[stage]} {stage}" for stage in ("before", "reserved", "touched", "settled", "saved"))
    sys.stdout.write(f"{kills} kills ({where}), {time.monotonic() - begun:.0f} s: all hold\n")
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
