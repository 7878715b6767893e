"""What is run, and what has to hold after each fault: all old or new, nothing torn."""

from __future__ import annotations

import enum
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from faults import tree
from nixpatch.fs import is_temporary
from nixpatch.installed import record
from support.injector import Ended, Fault, Injector, Kind, Site, TreeState, copy_tree, state_of, torn
from support.world import World

_Entries = Mapping[str, Mapping[str, object]]
"""by path: what provenance has of a file"""


class Story(enum.Enum):
    """A run to be disturbed."""

    PATCH = "patch"
    """of a tree as it was installed"""
    REPATCH = "repatch"
    """of a patched tree with another wish: every file changes once more"""
    RESTORE = "restore"
    """of a patched tree"""
    LOCK = "lock"
    """of a tree as it was installed; the lock lies in it, so that one look sees both"""
    PAGE = "page"
    """a report as a page, of a patched tree"""
    UNVENDOR = "unvendor"
    """a tree with a grafted library that the store has, too"""
    RETURN = "return"
    """restore, where a grafted library was taken out"""


@dataclass
class Bench:
    """The trees, and what uninterrupted runs make of them."""

    injector: Injector
    world: World
    cache: str
    _sound: dict[tuple[Story, tuple[str, ...]], set[str]] = field(default_factory=dict)
    """states that the next run is known to end well from; most faults lead to one of a few"""

    @property
    def work(self) -> str:
        """The tree that a run works on."""
        return os.path.join(self.world.root, "work")

    @property
    def patched(self) -> str:
        """What RESTORE and REPATCH begin with."""
        return os.path.join(self.world.root, "patched")

    @property
    def grafted(self) -> str:
        """What UNVENDOR begins with."""
        return os.path.join(self.world.root, "grafted")

    @property
    def unvendored(self) -> str:
        """What RETURN begins with."""
        return os.path.join(self.world.root, "unvendored")

    def prepare(self) -> None:
        """Make the patched tree, and fill the cache so that every run makes the same calls."""
        copy_tree(self.world.venv, self.work)
        assert self.injector.run([self.work]).code == 0
        copy_tree(self.work, self.patched)
        tree.graft(self.world, self.grafted)
        copy_tree(self.grafted, self.work)
        assert self.injector.run(self.arguments(Story.UNVENDOR)).code == 0
        copy_tree(self.work, self.unvendored)

    def begin(self, story: Story) -> str:
        """Put the tree that a story begins with in its place; return where that came from."""
        match story:
            case Story.PATCH | Story.LOCK:
                source = self.world.venv
            case Story.REPATCH | Story.RESTORE | Story.PAGE:
                source = self.patched
            case Story.UNVENDOR:
                source = self.grafted
            case _:
                source = self.unvendored
        copy_tree(source, self.work)
        return source

    def arguments(self, story: Story, *more: str) -> list[str]:
        """Return the command line."""
        match story:
            case Story.PATCH:
                return [self.work, *more]
            case Story.REPATCH:
                second = os.path.join(self.world.store, tree.SECOND)
                return [self.work, "--append-rpath", "/nix/extra", "--lib", second, *more]
            case Story.RESTORE | Story.RETURN:
                return ["restore", self.work, *more]
            case Story.LOCK:
                return ["lock", self.work, "--output", os.path.join(self.work, "nixpatch.lock"), *more]
            case Story.PAGE:
                return ["verify", self.work, "--html", os.path.join(self.work, "page.html"), *more]
            case Story.UNVENDOR:
                return [self.work, "--unvendor", *more]

    def uninterrupted(self, story: Story, *more: str) -> tuple[Ended, TreeState, TreeState]:
        """Run a story as it is; return how it ended, and the tree before and after."""
        old = state_of(self.begin(story))
        ended = self.injector.run(self.arguments(story, *more))
        assert ended.code == 0, ended.said
        return ended, old, state_of(self.work)

    def disturb(
        self,
        story: Story,
        fault: Fault,
        sites: Sequence[Site],
        kind: Kind = Kind.CHANGE,
        more: Sequence[str] = (),
    ) -> list[str]:
        """Repeat a story with a fault at each of some sites; return all that is wrong."""
        _, old, new = self.uninterrupted(story, *more)
        kept = {path: _contents(self.work, path) for path in new if _is_book(path)}
        source = self.begin(story)
        kept_before = {path: _contents(source, path) for path in old if _is_book(path)}
        wrong: list[str] = []
        for site in sites:
            self.begin(story)
            ended = self.injector.run(self.arguments(story, *more), fault, kind, site.number)
            now = state_of(self.work)
            found = [
                line
                for line in torn(now, old, new)
                # The book of two dists that share a file may know of one file and not yet of another.
                if not (_is_book(name := line.split(" is ")[0]) and name in now)
                or _is_torn_book(_contents(self.work, name), kept_before.get(name, b""), kept.get(name, b""))
            ]
            if story is not Story.LOCK and story is not Story.PAGE:
                found += (f"no RECORD lists {path}" for path in tree.unlisted(self.work, old))
            found += _ended_badly(fault, ended, complete=now == new, left=_temporary(now))
            found += self._next_run(story, more, now, new)
            wrong += [f"{story.value}, {fault.name} at {site}: {line}" for line in found]
        return wrong

    def restore_after(self, story: Story, sites: Sequence[Site]) -> list[str]:
        """Kill a story at each of some sites and restore the tree; return all that is wrong."""
        original = state_of(self.world.venv)
        wrong: list[str] = []
        for site in sites:
            self.begin(story)
            self.injector.run(self.arguments(story), Fault.KILL_ALL, site.kind, site.number)
            ended = self.injector.run(self.arguments(Story.RESTORE))
            end = state_of(self.work)
            # Without the mode: setuid goes with other contents.
            different = [
                path
                for path in sorted(end.keys() | original.keys())
                if end.get(path, (0, ""))[1] != original.get(path, (0, ""))[1]
            ]
            if different or ended.code != 0:
                wrong.append(f"{site}: exits with {ended.code}, differs in {different}: {ended.said}")
        return wrong

    def _next_run(self, story: Story, more: Sequence[str], now: TreeState, new: TreeState) -> list[str]:
        """Run once more, and hold the tree against that of an uninterrupted run."""
        sound = self._sound.setdefault((story, tuple(more)), set())
        kept = {path: state for path, state in now.items() if not is_temporary(os.path.basename(path))}
        key = json.dumps([kept, sorted({os.path.dirname(path) for path in _temporary(now)})], sort_keys=True)
        if key in sound:
            return []
        ended = self.injector.run(self.arguments(story, *more))
        end = state_of(self.work)
        different = sorted(path for path in end.keys() | new.keys() if end.get(path) != new.get(path))
        if not different and ended.code == 0 and not ended.hung:
            sound.add(key)
            return []
        return [f"the next run exits with {ended.code} and differs in {different}: {ended.said}"]

    def disturb_cache(self, fault: Fault) -> list[str]:
        """Patch with a fault at each call on the cache file; return all that is wrong."""
        self.forget_cache()
        ended, _, new = self.uninterrupted(Story.PATCH)
        sites = [
            site for site in ended.sites if site.path.startswith(self.cache) and site.kind is Kind.CHANGE
        ]
        assert len(sites) > 5
        if fault.is_error and os.environ.get("NIXPATCH_FAULTS") != "all":
            sites = list({(site.call, site.path): site for site in sites}.values())
        wrong: list[str] = []
        for site in sites:
            self.begin(Story.PATCH)
            self.forget_cache()
            ended = self.injector.run(self.arguments(Story.PATCH), fault, Kind.CHANGE, site.number)
            found = [f"exits with {ended.code}: {ended.said}"] if fault.is_error and ended.code else []
            for _ in range(2):  # what is left is read, and mended
                ended = self.injector.run(self.arguments(Story.PATCH))
                if ended.code != 0 or ended.err or "Traceback" in ended.said or state_of(self.work) != new:
                    found.append(f"the next run: {ended.said}")
            wrong += [f"{fault.name} at {site}: {line}" for line in found]
        return wrong

    def forget_cache(self) -> None:
        """Take the cache away."""
        shutil.rmtree(self.cache, ignore_errors=True)


def _ended_badly(fault: Fault, ended: Ended, *, complete: bool, left: list[str]) -> list[str]:
    found: list[str] = []
    if ended.hung:
        found.append("somebody of the run did not end")
    if "Traceback" in ended.said or "Exception" in ended.said:
        found.append(f"a traceback: {ended.said}")
    if fault in {Fault.KILL, Fault.KILL_ALL, Fault.TORN}:
        return found
    if left:
        found.append(f"left behind: {left}")
    if fault.is_error or fault is Fault.SHORT:
        if ended.code == 0 and not complete:
            found.append("exits with 0 and is not done")
        if ended.code not in {0, 1, 3}:
            found.append(f"exits with {ended.code}")
        if ended.code != 0 and os.strerror(fault) not in ended.said:
            found.append(f"does not say why: {ended.said}")
        if (
            ended.code != 0
            and "run nixpatch again" not in ended.said
            and "the file is as it was" not in ended.said
        ):
            found.append(f"does not say what to do: {ended.said}")
    else:
        if ended.code not in {0, 130}:
            found.append(f"exits with {ended.code}: {ended.said}")
        if ended.code == 0 and not complete:
            found.append("exits with 0 and is not done")
        if ended.code == 130 and "interrupted" not in ended.err:
            found.append(f"does not say that it was interrupted: {ended.said}")
    return found


def _temporary(now: TreeState) -> list[str]:
    return [path for path in now if is_temporary(os.path.basename(path))]


def _is_book(path: str) -> bool:
    return os.path.basename(path) in {"RECORD", "nixpatch.json", ".nixpatch.json"}


def _contents(root: str, path: str) -> bytes:
    with open(os.path.join(root, path), "rb") as file:
        return file.read()


def _is_torn_book(now: bytes, old: bytes, new: bytes) -> bool:
    """Whether a RECORD or provenance file holds anything that is neither in the old nor in the new one."""
    if now.startswith(b"{"):
        known = [_entries(data) for data in (old, new) if data]
        try:
            entries = _entries(now)
        except ValueError:
            return True
        return not all(
            any(known_entries.get(path) == entry for known_entries in known)
            or _is_announced(entry, path, known)
            for path, entry in entries.items()
        )
    rows = {row.raw: row.path for data in (old, new) for row in record.parse(data).rows if row.path}
    # nixpatch.json of half a dist has a digest of its own; a file is listed before it is made.
    return not all(
        row.raw in rows
        or (row.path or "").endswith("nixpatch.json")
        or (row.is_announced and row.path in rows.values())
        for row in record.parse(now).rows
    )


def _is_announced(entry: Mapping[str, object], path: str, known: Sequence[_Entries]) -> bool:
    """Whether an entry has what a script was and will be: it is there before the script is changed."""
    rows = [entries[path] for entries in known if path in entries]
    digests = {row["sha256"] for row in rows}
    return (
        entry.get("next_sha256") in digests
        and entry["sha256"] in digests | {entry["original"]}
        and all(entry["original"] == row["original"] for row in rows)
    )


def _entries(data: bytes) -> _Entries:
    document = json.loads(data)
    return {**document["files"], **document.get("texts", {})}
