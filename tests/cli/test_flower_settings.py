"""Who may look at Flower, and where it listens."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from app.errors import NotAllowed
from app.settings import BadSetting, Settings
from workers.flower import make
from workers.flower_auth import FILE, credentials


def test_what_is_given_counts_and_no_file_is_made(tmp_path: Path) -> None:
    assert credentials("ops:long-enough:with-colon", str(tmp_path)) == "ops:long-enough:with-colon"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["ops", "ops:short", ":no-user-here", "ops:with space", "öps:long-enough", "a:b\n"]
)
def test_what_is_no_user_and_password(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadSetting, match="MUSTER_FLOWER_AUTH is not user:password"):
        credentials(text, str(tmp_path))
    (tmp_path / FILE).touch(0o600)
    with pytest.raises(BadSetting, match=FILE):
        credentials("", str(tmp_path))


def test_one_password_however_many_ask_for_the_first(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(credentials("", str(tmp_path)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    credentials("", str(tmp_path))
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(NotAllowed, match="can be read by others"):
        credentials("", str(tmp_path))


@pytest.mark.parametrize(
    "bind", ["", "5555", ":5555", "127.0.0.1", "127.0.0.1:x", "a b:1", "127.0.0.1:5555/x", "127.0.0.1:65536"]
)
def test_where_it_cannot_listen(bind: str) -> None:
    with pytest.raises(BadSetting, match="MUSTER_FLOWER_BIND"):
        make(Settings(flower_bind=bind, flower_auth="ops:long-enough"))
