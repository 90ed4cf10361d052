"""What a machine may lack: a home folder, short paths, folders that can be written, links that lead somewhere."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from hbtrain.cli.outputs import output_place, written_file
from hbtrain.cluster.connection import SESSION_SOCKET, session_root
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, DataError, StorageError
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.storage import cache_root, check_writable, expand_home, resolved, settle_home
from hbtrain.storage.place import own_temporary_folder


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A user id without an account; temporary files go to a folder of the test."""

    def unknown(user):
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "HBTRAIN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"hbtrain-home-{os.getuid()}"


def test_without_a_home_caches_are_in_a_folder_for_temporary_files(nobody):
    import getpass

    assert cache_root(None) == nobody / ".cache" / "hbtrain"
    assert os.environ["HOME"] == str(nobody)
    assert nobody.stat().st_mode & 0o777 == 0o700
    assert Path.home() == nobody
    assert getpass.getuser() == str(os.getuid())
    assert settle_home() is None, "it has one now"


def test_a_home_in_which_nothing_can_be_made_is_none_and_one_with_a_cache_is_kept(nobody, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_dir())
    assert settle_home() == nobody
    home = tmp_path / "home"
    (home / ".cache").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("HOME", str(home))
    assert settle_home() is None
    assert os.environ["HOME"] == str(home)


def test_a_folder_that_somebody_else_put_there_is_not_taken(nobody, tmp_path):
    nobody.symlink_to(tmp_path)
    with pytest.raises(StorageError, match=r"another user's; set HOME"):
        settle_home()


def test_the_tilde_of_an_unknown_user_stays():
    assert expand_home("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    assert expand_home("~/x") == Path.home() / "x"


def loop(folder):
    (folder / "a.jsonl").symlink_to("b.jsonl")
    (folder / "b.jsonl").symlink_to("a.jsonl")
    return folder / "a.jsonl"


def test_a_link_that_leads_to_itself_is_refused_by_name(tmp_path):
    path = loop(tmp_path)
    assert resolved(path).name in ("a.jsonl", "b.jsonl")
    for benchmark in ("parallel", "beir", "mr-tydi", "squad"):
        with pytest.raises(DataError, match=r"a\.jsonl"):
            load_benchmarks([f"{benchmark}={path}"])
    with pytest.raises(DataError, match=r"a\.jsonl"):
        ParallelCorpus.open([str(path)], str(tmp_path / "cache"))
    with pytest.raises(StorageError, match=r"a\.jsonl"):
        ParallelCorpus.open(["demo"], str(path))


def unwritable_places(folder):
    (folder / "file").touch()
    (folder / "lost").symlink_to("nowhere/at-all")
    return {
        "file": "Not a directory",
        "file/below/it": "Not a directory",
        "lost": "No such file",
        str(loop(folder)): "Too many levels",
        "x" * 300: "File name too long",
        "/proc/results": "No such file",
    }


def test_a_folder_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, reason in unwritable_places(tmp_path).items():
        with pytest.raises(StorageError, match=reason) as error:
            output_place(name)
        assert str(error.value).startswith(f"--output {name} cannot be written: ")
        with pytest.raises(StorageError, match=f"storage = '{name}' cannot be written: .*{reason}"):
            check_writable(Path(name), "storage")
    before = sorted(tmp_path.iterdir())
    assert output_place("new/folder/below") == Path("new/folder/below")
    assert sorted(tmp_path.iterdir()) == before, "nothing is made"


def test_a_file_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"--picture \. is a folder"):
        output_place(".", is_file=True, option="--picture")
    with pytest.raises(StorageError, match=r"--output file/mined\.jsonl cannot be written: Not a directory"):
        output_place("file/mined.jsonl", is_file=True)
    with written_file(output_place("new/mined.jsonl", is_file=True)) as file:
        file.write_text("x")
    assert (tmp_path / "new" / "mined.jsonl").read_text() == "x"


def test_a_full_disk_is_found_before_the_work(tmp_path, monkeypatch):
    def full(**_):
        return Path("/dev/full").open("wb")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StorageError, match=r"--output out cannot be written: No space left on device"):
        output_place("out")


def test_commands_try_their_outputs_first(hbtrain, tmp_path):
    """Before the other arguments, which name nothing that is there, are looked at."""
    (tmp_path / "file").touch()
    tracking = "--tracking.uri=sqlite:///mlflow.db"
    for arguments in (
        ("evaluate", "no-model", "--benchmark", "beir=nowhere", "--output", "file"),
        ("evaluate-run", "no-runs", "--benchmark", "beir=nowhere", "--output", "file/x"),
        ("compare", "no-run", "--output", "file/x/y"),
        ("audit", "quickstart", "--data.sources", "nowhere.jsonl", "--picture", "file/x.png"),
        ("train", "quickstart", "--data.sources", "nowhere.jsonl", "--storage", "file/runs", tracking),
        ("sweep", "alpha-grid", "--data.sources", "nowhere.jsonl", "--storage", "file/runs", tracking),
        ("verify", "quickstart", "--data.sources", "nowhere.jsonl", "--storage", "file/runs"),
    ):
        code, _, err = hbtrain(*arguments)
        assert code == 2
        assert "file" in err
        assert "cannot be written: Not a directory" in err, arguments


def test_a_short_folder_is_chosen_for_rays_sockets(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    short = Path("/tmp") / f"t{os.getpid()}"
    short.mkdir()
    try:
        monkeypatch.setenv("TMPDIR", str(short))
        assert session_root() == f"{short}/ray", "Ray's own choice"
        deep = short / ("d" * (107 - len(f"{short}//{SESSION_SOCKET}")))
        deep.mkdir()
        monkeypatch.setenv("TMPDIR", str(deep))
        assert session_root() == f"{deep}/ray", "just short enough"
        deeper = deep.with_name("é" + deep.name[1:])  # a byte longer
        deeper.mkdir()
        monkeypatch.setenv("TMPDIR", str(deeper))
        assert session_root() == "/tmp/ray"
        monkeypatch.setenv("RAY_TMPDIR", str(short))
        assert session_root() == f"{short}/ray"
        monkeypatch.setenv("RAY_TMPDIR", str(short / "missing"))
        assert session_root() == "/tmp/ray"
    finally:
        for folder in (*short.iterdir(), short):
            folder.rmdir()


def test_no_folder_for_sockets_is_refused_by_the_variable(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/" + "x" * 60)
    monkeypatch.setattr("hbtrain.cluster.connection.SHORT_FOLDERS", ("/proc/none",))
    with pytest.raises(ConfigError, match=r"^TMPDIR = '/x+' is no folder .*; set RAY_TMPDIR .* 39 bytes at most$"):
        session_root()


def test_a_folder_of_this_users_own_is_no_other_users(tmp_path, monkeypatch):
    """Where all may write, another user may have made a folder or a link of a name that can be guessed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = own_temporary_folder("locks")
    assert own.stat().st_mode & 0o077 == 0
    assert own_temporary_folder("locks") == own
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="link is another user's"):
        own_temporary_folder("link")
    own.chmod(0o777)
    with pytest.raises(StorageError, match="can be written by other users"):
        own_temporary_folder("locks")
    own.chmod(0o700)
    monkeypatch.setattr("os.getuid", lambda: own.stat().st_uid + 1)
    with pytest.raises(StorageError, match="locks is another user's"):
        own_temporary_folder("locks")
