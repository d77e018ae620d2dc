"""``synthehr ledger``: what all releases of the same patients may cost together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synthehr.cli.output import Console, shared_options

if TYPE_CHECKING:
    from synthehr.privacy.chain import Opening, Reserve, Settle, Standing

__all__ = ["command", "left_in"]

_HEADINGS = ("#", "when", "entry", "epsilon", "delta", "signed off by", "what", "purpose")


@click.group("ledger")
def command() -> None:
    """Keep account of all releases of the same patients.

    The ledger is a file that `fit --ledger FILE` spends from: it sets epsilon and delta aside before the records are
    touched, and refuses what no longer fits. A fit that was killed counts in full.
    """


@command.command("open")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--population", required=True, help="Names the patients; all their extracts share this ledger.")
@click.option("--epsilon", type=float, required=True, help="What all releases may cost together.")
@click.option("--delta", type=float, required=True, help="The slack of all releases together.")
@click.option("--signed-off-by", "by", help="Who answers for it; default: your user name.")
@click.option("--purpose", "why", help="What the budget is for.")
@shared_options
def open_(
    *, file: Path, population: str, epsilon: float, delta: float, by: str | None, why: str | None, console: Console
) -> int:
    """Make the new ledger FILE, readable by you alone."""
    from synthehr.privacy.budget import Budget
    from synthehr.privacy.ledger import Ledger
    from synthehr.privacy.paying import NOT_STATED, user_name

    budget = Budget(epsilon=epsilon, delta=delta)
    ledger = Ledger.open(file, population=population, budget=budget, by=by or user_name(), why=why or NOT_STATED)
    standing = ledger.standing()
    text = f"ledger {file}: epsilon {epsilon:g}, delta {delta:g} for the patients of {population}"
    console.result(f"{text}\n{_note(standing)}", {"ledger": str(file), **_summary(standing)})
    return 0


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@shared_options
def show(*, file: Path, console: Console) -> int:
    """Tell what was spent, is reserved and remains, and every entry of FILE."""
    from synthehr.privacy.ledger import Ledger

    standing = Ledger.at(file).standing()
    rows = [_row(entry) for entry in standing.entries]
    text = "\n".join((*_balance(standing), "", *_columns([_HEADINGS, *rows]), "", _note(standing)))
    entries = [
        {**entry.model_dump(mode="json"), **_floats(entry), "hash": digest}
        for entry, digest in zip(standing.entries, standing.hashes, strict=True)
    ]
    console.result(text, {"ledger": str(file), **_summary(standing), "entries": entries})
    return 0


@command.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--head", help="A head that you noted earlier; it must still be in the chain.")
@shared_options
def verify(*, file: Path, head: str | None, console: Console) -> int:
    """Check that FILE was not tampered with: its triggers, every hash, every sum.

    Exits 3 where something does not hold, and says where. The chain alone cannot show that its last entries were
    cut off, or that all of it was written anew: note the head elsewhere, and give it with --head the next time.
    """
    from synthehr.privacy.ledger import Ledger

    standing = Ledger(file).verify(head=head)
    noted = "" if head is None else "; the noted head is in it"
    text = f"ledger {file}: {len(standing.entries)} entries hold{noted}\n{_note(standing)}"
    console.result(text, {"ledger": str(file), "intact": True, "head_found": head is not None, **_summary(standing)})
    return 0


def left_in(file: Path | None) -> tuple[str, dict[str, Any] | None]:
    """What remains in a ledger after a fit, as a line and as JSON; nothing where there was no ledger."""
    if file is None:
        return "", None
    from synthehr.privacy.chain import plain
    from synthehr.privacy.ledger import Ledger

    left = Ledger.at(file).remaining()
    words = f"\nledger {file}: epsilon {plain(left.epsilon)}, delta {plain(left.delta)} remain"
    return words, {"file": str(file), "remaining": left.as_floats()}


def _note(standing: Standing) -> str:
    return f"head: {standing.head} (note it elsewhere, for ledger verify --head)"


def _summary(standing: Standing) -> dict[str, Any]:
    return {
        "population": standing.opening.population,
        "unit": standing.opening.unit,
        "neighbours": standing.opening.neighbours,
        "total": standing.total.as_floats(),
        "spent": standing.spent.as_floats(),
        "reserved": standing.reserved.as_floats(),
        "remaining": standing.remaining.as_floats(),
        "entry_count": len(standing.entries),
        "head": standing.head,
    }


def _balance(standing: Standing) -> list[str]:
    from synthehr.privacy.chain import plain

    opening = standing.opening
    lines = [f"population {opening.population}; unit {opening.unit}, neighbours {opening.neighbours}"]
    amounts = {
        "total": standing.total,
        "spent": standing.spent,
        "reserved": standing.reserved,
        "remaining": standing.remaining,
    }
    rows = [(name, f"epsilon {plain(a.epsilon)}", f"delta {plain(a.delta)}") for name, a in amounts.items()]
    return lines + _columns(rows)


def _row(entry: Opening | Reserve | Settle) -> tuple[str, ...]:
    from synthehr.privacy.chain import plain

    match entry.kind:
        case "open":
            what = f"population {entry.population}"
        case "reserve":
            what = ", ".join(f"{key} {value}" for key, value in entry.what.items())
        case "settle":
            made = f"release {entry.release[:12]}" if entry.release is not None else "refused, no release"
            what = f"of {entry.reservation}: {made}"
    return (str(entry.seq), entry.when, entry.kind, plain(entry.epsilon), plain(entry.delta), entry.by, what, entry.why)


def _floats(entry: Opening | Reserve | Settle) -> dict[str, float]:
    return {"epsilon": float(entry.epsilon), "delta": float(entry.delta)}


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
