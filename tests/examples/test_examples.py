from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_does_what_it_claims(path: Path, tmp_path: Path) -> None:
    runpy.run_path(str(path))["main"](tmp_path)


def test_there_are_examples() -> None:
    assert EXAMPLES
