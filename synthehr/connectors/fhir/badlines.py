"""Records that cannot be read: what is wrong with them, where they stand, and what becomes of the run."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from synthehr.errors import ConfigError, DataError

__all__ = ["ON_BAD_ROW", "BadRecord", "BadRowPolicy", "OnBadRow", "write_quarantine"]

OnBadRow: TypeAlias = Literal["fail", "drop", "quarantine"]
ON_BAD_ROW: tuple[OnBadRow, ...] = ("fail", "drop", "quarantine")
MOST_BAD = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A record that is left out. It says where, never what stands there.

    Attributes:
        file: number of the input file, in the order of reading, from 0.
        line: line of the file, from 1; a bundle that fills a file stands on line 1.
        offset: byte of the unpacked file at which the line, or the resource in a bundle, begins.
        reason: one of a fixed set of phrases.
    """

    file: int
    line: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRowPolicy:
    """What a bad record does to the run.

    Attributes:
        mode: ``fail`` stops at the first, ``drop`` leaves them out, ``quarantine`` also lists where they stand.
        most: share of the records, from 0 to 1, above which ``drop`` and ``quarantine`` stop the run.
    """

    mode: OnBadRow = "fail"
    most: float = MOST_BAD

    def __post_init__(self) -> None:
        if self.mode not in ON_BAD_ROW:
            raise ConfigError(f"on_bad_row must be one of {', '.join(ON_BAD_ROW)}, not {self.mode!r}")
        if not 0.0 <= self.most <= 1.0:
            raise ConfigError(f"the share of bad rows that is let pass must lie between 0 and 1, not {self.most}")

    def check(self, bad: Sequence[BadRecord], *, records: int, names: Sequence[str]) -> None:
        """Stop the run where the policy says so.

        Args:
            bad: all that was found, in the order of reading.
            records: how many records there were, bad ones included.
            names: what to call each input file in a message.

        Raises:
            DataError: names file, line, byte offset and rule of the first bad record; or says that too many are bad.
        """
        if not bad:
            return
        if self.mode == "fail":
            first = bad[0]
            raise DataError(
                f"{names[first.file]}, line {first.line}, byte {first.offset}: {first.reason}: "
                "correct it, or leave such records out with --on-bad-row drop or quarantine"
            )
        if len(bad) > self.most * records:
            common = Counter(one.reason for one in bad).most_common(1)[0][0]
            raise DataError(
                f"more than {self.most:g} of the records are bad (most often: {common}): "
                "correct the source, or raise --max-bad-share"
            )


def write_quarantine(path: Path, bad: Sequence[BadRecord], *, files: Sequence[str]) -> None:
    """Write file, line, byte offset and reason of each bad record as CSV that its owner alone can read.

    Raises:
        ConfigError: the file exists or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"quarantine list {str(path)!r} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("file", "line", "byte_offset", "reason"))
        rows.writerows((files[one.file], one.line, one.offset, one.reason) for one in bad)
