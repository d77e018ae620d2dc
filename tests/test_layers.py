"""Imports point one way, and the parts that must not know each other do not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from importlinter import api
from importlinter.application.use_cases import lint_imports

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "synthehr"


def test_the_layers_hold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    contracts = api.read_configuration()["contracts_options"]
    assert [contract["type"] for contract in contracts][:1] == ["layers"]
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None), capsys.readouterr().out


def imports(path: Path) -> set[str]:
    """The modules that a file imports, inside its functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", ["evaluation", "reporting", "connectors", "schema", "cli"])
def test_only_the_pipeline_knows_the_models(package: str) -> None:
    for path in (PACKAGE / package).rglob("*.py"):
        known = {name for name in imports(path) if name.startswith(("synthehr.models", "torch", "opacus"))}
        assert known <= {"synthehr.models.training"}, path  # cli: the type of a progress report alone
        if package != "cli":
            assert not known, path


def test_errors_import_nothing() -> None:
    assert imports(PACKAGE / "errors.py") == {"__future__"}


def test_great_expectations_is_known_in_one_place() -> None:
    users = {path.name for path in PACKAGE.rglob("*.py") if any("great_expectations" in i for i in imports(path))}
    assert users == {"validation.py"}


def test_there_is_no_pickle() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not imports(path) & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, path
