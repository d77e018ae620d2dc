"""Find the files of contract (suites, policies, JSON Schemas), installed or in a checkout."""

from __future__ import annotations

from pathlib import Path

from synthehr.errors import InternalError

_PACKAGE = Path(__file__).resolve().parent


def shipped(relative: str) -> Path:
    """Path of a shipped file or folder such as ``evaluation/suites``.

    Raises:
        InternalError: the installation lacks the file.
    """
    for base in (_PACKAGE / "_files", _PACKAGE.parent):
        path = base / relative
        if path.exists():
            return path
    raise InternalError(f"this installation of synthehr lacks {relative!r}: install it again")
