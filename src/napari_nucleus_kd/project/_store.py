"""The files of one image's labels: a base that never changes, and a journal of what was saved since."""

from __future__ import annotations

import shutil
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import ProjectError, WriteError
from napari_nucleus_kd.io.atomic import make_folder
from napari_nucleus_kd.project._base import Base, base_path, write_base_steps
from napari_nucleus_kd.project._journal import (
    block_region,
    blocks_in,
    numbered,
    read_blocks,
    read_entries,
    write_entry,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from pathlib import Path

    from napari_nucleus_kd.project._base import Pair
    from napari_nucleus_kd.project._journal import Block, Content, Entry
    from napari_nucleus_kd.types import Progress, Region


@dataclass(frozen=True, slots=True)
class Start:
    """What counts of the files: the number of the base, and of the first entry after it."""

    base: int
    first_entry: int


class Store:
    """Base and journal of one image, as they were when they were opened, and what was saved since.

    Attributes
    ----------
    damage : what is wrong with the files and what to do, for a person; "" if nothing is.
    newest : number of the newest entry that has a block, by block; others are as in the base.
    """

    def __init__(self, folder: Path, shape_yx: tuple[int, int], start: Start):
        self._folder, self._shape, self._start = folder, shape_yx, start
        self._base: Base | None = None
        self._entries: dict[int, Entry] = {}
        self.newest: dict[Block, int] = {}
        self.damage = self._look()

    def __len__(self) -> int:
        """Return how many saves came after the base."""
        return len(self._entries)

    @property
    def readable(self) -> bool:
        """Whether the base is there and sound."""
        return self._base is not None

    @property
    def last(self) -> int:
        """Number of the last entry."""
        return self._start.first_entry + len(self._entries) - 1

    @property
    def saved_s(self) -> float:
        """When it was saved last, in seconds since 1970; 0 if that cannot be told."""
        last = self._entries.get(self.last)
        try:
            return (last.path if last else base_path(self._folder, self._start.base)).stat().st_mtime
        except OSError:
            return 0.0

    def read(self, region: Region, newest: Mapping[Block, int]) -> Pair:
        """Read labels and verified pixels of a region: the base, and over it the newest entries.

        Parameters
        ----------
        region : its corners are corners of blocks, or of the image.
        newest : what counts of the entries; usually `newest`.

        Raises
        ------
        ProjectError : the files are damaged.
        """
        if self._base is None:
            raise ProjectError(self.damage)
        labels, verified = self._base.read(region)
        wanted: dict[int, list[Block]] = defaultdict(list)
        for block in blocks_in(region):
            if block in newest:
                wanted[newest[block]].append(block)
        for number, blocks in wanted.items():
            entry = self._entries.get(number)
            if entry is None:
                raise ProjectError(f"{self._folder} was rewritten while it was read; read it again")
            for block, numbers, checked in read_blocks(entry, blocks, self._shape):
                part = block_region(block, self._shape).within(region).slices
                labels[part], verified[part] = numbers, checked
        return labels, verified

    def append(self, blocks: Iterable[Content]) -> int:
        """Save blocks, all or none; return how many there were.

        Raises
        ------
        WriteError : the disk refuses.
        """
        entry = write_entry(self._journal, self.last + 1, blocks)
        if entry is None:
            return 0
        self._entries[entry.number] = entry
        self.newest |= dict.fromkeys(entry.blocks, entry.number)
        return len(entry.blocks)

    def new_base_steps(
        self, newest: Mapping[Block, int], pixel_size_um: float | None
    ) -> Generator[Progress, None, int]:
        """Write a base of what the entries in `newest` leave; it counts only once it is adopted.

        Returns
        -------
        The number of the base.

        Raises
        ------
        ProjectError, WriteError
        """
        number = self._start.base + 1
        path = base_path(self._folder, number)
        shutil.rmtree(path, ignore_errors=True)  # of a run that was killed before it was adopted
        yield from write_base_steps(path, self._shape, pixel_size_um, lambda r: self.read(r, newest))
        Base(path, self._shape)  # complete, or what it replaces would be taken away for nothing
        return number

    def adopt(self, start: Start) -> None:
        """Go on from another base, which project.json names by now, and remove what it replaces."""
        self._base = Base(base_path(self._folder, start.base), self._shape)
        self._start = start
        self._entries = {n: entry for n, entry in self._entries.items() if n >= start.first_entry}
        self.newest = {block: n for block, n in self.newest.items() if n >= start.first_entry}
        self.tidy()

    def set_damaged_aside(self) -> Path:
        """Move the damaged entry, and those after it, into a folder; return it.

        Raises
        ------
        ProjectError : the base itself is damaged, or nothing is. WriteError : the disk refuses.
        """
        if not self.damage or self._base is None:
            raise ProjectError(self.damage or f"{self._folder} is not damaged")
        taken = [path.name.removeprefix("damaged-") for path in self._folder.glob("damaged-*")]
        aside = self._folder / f"damaged-{max((int(n) for n in taken if n.isdigit()), default=0) + 1}"
        make_folder(aside)
        # The newest first: if this stops half-way, the damaged one still tells that something is wrong.
        for number, paths in sorted(numbered(self._journal).items(), reverse=True):
            for path in paths if number > self.last else ():
                _move(path, aside / path.name)
        self.damage = self._look()
        return aside

    def tidy(self) -> None:
        """Remove what counts no more: unfinished files, and bases and entries that the base replaced.

        Nothing is removed while anything is damaged.
        """
        if self.damage:
            return
        make_folder(self._journal)
        strays = [*self._folder.glob(".*.partial"), *self._journal.glob(".*.partial")]
        kept = base_path(self._folder, self._start.base)
        strays += [path for path in self._folder.glob("base-*.ome.zarr") if path != kept]
        for number, paths in numbered(self._journal).items():
            strays += paths if number < self._start.first_entry else []
        for path in strays:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # another program looks at it; next time, then
                    path.unlink()

    @property
    def _journal(self) -> Path:
        return self._folder / "journal"

    def _look(self) -> str:
        """Look at what is on the disk; return what is wrong with it."""
        path = base_path(self._folder, self._start.base)
        try:
            for place in (self._folder, self._journal, path):
                _check_inside(place, self._folder.parent)
            self._base = Base(path, self._shape)
        except ProjectError as error:
            return str(error)
        entries, damage = read_entries(self._journal, self._start.first_entry)
        self._entries = {entry.number: entry for entry in entries}
        self.newest = {block: entry.number for entry in entries for block in entry.blocks}
        return damage and (
            f"{damage}. All that was saved before it is there ({len(entries)} saves), what came after is "
            "not. Restore the file from a backup, or set it aside to go on without it; nothing was deleted"
        )


def _check_inside(path: Path, project: Path) -> None:
    """Raise ProjectError if a link leads out of the project."""
    if not path.resolve().is_relative_to(project.resolve()):
        raise ProjectError(
            f"{path} leads out of the project, to {path.resolve()}; put the real folder in its place"
        )


def _move(path: Path, to: Path) -> None:
    try:
        path.rename(to)
    except OSError as error:
        raise WriteError(f"{path} cannot be moved to {to}: {error.strerror or error}") from error
