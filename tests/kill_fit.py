"""Kill whole fits that pay from a ledger, at random moments, go on with them, and compare what they leave.

``python tests/kill_fit.py --kills 100 --seed 0`` forks small real fits of dp-ctgan (``--model dp-tvae``: of that one),
one after another, on one ledger, sends each SIGKILL at a random moment, and goes on with it until it ends, killing it
again now and then. A fit notes, with fsync, each event before it touches rows for it.

After each kill: ``verify`` passes; what was touched is spent or reserved in full, and stands in the checkpoint as begun
or counted; no release stands that was not settled, and what stands is whole. At the end of each fit: one reservation,
settled for its release; the events are those of the plan for the bought count, as of a fit that nobody interrupted; no
gradient was taken more often than planned. Ends with exit code 0 and one line that tells where the kills fell, or with
1 and the broken promise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import dp_accounting.pld.privacy_loss_distribution
import opendp.prelude
import safetensors.torch
import torch
from safetensors import safe_open

import synthehr.models.checkpoint as checkpoint
import synthehr.models.fitting as fitting
import synthehr.models.training as training
from synthehr.encoding.unroll import conditional_tables
from synthehr.errors import DataError
from synthehr.models.base import GeneratorShape
from synthehr.models.ctgan import CriticSettings
from synthehr.models.marginals import FitSettings
from synthehr.models.planning import TrainingSettings, plan_fit
from synthehr.models.tvae import VariationalSettings
from synthehr.outputs import save_fit
from synthehr.privacy.accountant import Account, Event
from synthehr.privacy.budget import Budget
from synthehr.privacy.ledger import Ledger
from synthehr.privacy.policy import load_policy
from synthehr.release import Release
from synthehr.reporting import datasheet
from synthehr.schema.files import load_schema

EPSILON = 1.0
DELTA = 1e-6
# Imported before the fork, so that kills fall into the fit and not into what it imports.
BEFOREHAND = (dp_accounting.pld.privacy_loss_distribution, opendp.prelude, safetensors.torch, datasheet)
SETTINGS = TrainingSettings(
    bins=8,
    shape=GeneratorShape(components=100, latent=8, hidden=16),
    fit=FitSettings(steps=30),
    critic=CriticSettings(steps=60, critic_steps=2, hidden=8, expected_batch=64, block=4),
    variational=VariationalSettings(steps=120, hidden=8, expected_batch=64, block=4),
)
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


def fit(folder: Path, name: str, *, model: str, resume: bool) -> None:
    """One small fit, which notes each touch before it happens."""
    torch.set_num_threads(1)
    spend = Account.spend

    def noted(account: Account, event: Event) -> None:
        stage = event.stage.split(":")[0]
        descriptor = os.open(folder / f"{name}.touched", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, f"{stage}\t{rows_at_hand}\n".encode())
        os.fsync(descriptor)
        os.close(descriptor)
        spend(account, event)

    # What a resumed fit books for outcomes that it holds touches no row.
    rows_at_hand = 1
    booked = fitting.FitTools.booked

    def without_rows(tools: fitting.FitTools, *events: Event) -> None:
        nonlocal rows_at_hand
        rows_at_hand = 0
        booked(tools, *events)
        rows_at_hand = 1

    Account.spend = noted  # type: ignore[method-assign]
    fitting.FitTools.booked = without_rows  # type: ignore[method-assign]
    training.TrainingSettings = lambda: SETTINGS  # type: ignore[misc, assignment]
    checkpoint._SECONDS = 0.02
    save_fit(
        folder / "records.csv",
        schema=SCHEMA,
        out=folder / name,
        epsilon=EPSILON,
        delta=DELTA,
        policy="exploratory",
        model=model,
        ledger=folder / "ledger",
        by="x",
        why=name,
        resume=resume,
    )


def forked(folder: Path, name: str, *, model: str, resume: bool) -> int:
    """Fork a fit and give its process number."""
    child = os.fork()
    if child:
        return child
    try:
        fit(folder, name, model=model, resume=resume)
    except BaseException as error:  # noqa: BLE001 - told by the exit code
        os.write(2, f"fit: {type(error).__name__}: {error}\n".encode())
        os._exit(70)
    os._exit(0)


def touched(folder: Path, name: str) -> Counter[str]:
    """How often each stage has touched rows, in all processes of a fit."""
    noted = folder / f"{name}.touched"
    lines = noted.read_text().splitlines() if noted.exists() else []
    return Counter(line.split("\t")[0] for line in lines if line.endswith("\t1"))


STAGE_OF = {"range": "domain", "weigh pairs": "pairs", "weigh triples": "triples"}


def stage_of(event: str) -> str:
    return STAGE_OF.get(event, event)


def compare(folder: Path, name: str, *, model: str) -> str:
    """Hold ledger and checkpoint against what this fit left; how far it had come.

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
    assert len(reserved) <= 1, "a fit has two reservations"
    counts = touched_stages(folder, name)
    if counts:
        assert len(reserved) == 1, "rows were touched without a reservation"
    if (folder / name).exists():
        assert [entry.release for entry in settled] == [Release.load(folder / name).digest], "an unpaid release"
        return "saved"
    if counts:
        begun, rounds = held(folder / f"{name}.checkpoint")
        assert set(counts) <= begun, f"touched for {set(counts) - begun} before it was written down"
        settings = SETTINGS.gradients_of(model)
        assert settings is not None
        assert counts["gradients"] <= rounds * settings.gradients, "a gradient was taken and not counted"
    if settled:
        return "settled"
    if counts:
        return list(counts)[-1]
    return "reserved" if reserved else "before"


def touched_stages(folder: Path, name: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for event, times in touched(folder, name).items():
        counts[stage_of(event)] += times
    return counts


def held(path: Path) -> tuple[set[str], int]:
    """The stages that a checkpoint has as begun, and the rounds of gradients that it has counted."""
    with safe_open(path / "fit.safetensors", framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    return set(state.get("begun", [])), int(state.get("rounds", 0))


def check_the_end(folder: Path, name: str, *, model: str) -> None:
    """The release of a fit that ended, after however many kills, is that of one that was never killed.

    Raises:
        AssertionError: it is not.
    """
    assert compare(folder, name, model=model) == "saved"
    release = Release.load(folder / name)
    policy = load_policy("exploratory")
    share = policy.shares.count * EPSILON
    plan = plan_fit(
        conditional_tables(load_schema(SCHEMA), {load_schema(SCHEMA).subject: 1}),
        budget=Budget(epsilon=EPSILON - share, delta=DELTA),
        policy=policy,
        patients_bought=release.manifest.patients_bought,
        gradients=SETTINGS.gradients_of(model),
    )
    assert plan.gradients is not None
    wanted = counted(plan.events)
    found = counted(release.manifest.privacy.events)
    assert {e: n for e, n in found.items() if e.stage != "count"} == wanted, "the account is another than uninterrupted"
    assert touched(folder, name)["gradients"] <= plan.gradients.count, "gradients were taken more often than planned"
    assert not (folder / f"{name}.checkpoint").exists(), "the checkpoint stays behind"


def counted(events: Sequence[Event]) -> Counter[Event]:
    total: Counter[Event] = Counter()
    for event in events:
        total[event.model_copy(update={"count": 1})] += event.count
    return total


def main(kills: int, seed: int, *, model: str) -> int:
    draws = random.Random(seed)
    begun = time.monotonic()
    reached: Counter[str] = Counter()
    done = fits = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [f"{draws.randint(20, 90)},{draws.choice('fm')},{draws.randint(0, 1)}" for _ in range(300)]
        (folder / "records.csv").write_text("\n".join(["age,sex,died", *rows]) + "\n")
        total = Budget(epsilon=EPSILON * (kills + 1), delta=1e-2)
        Ledger.open(folder / "ledger", population="p", budget=total, by="x", why="kill test")
        start = time.monotonic()
        status = os.waitpid(forked(folder, "whole", model=model, resume=False), 0)[1]
        longest = time.monotonic() - start
        assert status == 0, "the fit that is not killed fails"
        check_the_end(folder, "whole", model=model)
        while done < kills:
            fits += 1
            fit_name, ended = f"fit {fits}", False
            while not ended:
                resume = (folder / f"{fit_name}.checkpoint").exists()
                child = forked(folder, fit_name, model=model, resume=resume)
                if done < kills and draws.random() < 0.75:
                    done += 1
                    time.sleep(longest * 1.1 * draws.random())
                    os.kill(child, signal.SIGKILL)
                    status = os.waitpid(child, 0)[1]
                    assert os.WIFSIGNALED(status) or status == 0, "a fit failed"
                    reached[compare(folder, fit_name, model=model)] += 1
                else:
                    assert os.waitpid(child, 0)[1] == 0, "a fit that goes on fails"
                ended = (folder / fit_name).exists() and not (folder / f"{fit_name}.checkpoint").exists()
            check_the_end(folder, fit_name, model=model)
    where = ", ".join(f"{times} {stage}" for stage, times in reached.most_common())
    sys.stdout.write(f"{done} kills of {fits} fits of {model} ({where}), {time.monotonic() - begun:.0f} s: all hold\n")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--model", choices=["dp-ctgan", "dp-tvae"], default="dp-ctgan")
    options = parser.parse_args()
    chosen = secrets.randbits(32) if options.seed is None else options.seed
    try:
        sys.exit(main(options.kills, chosen, model=options.model))
    except (AssertionError, DataError) as broken:
        sys.stdout.write(f"seed {chosen}: {broken}\n")
        sys.exit(1)
