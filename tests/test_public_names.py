"""The public surface: few names, each there, none heavy before it is used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import synthehr

HEAVY = ("torch", "opacus", "pandas", "polars", "numpy", "scipy", "sklearn", "matplotlib", "great_expectations")
BUSINESS_SOURCE = ("sdv", "ctgan", "rdt", "copulas", "deepecho", "sdmetrics")


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a new Python process has loaded after running ``code``."""
    watched = HEAVY + BUSINESS_SOURCE
    tell = f"import sys\n{code}\nprint('loaded:', *sorted(set({watched!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("loaded:", 1)[1].split())


def test_there_are_at_most_twenty_and_each_is_there() -> None:
    assert len(synthehr.__all__) <= 20
    assert len(set(synthehr.__all__)) == len(synthehr.__all__)
    for name in synthehr.__all__:
        assert getattr(synthehr, name) is not None
    assert set(synthehr.__all__) <= set(dir(synthehr))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pipelines'"):
        _ = synthehr.pipelines


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert synthehr.__version__ == project["version"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import synthehr; synthehr.__version__; synthehr.DataError") == set()


def test_help_loads_nothing_heavy() -> None:
    helps = ["--help", "demo --help", "schema check --help", "fit --help", "sample --help", "evaluate --help"]
    calls = "\n".join(f"assert main({words.split()}) == 0" for words in [*helps, "synthesize --help", "--version"])
    assert loaded_after(f"from synthehr.cli import main\n{calls}") == set()


def test_reading_and_checking_records_load_no_torch() -> None:
    assert "torch" not in loaded_after("import synthehr.pipeline")


def test_the_synthesizers_for_sdv_and_the_baselines_load_no_sdv_before_they_need_it() -> None:
    loaded = loaded_after("import synthehr.sdv, synthehr.comparison, synthehr.schema.sdv, synthehr.cli.synthesize")
    assert not loaded & set(BUSINESS_SOURCE)
