from __future__ import annotations

import stat
from pathlib import Path

import pytest

from synthehr.connectors.folders import new_folder, withhold
from synthehr.errors import ConfigError


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "1"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_ends_early_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_not_even_an_empty_folder_made_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="exists"), new_folder(tmp_path / "there"):
        pass
    with pytest.raises(ConfigError, match="exists"), new_folder(tmp_path / "late"):
        (tmp_path / "late").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists"), new_folder(tmp_path / "dangling"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "late", "there"]


def test_the_parent_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "out", tmp_path / "none" / "out"):
        with pytest.raises(ConfigError, match="parent must be an existing folder"), new_folder(out):
            pass


def test_a_private_folder_is_its_owners_alone(tmp_path: Path) -> None:
    with new_folder(tmp_path / "split", private=True) as folder:
        (folder / "train").mkdir()
        (folder / "train" / "a").write_text("1")
        withhold(folder)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert modes == {"split": 0o700, "train": 0o700, "a": 0o600}
