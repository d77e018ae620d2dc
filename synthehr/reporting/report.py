"""The report of an evaluation, and its folder of four files."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from synthehr.errors import ConfigError
from synthehr.evaluation.suite import Check, SuiteResult, Verdict
from synthehr.reporting.document import BoughtProfile, PrivacyClaim, ReportDocument, build_document
from synthehr.reporting.html import render_html
from synthehr.reporting.junit import render_junit
from synthehr.reporting.markdown import render_markdown
from synthehr.reporting.notebook import Figure, figures_of, framed
from synthehr.reporting.publish import public_document

__all__ = ["PrivacyClaim", "Report", "save_document"]


class Report:
    """What a suite found, what the release promises, and where both came from.

    Computed on real records and so itself private: for the custodian alone.

    Args:
        result: of the suite.
        privacy: the release's claim; None where the cohort was evaluated without its release.
        provenance: where the cohorts and the code came from, as a mapping of JSON values.
        bought: what the public form shows of columns.
    """

    __slots__ = ("document", "result")

    def __init__(
        self,
        result: SuiteResult,
        *,
        privacy: PrivacyClaim | None,
        provenance: Mapping[str, Any],
        bought: tuple[BoughtProfile, ...] = (),
    ) -> None:
        self.result = result
        self.document: ReportDocument = build_document(result, privacy=privacy, provenance=provenance, bought=bought)

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

    def public(self) -> ReportDocument:
        """What may leave the custodian: verdicts, and shares that the release bought; no number of real patients."""
        return public_document(self.document)

    def figures(self) -> Mapping[str, Figure]:
        """The plots of the report by name; a notebook draws each, and ``save`` writes it as a page of its own."""
        return figures_of(self.document)

    def save(self, folder: str | Path, *, audience: Literal["internal", "public"] = "internal") -> Path:
        """Write report.json, report.html, report.md and junit.xml; the folder appears whole or not at all.

        Args:
            folder: new or empty.
            audience: ``internal``, and only the owner may read the folder; or ``public``, which is coarse.

        Raises:
            ConfigError: ``folder`` exists and is not an empty folder, or cannot be written.
        """
        return save_document(self.public() if audience == "public" else self.document, folder)

    def _repr_html_(self) -> str:
        """The first screen of the report, in a frame of its own."""
        return framed(render_html(self.document), height=760)


def save_document(document: ReportDocument, folder: str | Path) -> Path:
    """Write the four files of a document; the folder appears whole or not at all.

    Raises:
        ConfigError: ``folder`` exists and is not an empty folder, or cannot be written.
    """
    path = Path(folder).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"report folder {str(folder)!r} must be new or empty: give another or remove it")
    contents = document.model_dump(mode="json")
    files = {
        "report.json": json.dumps(contents, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "report.html": render_html(document),
        "report.md": render_markdown(document),
        "junit.xml": render_junit(document),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        being_written = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ConfigError(f"report folder {str(folder)!r} cannot be written: {error.strerror}") from error
    try:
        for name, text in files.items():
            (being_written / name).write_text(text, encoding="utf-8", errors="replace")
        if document.audience == "public":
            being_written.chmod(0o755)
        being_written.rename(path)
    except OSError as error:
        raise ConfigError(f"report folder {str(folder)!r} cannot be written: {error.strerror}") from error
    finally:
        if being_written.exists():
            shutil.rmtree(being_written)
    return path
