"""The command ``synthehr``: one module a command, loaded when it is called."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

import click

from synthehr.errors import SynthehrError

__all__ = ["main"]

_COMMANDS = {
    "demo": "Take a real public cohort through the whole way.",
    "schema": "Draft a schema, check records against it, hand it to other tools.",
    "check": "Say what happens to each column of records, and why.",
    "convert": "Turn records of one form into another, FHIR into tables.",
    "fit": "Learn a differentially private release from records.",
    "sample": "Draw synthetic patients from a release.",
    "evaluate": "Measure a synthetic cohort beside the real ones, and decide.",
    "audit": "Try to break the promise of a release, or of its mechanisms.",
    "report": "Show, compare and publish reports.",
    "guard": "Refuse to commit real records.",
    "synthesize": "Split, fit, sample and evaluate in one go.",
    "ledger": "Keep account of all releases of the same patients.",
}

_EPILOG = """\b
Exit codes: 0 done, 1 internal error, 2 usage, 3 bad input, 4 budget refused,
5 gate failed, 6 gate inconclusive, 130 interrupted.
SYNTHEHR_TRACEBACK=1 shows where an error arose; it may show values from records."""


class _Commands(click.Group):
    """Commands by name, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names, in the order in which they are used."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import one command."""
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"synthehr.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="synthehr", message="%(package)s %(version)s")
def synthehr() -> None:
    """Differentially private synthetic electronic health records."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: the words after ``synthehr``; those of the process where left out.

    Returns:
        The exit code. What goes wrong is told in one line on stderr, without any value from a record.
    """
    try:
        with _terminable(), _quiet_libraries():
            words = list(sys.argv[1:] if args is None else args)
            with synthehr.make_context("synthehr", words) as context:
                code: object = synthehr.invoke(context)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last place to say it in one line; a panic of polars too
        return _told(error)
    return code if isinstance(code, int) else 0


def _told(error: BaseException) -> int:
    """Tell what went wrong in one line on stderr, and give its exit code."""
    if isinstance(error, BrokenPipeError):  # whoever read stdout has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return 2
    if os.environ.get("SYNTHEHR_TRACEBACK") == "1":
        traceback.print_exception(error)
    match error:
        case click.Abort() | KeyboardInterrupt():
            code, message = 130, f"interrupted: {str(error) or 'nothing was written'}"
        case click.ClickException():
            code, message = 2, error.format_message()
        case SynthehrError():
            code, message = error.exit_code, str(error)
        case _:  # its text may quote a record, so only its type is told
            code, message = 1, f"internal error: {type(error).__name__}; nothing was written"
    click.echo(f"synthehr: error: {' '.join(message.split())}", err=True)
    return code


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the warnings of libraries off stderr, unless Python was asked to show them."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it leaves nothing half-written."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
