import os
import sys

import pytest

from tandem_datasets.errors import TandemError
from tandem_policies import replacing
from tandem_policies.replacing import replacing_directory
from tandem_training.engine.folder import drop_if_empty, holds_something, locked, recover

TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.scandir")


def publish(target, version):
    with replacing_directory(target) as fresh:
        (fresh / "a").write_text(version)
        (fresh / "b").write_text(version)


def content(target):
    return {(target / "a").read_text(), (target / "b").read_text()}


def publish_and_die(target, at):
    """Publishes in a child process that dies at its file system access number ``at``; False if it came through."""
    child = os.fork()
    if child == 0:
        left = [at]

        def count(event, _):
            if event in TOUCHES:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)

        sys.addaudithook(count)
        publish(target, "new")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_kill_at_any_access_leaves_the_old_or_the_new_whole(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(replacing.ctypes, "CDLL", lambda *_, **__: object())  # a libc without renameat2
    seen = set()
    for at in range(200):
        target = tmp_path / str(at) / "best"
        target.parent.mkdir()
        publish(target, "old")
        died = publish_and_die(target, at)
        if exchange:
            assert target.exists()
        recover(target)
        assert len(content(target)) == 1
        seen |= content(target)
        publish(target, "newer")  # what the dead one left behind does not matter
        assert content(target) == {"newer"}
        assert os.listdir(target.parent) == ["best"]
        if not died:
            break
    assert at > 10
    assert seen == {"old", "new"}


def test_second_lock_is_refused(tmp_path):
    with locked(tmp_path / "out", "tandem train"):
        with pytest.raises(TandemError, match=f"in use by process {os.getpid()}"), locked(tmp_path / "out", "x"):
            pass
        assert not holds_something(tmp_path / "out")
    with locked(tmp_path / "out", "tandem train"):
        pass


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TandemError, match="out="), locked(tmp_path / "file" / "out", "tandem train"):
        pass


def test_drop_if_empty(tmp_path):
    with locked(tmp_path / "a", "x"):
        drop_if_empty(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "kept").touch()
    drop_if_empty(tmp_path / "b")
    assert (tmp_path / "b" / "kept").exists()
