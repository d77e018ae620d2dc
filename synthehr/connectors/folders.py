"""Output folders that appear whole or not at all, and never replace what is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synthehr.errors import ConfigError

__all__ = ["check_new", "new_folder", "new_private_file", "withhold"]


def check_new(path: str | Path) -> Path:
    """The absolute path of an output that may be written: it does not exist and its parent is a folder.

    Raises:
        ConfigError: it exists, or its parent is no folder that can be written.
    """
    target = Path(path).absolute()
    if target.exists() or target.is_symlink():
        raise ConfigError(f"output {str(path)!r} exists: choose another path or remove it")
    if not target.parent.is_dir():
        raise ConfigError(f"output {str(path)!r} cannot be written: its parent must be an existing folder")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"output {str(path)!r} cannot be written: its parent folder is not writable")
    return target


@contextmanager
def new_folder(path: str | Path, *, private: bool = False) -> Iterator[Path]:
    """A hidden folder beside ``path``, for its owner alone, that takes its name when the block ends well.

    Whatever ends the block early, an interrupt included, leaves nothing behind.

    Args:
        path: the new folder.
        private: it holds real records: nobody but the owner may ever open it.

    Raises:
        ConfigError: see :func:`check_new`.
    """
    target = check_new(path)
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ConfigError(f"output {str(path)!r} cannot be written: {error.strerror}") from error
    try:
        yield aside
        if not private:
            aside.chmod(0o777 & ~_umask())
        check_new(target)  # a rename would take the place of an empty folder made meanwhile
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def new_private_file(path: str | Path, text: str) -> None:
    """Write a new file that its owner alone can read, whole or not at all.

    Raises:
        ConfigError: see :func:`check_new`.
    """
    target = check_new(path)
    handle, aside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        check_new(target)
        Path(aside).rename(target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def withhold(folder: Path) -> None:
    """Let nobody but the owner into a folder of real records: folders 0700, files 0600."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
