"""Writes a spool's segments, and turns its back on a file that could not be written.

After a failed write or sync the system may have thrown away what it could not write, and says so
once. So such a file is cut off, as well as it goes, and neither written nor synced again.
"""

from collections.abc import Mapping
from contextlib import suppress

from tokenworks.client.spool.files import Files, put
from tokenworks.client.spool.records import encode_released, seed_of
from tokenworks.client.spool.recovery import begin
from tokenworks.client.spool.segments import Segment


class SegmentWriter:
    """Appends to the newest segment, and begins new ones; both may raise OSError."""

    def __init__(
        self,
        files: Files,
        *,
        salt: int,
        is_synced_always: bool,
        segment_bytes_max: int,
        current: Segment | None,
    ) -> None:
        self._files = files
        self._salt = salt
        self._is_synced_always = is_synced_always
        self._segment_bytes_max = segment_bytes_max
        self._is_synced = True
        self._begun_bytes = 0
        """Size of the current segment when it was begun."""
        self.current = current
        """The segment that is appended to; None before one is begun."""

    def has_room(self, size_bytes: int, *, first: int) -> bool:
        """Whether so many bytes, with a batch of this number perhaps, go into the current one."""
        segment = self.current
        if segment is None or segment.end != first:
            return False
        # Running reports are written anew into each segment, so it has to be well above them.
        size_max = max(self._segment_bytes_max, 2 * self._begun_bytes)
        is_fresh = segment.size_bytes == self._begun_bytes
        return is_fresh or segment.size_bytes + size_bytes <= size_max

    def begin(self, first: int, *, released: int, running: Mapping[int, bytes]) -> Segment:
        """Begin a segment with this number, on disk when this returns."""
        self._retire()
        segment = Segment(first, seed=seed_of(first, salt=self._salt))
        data = begin(segment, salt=self._salt, released=released, running=running)
        put(self._files, segment.name, data=data)
        self.current = segment
        self._begun_bytes = segment.size_bytes
        return segment

    def write(self, data: bytes, *, is_vital: bool) -> None:
        """Append to the current segment; on disk when this returns if vital, or by policy."""
        assert self.current is not None
        self._files.append(self.current.name, data)
        self._is_synced = False
        if self._is_synced_always or is_vital:
            self._files.sync(self.current.name)
            self._is_synced = True

    def bury(self) -> None:
        """Give the current segment's file up after a fault; what was written before stays in it."""
        segment, self.current = self.current, None
        self._is_synced = True
        if segment is not None:
            with suppress(OSError):
                self._files.truncate(segment.name, size=segment.size_bytes)
            self._files.seal(segment.name)

    def close(self, *, released: int | None) -> None:
        """Write what is left to write; `released`: a number to note, None for nothing."""
        if self.current is not None and released is not None:
            with suppress(OSError):
                note = encode_released(released, seed=self.current.seed)
                self._files.append(self.current.name, note)
                self._is_synced = False
        self._retire()

    def _retire(self) -> None:
        segment, self.current = self.current, None
        if segment is None:
            return
        if not self._is_synced:
            with suppress(OSError):
                self._files.sync(segment.name)
            self._is_synced = True
        self._files.seal(segment.name)
