"""``synthehr guard``: a hook before a commit."""

from __future__ import annotations

from pathlib import Path

import click

from synthehr.cli.options import schema_option
from synthehr.cli.output import VERDICT_CODES, Console, shared_options

__all__ = ["command"]


@click.command("guard")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "--private",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File or folder of real records; every split/ below this folder is one in any case.",
)
@schema_option(required=False)
@shared_options
def command(*, files: tuple[Path, ...], private: tuple[Path, ...], schema: Path | None, console: Console) -> int:
    """Refuse files that hold real records, or synthetic ones without provenance.

    FILES are what is about to be committed; pre-commit names them. Refused is a file of a private folder, a table
    with a row that only one private patient has, a table with the columns of private ones, or FHIR, without a
    PROVENANCE.json beside it that says synthetic. Exits 5 where one is refused. No value is quoted.
    """
    from synthehr.commits import find_splits, refusals

    folders = [*private, *find_splits(Path())]
    found = refusals(files, private=folders, schema=schema)
    lines = [f"{one.file}: {one.why}" for one in found]
    if not folders:
        lines.append("no private folder is known here: name one with --private, or nothing is compared with it")
    lines.append(f"{len(found)} of {len(files)} files refused")
    document = {"refused": [{"file": str(one.file), "why": one.why} for one in found], "private": bool(folders)}
    console.result("\n".join(lines), document)
    return VERDICT_CODES["fail"] if found else 0
