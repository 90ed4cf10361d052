"""Places in S3-compatible storage, against a real server; boto3 is the second witness."""

import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbtrain.errors import DataError, StorageError
from hbtrain.formats.inputs import numbered_lines
from hbtrain.formats.locations import list_files
from hbtrain.storage import (
    RemoteError,
    RemotePath,
    as_local,
    check_writable,
    fetch,
    folders_in,
    is_remote,
    is_whole,
    local_copy,
    place,
    push,
    pushed,
    quoted,
    remove_tree,
    with_retries,
    write_text,
)
from tests import s3


def tree_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_tree(folder, tree):
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("uri", "bucket", "key", "shown"),
    [
        ("s3://b", "b", "", "s3://b"),
        ("s3://b/", "b", "", "s3://b"),
        ("s3://b/x//y/", "b", "x/y", "s3://b/x/y"),
        ("s3://b/x?scheme=http", "b", "x", "s3://b/x?scheme=http"),
    ],
)
def test_a_uri_has_parts(uri, bucket, key, shown):
    path = RemotePath.parse(uri)
    assert (path.bucket, path.key, str(path)) == (bucket, key, shown)
    assert RemotePath.parse(str(path)) == path


def test_paths_are_joined_before_the_options():
    path = RemotePath.parse("s3://b/x?endpoint_override=localhost:9000&scheme=http") / "run-1" / "model"
    assert str(path) == "s3://b/x/run-1/model?endpoint_override=localhost:9000&scheme=http"
    assert path.address == "s3://b/x/run-1/model"
    assert (path.name, str(path.parent.parent)) == ("model", "s3://b/x?endpoint_override=localhost:9000&scheme=http")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("gs://b/x", "remote storage is s3://bucket/path"),
        ("s3:///x", "names no bucket"),
        ("s3://b/x?color=red", "option 'color'"),
        ("s3://b/../x", "no '..'"),
        ("s3://b/a\nb", "control character"),
        ("file:///runs/no#1", "%23 for #"),
        ("file:///runs/which?", "%3F for a question mark"),
        ("file://server/runs", "file:///path"),
        ("file://", "file:///path"),
    ],
)
def test_what_is_no_place(uri, words):
    with pytest.raises(StorageError, match=words):
        place(uri)


def test_keys_in_a_uri_are_refused_and_not_repeated():
    with pytest.raises(StorageError, match="leave them out") as caught:
        place("s3://AKIAXYZ:topsecret@bucket/x")
    assert "topsecret" not in str(caught.value)
    assert "AKIAXYZ" not in str(caught.value)


def test_paths_of_this_machine(tmp_path):
    assert place(str(tmp_path)) == place(f"file://{tmp_path}") == tmp_path
    assert not is_remote(f"file://{tmp_path}")
    assert is_remote("s3://b/x")
    file = tmp_path / "a.json"
    write_text(file, "{}")
    write_text(file, "[]")
    assert (file.read_text(), [p.name for p in tmp_path.iterdir()]) == ("[]", ["a.json"])
    with as_local(tmp_path) as same, pushed(tmp_path) as as_well:
        assert same == as_well == tmp_path == local_copy(tmp_path)
    check = tmp_path / "step-1"
    check.mkdir()
    (tmp_path / "step-2").touch()
    assert folders_in(tmp_path, "step-*") == ["step-1"]


ODD = "[old] {v} 100%25 50% a+b #1&c=;d'e\"f^~ ключ:@é"


def test_a_place_of_any_name_is_one_for_hbtrain_boto3_and_ray(bucket, tmp_path):
    from pyarrow.fs import FileSystem

    folder = place(f"{bucket.uri}/{ODD}")
    assert place(str(folder)) == folder
    write_text(folder / "a b.txt", "text")
    assert bucket.get(f"{ODD}/a b.txt") == b"text"
    assert folder.children() == {"a b.txt": False}
    filesystem, path = FileSystem.from_uri(quoted(folder))  # as Ray does
    assert path == f"{bucket.name}/{ODD}"
    assert filesystem.open_input_file(f"{path}/a b.txt").read() == b"text"
    assert list_files(str(folder)) == [str(folder / "a b.txt")]
    assert [text for text, _ in numbered_lines(str(folder / "a b.txt"))] == ["text"]
    assert FileSystem.from_uri(quoted(tmp_path / ODD))[1] == str(tmp_path / ODD)


def test_a_file_uri_names_any_path(tmp_path):
    folder = tmp_path / f"{ODD} what?"
    folder.mkdir()
    (folder / "x#1 50%25.txt").write_text("text")
    uri = folder.as_uri()
    assert place(uri) == folder
    (file,) = list_files(uri)
    assert place(file) == folder / "x#1 50%25.txt"
    assert [text for text, _ in numbered_lines(file)] == ["text"]


def test_a_file_is_as_boto3_sees_it(bucket):
    file = place(bucket.uri) / "a" / "b.txt"
    assert not file.exists()
    write_text(file, "größer")
    assert bucket.get("a/b.txt") == "größer".encode()
    assert file.read_text() == "größer"
    assert (file.is_file(), file.parent.is_dir(), file.is_dir()) == (True, True, False)
    assert file.size() == len("größer".encode())
    before = file.version()
    bucket.put("a/b.txt", b"other")
    assert (file.read_bytes(), file.version() == before) == (b"other", False)
    file.unlink()
    assert bucket.keys() == []
    file.unlink(missing_ok=True)
    for act in (file.unlink, file.read_text, file.size, file.version, lambda: fetch(file, None)):
        with pytest.raises(FileNotFoundError):
            act()


def test_options_in_the_uri_do_without_the_environment(bucket, monkeypatch):
    bucket.put("x/a.txt", b"hello")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    host = bucket.endpoint.removeprefix("http://")
    folder = place(f"{bucket.uri}/x?endpoint_override={host}&scheme=http&region=us-east-1")
    assert (folder / "a.txt").read_text() == "hello"
    assert folder.files().keys() == {"a.txt"}


def test_folders(bucket):
    for key in ("runs/step-1/a", "runs/step-2/deep/b", "runs/other/c", "runs/step-file"):
        bucket.put(key, b"x" * 3)
    runs = place(bucket.uri) / "runs"
    assert sorted(folders_in(runs, "step-*")) == ["step-1", "step-2"]
    assert {name: size for name, (size, _) in runs.files().items()} == {
        "step-1/a": 3,
        "step-2/deep/b": 3,
        "other/c": 3,
        "step-file": 3,
    }
    assert folders_in(runs / "nowhere", "*") == []
    remove_tree(runs / "step-2")
    remove_tree(runs / "nowhere")
    assert bucket.keys() == ["runs/other/c", "runs/step-1/a", "runs/step-file"]


names = st.text("abcXYZ09-_. äß", min_size=1, max_size=8).filter(lambda n: n.strip(".") and n != ".unfinished")
names = st.tuples(names, st.sampled_from(["", ".gz", ".bz2", ".zst"])).map("".join)
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=200), min_size=1)


def is_possible(tree):
    """No file is also a folder."""
    return not any(other.startswith(f"{name}/") for name in tree for other in tree)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees.filter(is_possible), earlier=trees.filter(is_possible), replace=st.booleans())
def test_what_is_pushed_and_fetched_is_the_same(bucket, tmp_path_factory, tree, earlier, replace):
    work = tmp_path_factory.mktemp("trees")
    to = place(bucket.uri) / work.name
    if replace:
        write_tree(work / "earlier", earlier)
        push(work / "earlier", to)
    write_tree(work / "tree", tree)
    push(work / "tree", to, replace=replace)
    fetch(to, work / "back")
    assert tree_of(work / "back") == tree
    assert bucket.keys(f"{work.name}/") == sorted(f"{work.name}/{name}" for name in tree)


def test_bytes_are_not_unpacked_or_packed(bucket, tmp_path):
    """pyarrow looks at the names."""
    packed = gzip.compress(b"x" * 100)
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a.gz").write_bytes(packed)
    push(tmp_path / "from", place(bucket.uri) / "x")
    assert bucket.get("x/a.gz") == packed
    fetch(place(bucket.uri) / "x" / "a.gz", tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == packed


def test_several_parts_of_a_large_file(bucket, tmp_path):
    content = bytes(range(256)) * (23 * 2**12)  # 23 MiB: three parts of a multipart upload
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "large").write_bytes(content)
    push(tmp_path / "from", place(bucket.uri) / "x")
    assert bucket.get("x/large") == content
    fetch(place(bucket.uri) / "x", tmp_path / "back")
    assert (tmp_path / "back" / "large").read_bytes() == content


def test_a_push_that_was_cut_off_is_not_taken_for_whole(bucket, tmp_path, monkeypatch):
    write_tree(tmp_path / "model", {"a": b"1", "b": b"2"})
    to = place(bucket.uri) / "model"
    import hbtrain.storage.transfer as module

    def killed(file, to):
        if file.name == "b":
            raise KeyboardInterrupt
        original(file, to)

    original = module.put
    monkeypatch.setattr(module, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        push(tmp_path / "model", to)
    assert bucket.get("model/a") == b"1"
    assert not is_whole(to)
    with pytest.raises(FileNotFoundError):
        fetch(to, tmp_path / "back")
    with pytest.raises(DataError, match="cut off"):
        local_copy(to, str(tmp_path / "cache"))
    monkeypatch.setattr(module, "put", original)
    push(tmp_path / "model", to)
    assert is_whole(to)


def test_nothing_is_pushed_where_the_body_fails(bucket):
    with pytest.raises(ValueError, match="no"), pushed(place(bucket.uri) / "x") as folder:
        (folder / "a").touch()
        raise ValueError("no")
    assert bucket.keys() == []


def test_a_name_that_leads_out_of_the_folder(bucket, tmp_path):
    bucket.put("x/../../evil", b"x")
    with pytest.raises(OSError, match="leads out|no such"):
        fetch(place(bucket.uri) / "x", tmp_path / "in" / "back")
    assert not (tmp_path / "evil").exists()


def test_a_copy_is_fetched_once_and_again_when_it_changes(bucket, tmp_path):
    bucket.put("data/a.jsonl", b"one")
    source, cache, told = place(bucket.uri) / "data" / "a.jsonl", str(tmp_path / "cache"), []
    first = local_copy(source, cache, told.append)
    assert (first.name, first.read_bytes()) == ("a.jsonl", b"one")
    assert local_copy(source, cache, told.append) == first
    assert told == [f"fetching {source} (0.0 MiB)"]
    bucket.put("data/a.jsonl", b"two")
    again = local_copy(source, cache, told.append)
    assert (again.read_bytes(), len(told)) == (b"two", 2)


def test_a_folder_is_copied_whole(bucket, tmp_path):
    bucket.put("data/x/en/a", b"1")
    bucket.put("data/x/de/b", b"2")
    bucket.put("data/x2/c", b"3")  # another folder, though its name begins so
    copy = local_copy(place(bucket.uri) / "data" / "x", str(tmp_path))
    assert (copy.name, tree_of(copy)) == ("x", {"en/a": b"1", "de/b": b"2"})
    bucket.put("data/x/de/b", b"22")
    assert tree_of(local_copy(place(bucket.uri) / "data" / "x", str(tmp_path))) == {"en/a": b"1", "de/b": b"22"}


def test_rights(bucket):
    check_writable(place(bucket.uri) / "runs", "storage")
    assert bucket.keys() == []
    with pytest.raises(StorageError) as caught:
        check_writable(place("s3://no-such-bucket/runs"), "storage")
    message = str(caught.value)
    assert message.startswith("storage = 's3://no-such-bucket/runs' cannot be written: The specified bucket does not")
    assert "\n" not in message
    assert s3.SECRET not in message
    with pytest.raises(DataError, match="cannot fetch s3://no-such-bucket/a: "):
        local_copy(place("s3://no-such-bucket/a"))


def test_storage_that_is_away(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    import hbtrain.storage.remote as module

    module._filesystem.cache_clear()
    with pytest.raises(RemoteError) as caught:
        (place(bucket.uri) / "a").read_text()
    module._filesystem.cache_clear()
    assert caught.value.filename == f"{bucket.uri}/a"
    assert "NETWORK_CONNECTION" in caught.value.strerror


@pytest.mark.parametrize(("code", "tries"), [("NETWORK_CONNECTION", 3), ("ACCESS_DENIED", 1)])
def test_what_passes_is_waited_for(bucket, code, tries):
    """Storage that is away twice is asked a third time; one that refuses is asked once."""
    tried = []

    def act():
        tried.append(1)
        if len(tried) < 3:
            with place(bucket.uri)._errors_of_storage():
                raise OSError(f"When reading: AWS Error {code} during PutObject operation: no")

    if tries == 1:
        with pytest.raises(RemoteError, match="no .ACCESS_DENIED"):
            with_retries(act, for_s=60, every_s=0.01)
    else:
        with_retries(act, for_s=60, every_s=0.01)
    assert len(tried) == tries
    tried.clear()
    with pytest.raises(RemoteError):
        with_retries(act, for_s=0, every_s=0.01)
    assert len(tried) == 1
