"""JSON Schemas of every file that the tool reads or writes, generated from the models that check them.

``python -m synthehr.config_schemas schemas/config`` writes them; a test keeps the files in step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

__all__ = ["config_schemas", "main"]


def config_schemas() -> dict[str, str]:
    """The text of each JSON Schema, by file name."""
    from synthehr.connectors.store import StoreManifest
    from synthehr.evaluation.suite import Suite
    from synthehr.manifest import Manifest, Provenance
    from synthehr.privacy.policy import Policy
    from synthehr.reporting.document import ReportDocument
    from synthehr.schema.model import Schema

    read: dict[str, type[BaseModel]] = {"schema": Schema, "policy": Policy, "suite": Suite}
    written: dict[str, type[BaseModel]] = {
        "manifest": Manifest,
        "provenance": Provenance,
        "report": ReportDocument,
        "store": StoreManifest,
    }
    texts = {}
    for name, model in {**read, **written}.items():
        # A reader may leave defaults out; a file we wrote has every key.
        contents = model.model_json_schema(mode="validation" if name in read else "serialization")
        contents = {"$schema": "https://json-schema.org/draft/2020-12/schema", **contents}
        texts[f"{name}.schema.json"] = json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
    return texts


def main(folder: Path) -> None:
    """Write the JSON Schemas into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in config_schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
