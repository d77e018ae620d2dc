from __future__ import annotations

from pathlib import Path

import pytest

from synthehr.errors import SchemaError
from synthehr.schema.files import load_schema

GOOD = """
synthehr: 1
subject: patient
tables:
  patient:
    columns:
      age: &years {kind: integer, bounds: [0, 120]}
      age_at_end: {<<: *years, nullable: true}
      born: {kind: date, bounds: [1900-01-01, 2020-12-31]}
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "schema.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_yaml_file_is_read_with_merge_keys_and_dates(tmp_path: Path) -> None:
    schema = load_schema(written(tmp_path, GOOD))
    assert schema.root.columns["age_at_end"].bounds == (0, 120)
    assert schema.root.columns["age_at_end"].nullable


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [", "not valid YAML at line 1"),
        ("a: 1\na: 2\n", "key 'a' stands twice"),
        ("- a\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("{[1]: 2}", "not valid YAML"),
        ("a: 2021-13-45\n", "not valid YAML"),
        ("!!python/object:os.system x", "not valid YAML"),
        (b"\xff\xfea", "not UTF-8"),
        (GOOD.replace("      born:", "      no:"), "put it in quotes"),
        (GOOD.replace("      born:", "      1:"), "put it in quotes"),
    ],
)
def test_a_file_that_is_no_schema_is_told_in_one_line(tmp_path: Path, text: str | bytes, what: str) -> None:
    with pytest.raises(SchemaError) as told:
        load_schema(written(tmp_path, text))
    assert what in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="cannot be read"):
        load_schema(tmp_path / "none.yaml")
