"""What another user may have planted where ours should be: refused with a sentence, the target untouched, nothing waits."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_values import ODD_FILES

from profilemate.probe import folders, planted
from profilemate.probe.process import Process
from profilemate.probe.settings import Settings
from profilemate.probe.stream import Stream
from profilemate.schema.probe_tables import GAPS

OTHER = 12_345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make what belongs to another user")


@pytest.fixture
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default folder of this test; it is not there."""
    path = tmp_path / "vllm_profiling"
    monkeypatch.setattr(folders, "DEFAULT_DIRECTORY", str(path))
    return path


def refusal(directory: Path) -> str:
    """The sentence with which a folder is refused; the folder's parent must be as it was."""
    before = sorted(directory.parent.iterdir())
    with pytest.raises(folders.FolderRefusedError) as refused:
        folders.create_session(str(directory), Settings())
    assert sorted(directory.parent.iterdir()) == before
    sentence = str(refused.value)
    assert "\n" not in sentence and "PROFILEMATE_DIR" in sentence
    return sentence


def give_away(path: Path) -> Path:
    os.lchown(path, OTHER, OTHER)
    return path


@as_root
@pytest.mark.parametrize("target", ["folder", "file", "nowhere"])
def test_a_link_of_another_user_is_refused_whatever_it_leads_to(default: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    default.symlink_to(tmp_path / target)
    give_away(default)
    assert f"vllm_profiling is a link that belongs to another user (uid {OTHER})" in _refused_by_check(default)
    assert list((tmp_path / "folder").iterdir()) == [] and (tmp_path / "file").read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()


def _refused_by_check(directory: Path) -> str:
    with pytest.raises(folders.FolderRefusedError) as refused:
        folders._checked(str(directory))
    return str(refused.value)


@as_root
def test_a_default_folder_of_another_user_gives_way_to_one_of_our_own(default: Path) -> None:
    default.mkdir(mode=0o777)
    give_away(default)
    session = Path(folders.create_session(str(default), Settings()))
    assert session.parent.name == f"vllm_profiling-{os.getuid()}"
    assert list(default.iterdir()) == []


@as_root
def test_both_default_folders_of_another_user_are_refused(default: Path) -> None:
    """Who can plant the one can plant the other."""
    for path in (default, default.with_name(f"vllm_profiling-{os.getuid()}")):
        path.mkdir(mode=0o777)
        give_away(path)
    assert f"vllm_profiling-{os.getuid()} belongs to another user" in refusal(default)


def test_a_default_folder_that_all_can_write_is_refused_unless_it_is_sticky(default: Path) -> None:
    default.mkdir()
    default.chmod(0o777)
    assert f"everybody may rename what lies in {default}; chmod 700 {default}" in _refused_by_check(default)
    default.chmod(0o1777)
    assert folders._checked(str(default)) == str(default)


def test_a_chosen_folder_that_all_can_write_is_the_users_choice(tmp_path: Path) -> None:
    """As an emptyDir volume is."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume").chmod(0o777)
    session = Path(folders.create_session(str(tmp_path / "volume"), Settings()))
    assert stat.S_IMODE(session.stat().st_mode) == 0o700


def test_a_dangling_link_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "sessions").symlink_to(tmp_path / "gone")
    sentence = refusal(tmp_path / "sessions")
    assert f"sessions is a link to {tmp_path / 'gone'}, which is not there; remove it" in sentence
    assert not (tmp_path / "gone").exists()


def test_a_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "sessions").symlink_to(tmp_path / "disk")
    assert Path(folders.create_session(str(tmp_path / "sessions"), Settings())).resolve().parent == tmp_path / "disk"


@as_root
def test_a_link_of_another_user_among_the_parents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    link = tmp_path / "mine"
    link.symlink_to(tmp_path / "theirs")
    give_away(link)
    with pytest.raises(folders.FolderRefusedError, match=f"{link} is a link that belongs to another user"):
        folders.create_session(str(link / "deep" / "sessions"), Settings())
    assert list((tmp_path / "theirs").iterdir()) == []


@pytest.mark.parametrize("name", [name for name in ODD_FILES if name not in ("folder", "dangling", "loop")])
def test_what_is_no_folder_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    ODD_FILES[name](tmp_path / "sessions")
    assert "is not a folder" in refusal(tmp_path / "sessions")


def test_a_planted_session_of_this_second_is_stepped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.time, "strftime", lambda form: "20260101_000000")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "session_20260101_000000").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "session_20260101_000000_2").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "session_20260101_000000_3")
    assert Path(folders.create_session(str(tmp_path), Settings())).name == "session_20260101_000000_4"
    assert list((tmp_path / "elsewhere").iterdir()) == [] and not (tmp_path / "nowhere").exists()


def planted_session(tmp_path: Path, plant: Callable[[Path], None]) -> Path:
    session = Path(folders.create_session(str(tmp_path), Settings()))
    plant(session)
    return session


@as_root
@pytest.mark.parametrize("which", ["", "processes"])
def test_a_session_that_another_user_made_is_not_joined(tmp_path: Path, which: str) -> None:
    """Its owner could read all that is written into it."""
    session = planted_session(tmp_path, lambda path: give_away(path / which) and None)  # type: ignore[func-returns-value]
    with pytest.raises(folders.FolderRefusedError, match=f"belongs to another user \\(uid {OTHER}\\)"):
        folders.join_session(str(session), Settings())


@pytest.mark.parametrize("which", ["", "processes"])
def test_a_session_that_is_a_link_is_not_joined(tmp_path: Path, which: str) -> None:
    session = Path(folders.create_session(str(tmp_path / "in"), Settings()))
    moved = (session / which).rename(tmp_path / "moved")
    (session / which).symlink_to(moved)
    before = sorted(moved.rglob("*"))
    with pytest.raises(folders.FolderRefusedError, match="not a folder but a link"):
        folders.join_session(str(session), Settings())
    assert sorted(moved.rglob("*")) == before


def test_a_refusal_leaves_serving_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that may not record says so in one line, and its hooks go on without a file."""
    monkeypatch.setenv("PROFILEMATE_ENABLE", "1")
    for name in ("PROFILEMATE_SESSION", "PROFILEMATE_SESSION_OWNER", "PROFILEMATE_SECRET"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "sessions").symlink_to(tmp_path / "gone")
    process = Process()
    process.settings = Settings(directory=str(tmp_path / "sessions"))
    process.take_role("EngineCore", launches=True)
    process.writer.gaps.add((1, "x", 1, "y"))
    process.flush()
    told = capsys.readouterr().err.strip().splitlines()
    assert process.off and len(told) == 1 and "off, nothing is recorded" in told[0] and "which is not there" in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sessions"]


@pytest.mark.parametrize("name", list(ODD_FILES))
def test_a_planted_stream_is_never_written_into(tmp_path: Path, name: str) -> None:
    ODD_FILES[name](tmp_path / "gaps.csv")
    before = os.lstat(tmp_path / "gaps.csv")
    stream = Stream(GAPS, detail=False)
    stream.add((1, "t", 1, "why"))
    data, rows = stream.take()
    with pytest.raises(OSError):
        stream.write(str(tmp_path), data, rows)
    assert os.path.samestat(before, os.lstat(tmp_path / "gaps.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gaps.csv"]


@pytest.mark.parametrize("name", [name for name in ODD_FILES if name != "folder"])
def test_a_record_takes_the_place_of_what_was_planted(tmp_path: Path, name: str) -> None:
    """Also where the file that it is first written to is guessed: neither is written through nor waited for."""
    ODD_FILES[name](tmp_path / "process.json")
    ODD_FILES[name](tmp_path / f"process.json.{os.getpid()}.new")
    folders.write_json(str(tmp_path / "process.json"), {"a": 1})
    assert json.loads((tmp_path / "process.json").read_text()) == {"a": 1}
    assert stat.S_IMODE(os.lstat(tmp_path / "process.json").st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["process.json"]


@pytest.mark.parametrize("name", list(ODD_FILES))
def test_looking_for_the_session_of_a_process_waits_for_nothing(tmp_path: Path, name: str) -> None:
    """A child of a fork server looks through the folder; whoever can write there may have left a pipe."""
    (tmp_path / "session_20990101_000000").mkdir()
    ODD_FILES[name](tmp_path / "session_20990101_000000" / "session.json")
    session = folders.create_session(str(tmp_path), Settings())
    assert folders.session_of_process(str(tmp_path), os.getpid()) == session


@as_root
def test_a_session_of_another_user_that_names_this_process_is_not_taken(tmp_path: Path) -> None:
    session = folders.create_session(str(tmp_path), Settings())
    assert folders.session_of_process(str(tmp_path), os.getpid()) == session
    give_away(Path(session))
    assert folders.session_of_process(str(tmp_path), os.getpid()) == ""


def test_a_record_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_bytes(b"[" * 2_000_000)
    assert len(planted.record_bytes(str(tmp_path / "session.json"))) == planted.MOST_RECORD_BYTES
    assert not folders.takes_part(str(tmp_path), os.getpid())
