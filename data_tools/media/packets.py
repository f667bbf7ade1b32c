"""Packets of a file on one clock that never runs back: recordings glued together begin theirs anew."""

from collections.abc import Iterator
from typing import cast

import av
from av.container import InputContainer
from av.format import Flags
from av.stream import Stream

# As ffmpeg does it: in formats whose clock may be set anew (MPEG transport and program streams), a stamp that lies so
# far ahead of the one expected, or so far behind the last one, begins another recording. It is joined to the end.
AHEAD_S = 10.0
BEHIND_S = 0.1
# Streams of one recording lie apart in the file: what comes late still has the stamps of the recording before.
_SAME_RECORDING_S = 1.0


def packets(container: InputContainer, stream: Stream, others: list[Stream]) -> Iterator[av.Packet]:
    """Every packet of `stream` in the order of the file, its stamps on one clock; the last one is empty, to flush.

    others: streams whose packets are looked at too. Whoever reads another stream of the same file names the same ones:
    both then find the recordings' borders at the same places, and picture and sound stay together.
    """
    if not container.format.flags & cast(int, Flags.ts_discont.value):
        yield from container.demux(stream)
        return
    clock = _JoinedClock()
    for packet in container.demux(*{each.index: each for each in (stream, *others)}.values()):
        clock.join(packet)
        if packet.stream.index == stream.index:
            yield packet


class _JoinedClock:
    """Shift of each recording in seconds, and where each stream is."""

    def __init__(self) -> None:
        # Of the recording that is read, and of the one before it.
        self._shift_s, self._shift_before_s = 0.0, 0.0
        self._last_s: dict[int, float] = {}
        self._next_s: dict[int, float] = {}

    def join(self, packet: av.Packet) -> None:
        """Move the stamps of the next packet of the file to its place on the one clock."""
        if packet.dts is None or packet.time_base is None:
            return
        tick_s = float(packet.time_base)
        index, stated_s = packet.stream.index, packet.dts * tick_s
        shift_s = self._shift_of(index, stated_s)
        self._last_s[index] = stated_s + shift_s
        self._next_s[index] = stated_s + shift_s + (packet.duration or 0) * tick_s
        if ticks := round(shift_s / tick_s):
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks

    def _shift_of(self, index: int, stated_s: float) -> float:
        expected_s = self._next_s.get(index)
        if expected_s is None:
            return self._shift_s
        if self._shift_before_s != self._shift_s:
            nearer = min(self._shift_s, self._shift_before_s, key=lambda shift_s: abs(stated_s + shift_s - expected_s))
            if abs(stated_s + nearer - expected_s) <= _SAME_RECORDING_S:
                return nearer
        at_s = stated_s + self._shift_s
        if at_s - expected_s > AHEAD_S or at_s + BEHIND_S < self._last_s[index]:
            self._shift_before_s, self._shift_s = self._shift_s, expected_s - stated_s
        return self._shift_s
