"""What a disk may hold if the power is cut at any moment of a block: what was synced, and of the rest any part.

A file's bytes count as written once it was synced, a name in a folder once the folder was. Before every system call
that changes something, and around every sync, the folder is recorded. From each record follow the states after a cut:
every folder with its names as they were synced last or as they are, and all files with their bytes in the same way.
"""

import itertools
import os
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_recording = []


def _on_event(event, arguments):
    if _recording and (event in CHANGES or (event == "open" and (arguments[2] or 0) & WRITING)):
        _recording[-1].note()


class Disk:
    """The records of a folder. Nodes are inode numbers; open descriptors keep them from being used again."""

    def __init__(self, root):
        self.root, self._held, self._busy = root, {}, False
        self._synced = {}  # {node: bytes of a file, or {name: node} of a folder}
        self._records = []
        self._synced = self._now()
        self.note()

    def note(self):
        """Record the folder as it is."""
        if not self._busy:
            self._records.append((self._now(), dict(self._synced)))

    def sync(self, descriptor):
        """A file or folder is brought to the disk."""
        node = os.fstat(descriptor).st_ino
        now = self._now()
        if node in now:
            self._synced[node] = now[node]

    def after_cuts(self):
        """The different states after cuts, as trees {name: bytes or tree}, in their order."""
        return _unlike(tree for now, synced in self._records for tree in self._trees(now, synced))

    def at_the_end(self):
        """The states if the power is cut when all is done."""
        return _unlike(self._trees(*self._records[-1]))

    def _now(self):
        self._busy = True
        try:
            return dict(self._nodes(self.root))
        finally:
            self._busy = False

    def _nodes(self, path):
        descriptor = os.open(path, os.O_RDONLY)
        about = os.fstat(descriptor)
        node = about.st_ino
        if self._held.setdefault(node, descriptor) != descriptor:
            os.close(descriptor)
        if not stat.S_ISDIR(about.st_mode):
            yield node, path.read_bytes()
            return
        inside = list(path.iterdir())
        yield node, {one.name: one.stat().st_ino for one in inside}
        for one in inside:
            yield from self._nodes(one)

    def _trees(self, now, synced):
        root = self.root.stat().st_ino
        folders = [n for n, found in now.items() if isinstance(found, dict) and synced.get(n, {}) != found]
        assert len(folders) < 8, "so many states would take too long"
        for written in itertools.product((False, True), repeat=len(folders)):
            names = synced | {n: found for n, found in now.items() if isinstance(found, dict) and n not in folders}
            names |= {n: now[n] if done else synced.get(n, {}) for n, done in zip(folders, written, strict=True)}
            for contents in (dict.fromkeys(now, b"") | synced, synced | now):
                yield _tree(root, names, contents)

    def close(self):
        for descriptor in self._held.values():
            os.close(descriptor)


def _tree(node, names, contents):
    if isinstance(names.get(node), dict):
        return {name: _tree(inside, names, contents) for name, inside in names[node].items()}
    return contents[node]


def _unlike(trees):
    seen = []
    for tree in trees:
        if tree not in seen:
            seen.append(tree)
    return seen


@contextmanager
def recorded(root, monkeypatch):
    """Record what the block does in a folder, all of which was synced before; gives a `Disk`."""
    if not getattr(sys, "hears_of_changes", False):  # such a hook stays for ever
        sys.addaudithook(_on_event)
        sys.hears_of_changes = True
    disk = Disk(root)

    def fsync(descriptor, real=os.fsync):
        disk.note()
        real(descriptor)
        disk.sync(descriptor)
        disk.note()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        _recording.append(disk)
        try:
            yield disk
        finally:
            _recording.pop()
            disk.note()
            disk.close()


def put(tree, folder):
    """Write a state into a new folder."""
    Path(folder).mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            put(content, folder / name)
        else:
            (folder / name).write_bytes(content)
    return folder
