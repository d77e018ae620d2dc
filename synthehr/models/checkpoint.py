"""What an interrupted fit goes on from: bought things, weights, optimiser state, and how far rows were touched.

A folder that its owner alone can enter (mode 0700), with one safetensors file that is replaced whole by renaming, and
a lock that lets one process at a time go on. It never holds a row, a batch, or the state of a generator of noise.
What it holds of chance is the key that chose which rows of a patient are learned from: see privacy/MECHANISMS.md, 10.

A stage is written down as begun before it touches rows, and its outcome after; what was bought is never bought again.

- A private gradient is counted before it is taken. Those that were counted and whose outcome was lost are not taken
  again: what ended the fit may have been the size of their own batch.
- Histograms whose outcome was lost are bought again under the event that was booked for them. What was lost was in the
  memory of a process that is gone; nobody saw it, and what ended the process did not depend on it.

Either way the account of a resumed fit is that of an uninterrupted one.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from synthehr.errors import ConfigError, DataError

__all__ = ["Checkpoint"]

_FORMAT = "synthehr checkpoint 1"
_FILE = "fit.safetensors"
_SECONDS = 20.0
_LIES = "an interrupted fit lies at {!r}: go on with it with --resume, or remove the folder; what it spent stays spent"


class Checkpoint:
    """The state of one fit, on disk where it has a path.

    Attributes:
        path: of the folder, or None to keep nothing.
        options: what must be the same when the fit goes on; public.
        fit: a random name of the fit, under which a ledger finds its reservation.
        state: what is known so far, as JSON.
        tensors: what is known so far, as arrays.
    """

    def __init__(self, path: Path | None, *, options: Mapping[str, Any]) -> None:
        self.path = path
        self.options = dict(options)
        self.fit = secrets.token_hex(16)
        self.state: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self._saved = time.monotonic()
        self._lock: int | None = None

    @staticmethod
    def check_none(path: Path) -> None:
        """Refuse to begin where an interrupted fit lies.

        Raises:
            ConfigError: one does.
        """
        if path.exists():
            raise ConfigError(_LIES.format(str(path)))

    @classmethod
    def begin(cls, path: str | Path | None, *, options: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint of a new fit, on disk when this returns.

        Raises:
            ConfigError: an interrupted fit lies there, or the folder cannot be made.
        """
        new = cls(Path(path) if path is not None else None, options=options)
        if new.path is not None:
            try:
                new.path.mkdir(mode=0o700)
                _onto_disk(new.path.parent)
            except FileExistsError as error:
                raise ConfigError(_LIES.format(str(new.path))) from error
            except OSError as error:
                raise ConfigError(
                    f"checkpoint {str(new.path)!r} cannot be made: its parent must be a folder"
                ) from error
            new._hold()
        new.save()
        return new

    @classmethod
    def resume(cls, path: str | Path, *, options: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint of an interrupted fit.

        Args:
            path: of its folder.
            options: those of the fit that is to go on; one that is None is taken from the interrupted fit.

        Raises:
            ConfigError: there is none, its fit had other options, or another process goes on with it.
            DataError: it cannot be read, or is not of this version.
        """
        held = cls(Path(path), options=options)
        assert held.path is not None
        if not held.path.is_dir():
            raise ConfigError(f"there is no interrupted fit at {str(held.path)!r}: start one without --resume")
        held._hold()
        try:
            held._take_up(options)
        except BaseException:
            held.release()
            raise
        held.save()
        return held

    def _take_up(self, options: Mapping[str, Any]) -> None:
        assert self.path is not None
        if not (self.path / _FILE).exists():  # it ended before it began
            return
        try:
            with safe_open(self.path / _FILE, framework="pt") as file:
                known = file.metadata() or {}
                if known.get("format") != _FORMAT:
                    raise DataError(f"checkpoint {str(self.path)!r} is not one of this version")
                self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            self.options, self.state = json.loads(known["options"]), json.loads(known["state"])
            self.fit = known["fit"]
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"checkpoint {str(self.path)!r} cannot be read: it is not as it was written") from error
        wanted = json.loads(json.dumps(dict(options)))
        differ = sorted(n for n, value in wanted.items() if value is not None and self.options.get(n) != value)
        if differ:
            raise ConfigError(
                f"the interrupted fit at {str(self.path)!r} had another {' and another '.join(differ)}: "
                "go on with the same options, or remove the folder; what it spent stays spent"
            )
        self.state["resumed"] = self.resumed + 1

    @property
    def resumed(self) -> int:
        """How often the fit was taken up again."""
        return int(self.state.get("resumed", 0))

    def due(self) -> bool:
        """Whether the last save was long enough ago."""
        return self.path is not None and time.monotonic() - self._saved > _SECONDS

    def put(self, *, tensors: Mapping[str, Tensor] | None = None, **state: Any) -> None:
        """Add to what is known, and save it."""
        self.state.update(state)
        self.tensors.update({name: value.detach().cpu().clone() for name, value in (tensors or {}).items()})
        self.save()

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose names begin so, under the rest of their names."""
        return {n.removeprefix(prefix): value for n, value in self.tensors.items() if n.startswith(prefix)}

    def drop(self, prefix: str) -> None:
        """Forget arrays whose names begin so; the next save leaves them out."""
        self.tensors = {name: value for name, value in self.tensors.items() if not name.startswith(prefix)}

    def save(self) -> None:
        """Write the file anew, whole, and onto the disk.

        Raises:
            ConfigError: it cannot be written.
        """
        self._saved = time.monotonic()
        if self.path is None:
            return
        metadata = {
            "format": _FORMAT,
            "fit": self.fit,
            "options": json.dumps(self.options),
            "state": json.dumps(self.state),
        }
        content = save(self.tensors or {"nothing": torch.zeros(1)}, metadata=metadata)
        aside = self.path / f"{_FILE}.new"
        try:
            with os.fdopen(os.open(aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self.path / _FILE)  # noqa: PTH105 - Path.replace would do the same
            _onto_disk(self.path)
        except OSError as error:
            raise ConfigError(f"checkpoint {str(self.path)!r} cannot be written: it needs a folder you own") from error

    def remove(self) -> None:
        """Take it away: the fit is done, or can never be gone on with."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let another process go on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold(self) -> None:
        assert self.path is not None
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise ConfigError(f"another process goes on with the fit at {str(self.path)!r}: wait for it") from error


def _onto_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
