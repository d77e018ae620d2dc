"""schemas/config is what the models say, and describes the files that are really read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from synthehr._files import shipped
from synthehr.cli.nafld1 import SCHEMA
from synthehr.config_schemas import config_schemas

FOLDER = Path(__file__).parent.parent / "schemas" / "config"
NAMES = ("schema", "policy", "suite", "manifest", "provenance", "report", "store")


def published(name: str) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    return contents


def test_the_published_schemas_are_in_step_with_the_models() -> None:
    generated = config_schemas()
    assert sorted(generated) == sorted(f"{name}.schema.json" for name in NAMES)
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert found == generated, "run: python -m synthehr.config_schemas schemas/config"


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(published(name))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (name, path)
        for name, folder in (("policy", "privacy/policies"), ("suite", "evaluation/suites"))
        for path in sorted(shipped(folder).glob("*.yaml"))
    ],
)
def test_shipped_files_follow_them(name: str, path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), published(name))


def test_the_schema_of_the_demo_follows_and_an_unknown_key_does_not() -> None:
    jsonschema.validate(SCHEMA, published("schema"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**SCHEMA, "tabels": {}}, published("schema"))
