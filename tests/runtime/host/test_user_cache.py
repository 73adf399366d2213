"""Folders that others may write to are no place for a cache, wherever they are above it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedpack import PackError
from embedpack.host.user_cache import check_folders_above, check_private

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system knows no owners")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A private folder two levels below `tmp_path`."""
    folder = tmp_path / "upper" / "lower" / "cache"
    folder.mkdir(parents=True, mode=0o700)
    return folder


def refusal(cache: Path) -> str:
    with pytest.raises(PackError) as caught:
        check_folders_above(cache)
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775, 0o1777])
def test_folders_in_which_nobody_else_can_move_the_cache(cache: Path, mode: int) -> None:
    cache.parents[1].chmod(mode)
    check_folders_above(cache)


@pytest.mark.parametrize("level", [0, 1])
def test_a_folder_that_everybody_may_write_to(cache: Path, level: int) -> None:
    cache.parents[level].chmod(0o777)
    assert refusal(cache) == (
        f"{cache}: everybody may write to {cache.parents[level]} above it; choose a folder of your own with "
        "$EMBEDPACK_CACHE, or with --cache of embedpack prepare"
    )


def test_a_folder_behind_a_link(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cache.parent)
    check_folders_above(tmp_path / "link" / "cache")
    cache.parent.chmod(0o777)
    assert "everybody may write to" in refusal(tmp_path / "link" / "cache")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_or_link_of_another_user(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cache.parent)
    os.lchown(tmp_path / "link", 65_534, -1)
    assert f"{tmp_path / 'link'} above it belongs to another user" in refusal(tmp_path / "link" / "cache")
    os.chown(cache.parents[1], 65_534, -1)
    assert f"{cache.parents[1]} above it belongs to another user" in refusal(cache)


def test_messages_have_a_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.chmod(0o777)
    with pytest.raises(PackError, match=rf"others may write to it; run: chmod go-w {cache}$"):
        check_private(cache)
    (cache / "link").symlink_to(cache)
    with pytest.raises(PackError, match=r"a symbolic link; remove it, and run embedpack prepare again$"):
        check_private(cache / "link")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(PackError, match=r"belongs to another user; choose a folder of your own with \$EMBEDPACK_CACHE"):
        check_private(cache)
