"""Folders that one process has to itself."""

import os
from pathlib import Path

import pytest

from btnet_ext.whole_files import locked


def nobody() -> None:
    pytest.fail("there is nobody to wait for")


def test_a_locked_folder_is_made(tmp_path: Path) -> None:
    with locked(tmp_path / "a/b", nobody):
        assert (tmp_path / "a/b").is_dir()


def test_a_folder_that_vanishes_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the process before has just removed it."""
    folder, real = tmp_path / "folder", os.open
    removed: list[Path] = []

    def vanish(path: Path, flags: int) -> int:
        if not removed:
            removed.append(path)
            path.rmdir()
        return real(path, flags)

    monkeypatch.setattr(os, "open", vanish)
    with locked(folder, nobody):
        assert (removed, folder.is_dir()) == ([folder], True)


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file"), locked(tmp_path / "file", nobody):
        pass
