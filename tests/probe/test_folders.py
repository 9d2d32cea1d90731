"""Session folders: made once, refused where somebody planted one, on which mount they lie, how the caps are shared."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from writers import failing_write

from profilemate.probe import folders
from profilemate.probe import writer as writer_module
from profilemate.probe.settings import Settings


def test_two_sessions_of_one_second_have_two_folders(tmp_path: Path) -> None:
    first, second = (folders.create_session(str(tmp_path), Settings()) for _ in range(2))
    assert first != second
    for path in (first, second):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        assert (Path(path) / "session.json").exists()


def test_a_default_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = str(tmp_path / "vllm_profiling")
    monkeypatch.setattr(folders, "DEFAULT_DIRECTORY", default)
    os.mkdir(default)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(folders.FolderRefusedError):
        folders._checked(default)
    with pytest.raises(folders.FolderRefusedError, match=f"vllm_profiling-{mine + 1} belongs to another user"):
        folders.usable_directory(default)  # made by who runs the test: it is not that user's either


def test_an_unusable_folder_is_refused_with_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(folders.FolderRefusedError, match="cannot be made"):
        folders.create_session(str(file / "below"), Settings())


MOUNTINFO = """
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /tmp rw,nosuid shared:5 - tmpfs tmpfs rw,size=1024k
31 22 0:27 / /data rw - autofs systemd-1 rw,fd=40
32 31 0:28 / /data rw - nfs4 server:/export rw,vers=4.2
33 22 0:29 / /with\\040space\\011tab rw - cifs //server/share rw
34 22 0:30 / /größe rw - fuse.sshfs you@there: rw
35 34 254:1 / /größe/local rw - xfs /dev/vdb rw
36 22 0:31 / /data2 rw - fuse.gocryptfs /dev/fuse rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/somewhere", "ext4"),
        ("/tmp/vllm_profiling", "tmpfs"),
        ("/tmpfoo", "ext4"),
        ("/data/profiles", "nfs4"),
        ("/data", "nfs4"),
        ("/data2/x", "fuse.gocryptfs"),
        ("/with space\ttab/x", "cifs"),
        ("/größe/x", "fuse.sshfs"),
        ("/größe/local/x", "xfs"),
    ],
)
def test_the_type_of_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str) -> None:
    (tmp_path / "mountinfo").write_bytes(MOUNTINFO.lstrip().encode())
    monkeypatch.setattr(folders, "MOUNTS", str(tmp_path / "mountinfo"))
    monkeypatch.setattr(os.path, "realpath", lambda path: path)
    assert folders.mount_type(path) == kind
    assert (kind in folders.NETWORK) == (kind in ("nfs4", "cifs", "fuse.sshfs"))


@pytest.mark.parametrize("content", [None, b"", b"nonsense\n", b"\xff\x00 - \n"])
def test_a_mount_that_nobody_knows_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "mountinfo").write_bytes(content)
    monkeypatch.setattr(folders, "MOUNTS", str(tmp_path / "mountinfo"))
    assert folders.mount_type("/tmp") == ""


def test_a_session_that_could_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_write(monkeypatch, [OSError(errno.ENOSPC, "full")])
    with pytest.raises(OSError, match="full"):
        folders.create_session(str(tmp_path), Settings())
    assert list(tmp_path.iterdir()) == []


def test_in_memory_all_caps_are_a_quarter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caps = ("session_cap_bytes", "folder_cap_bytes", "disk_floor_bytes")
    for kind, part in (("tmpfs", 4), ("ext4", 1)):
        monkeypatch.setattr(folders, "mount_type", lambda path, kind=kind: kind)
        path = folders.create_session(str(tmp_path), Settings())
        recorded = json.loads((Path(path) / "session.json").read_text())["settings"]
        assert [recorded[cap] * part for cap in caps] == [getattr(Settings(), cap) for cap in caps]


@pytest.mark.parametrize(("cap", "processes", "share"), [(1000, 1, 1000), (1000, 3, 333), (1000, 0, 1000), (0, 5, 0)])
def test_the_cap_of_a_session_is_shared_out(cap: int, processes: int, share: int) -> None:
    assert writer_module.process_share(Settings(session_cap_bytes=cap), processes) == share


def test_the_mount_of_shared_memory_is_memory_backed() -> None:
    assert folders.mount_type("/dev/shm") in folders.MEMORY_BACKED
    assert folders.mount_type("/proc") == "proc"
