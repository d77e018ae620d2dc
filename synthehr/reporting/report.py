"""The report of an evaluation, and its folder of four files."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthehr.errors import ConfigError
from synthehr.evaluation.suite import Check, SuiteResult, Verdict
from synthehr.reporting.document import PrivacyClaim, ReportDocument, build_document
from synthehr.reporting.html import render_html
from synthehr.reporting.junit import render_junit
from synthehr.reporting.markdown import render_markdown

__all__ = ["PrivacyClaim", "Report"]


class Report:
    """What a suite found, what the release promises, and where both came from.

    Computed on real records and so itself private: for the custodian alone.

    Args:
        result: of the suite.
        privacy: the release's claim; None where the cohort was evaluated without its release.
        provenance: where the cohorts and the code came from, as a mapping of JSON values.
    """

    __slots__ = ("document", "result")

    def __init__(self, result: SuiteResult, *, privacy: PrivacyClaim | None, provenance: Mapping[str, Any]) -> None:
        self.result = result
        self.document: ReportDocument = build_document(result, privacy=privacy, provenance=provenance)

    @property
    def verdict(self) -> Verdict:
        """Pass, fail or inconclusive."""
        return self.result.verdict

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks of the suite, in order."""
        return self.result.checks

    def __repr__(self) -> str:
        """The suite and its verdict; no number computed on real records."""
        return f"Report(suite={self.result.suite!r}, verdict={self.verdict!r})"

    def to_json(self) -> dict[str, Any]:
        """The contents of ``report.json``; no number in it is NaN or infinite."""
        contents: dict[str, Any] = self.document.model_dump(mode="json")
        return contents

    def save(self, folder: str | Path) -> Path:
        """Write report.json, report.html, report.md and junit.xml; the folder appears whole or not at all.

        Only the owner may read the folder.

        Raises:
            ConfigError: ``folder`` exists and is not an empty folder, or cannot be written.
        """
        path = Path(folder).absolute()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"report folder {str(folder)!r} must be new or empty: give another or remove it")
        files = {
            "report.json": json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            "report.html": render_html(self.document),
            "report.md": render_markdown(self.document),
            "junit.xml": render_junit(self.document),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            being_written = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        except OSError as error:
            raise ConfigError(f"report folder {str(folder)!r} cannot be written: {error.strerror}") from error
        try:
            for name, text in files.items():
                (being_written / name).write_text(text, encoding="utf-8", errors="replace")
            being_written.rename(path)
        except OSError as error:
            raise ConfigError(f"report folder {str(folder)!r} cannot be written: {error.strerror}") from error
        finally:
            if being_written.exists():
                shutil.rmtree(being_written)
        return path
