"""`Axis`: the horizontal positions of a timeline's drawing."""

from __future__ import annotations

import math
from bisect import bisect
from datetime import datetime
from itertools import accumulate

from durabletask_aio.testing.timeline import RESOLUTION, Timeline, duration_text, offset_text

_MIN_TICK_DISTANCE = 78.0
"""Pixels between two ticks, so that their labels do not overlap."""


class Axis:
    """Maps times to pixels, on a scale that shortens long gaps.

    A workflow may wait for days and then do ten things in a second, which a linear scale would draw as one line.  The
    width of each gap between two moments grows with the logarithm of its duration instead.
    """

    def __init__(self, timeline: Timeline, *, left: float, width: float) -> None:
        moments = {timeline.start, timeline.end}
        for row in timeline.rows:
            for bar in row.bars:
                moments |= {bar.start, bar.end}
        for start, end in timeline.suspensions:
            moments |= {start, end}
        self._moments = sorted(moments)
        weights = [
            1 + math.log10(1 + (after - before).total_seconds() * 1000)
            for before, after in zip(self._moments, self._moments[1:], strict=False)
        ]
        scale = width / sum(weights) if weights else 0.0
        offsets = accumulate((weight * scale for weight in weights), initial=left)
        self._positions = dict(zip(self._moments, offsets, strict=True))

    def position(self, moment: datetime) -> float:
        """Return the position of a time; the scale within a gap is linear."""
        if moment in self._positions:
            return self._positions[moment]
        following = min(max(bisect(self._moments, moment), 1), len(self._moments) - 1)
        before, after = self._moments[following - 1], self._moments[following]
        part = min(max((moment - before) / (after - before), 0.0), 1.0)
        return self._positions[before] + part * (self._positions[after] - self._positions[before])

    def ticks(self, timeline: Timeline) -> list[tuple[float, str]]:
        """Return positions and labels of as many moments as there is room for.

        A label is the time since the start.  One that would repeat the label before it, such as `+2 d` two seconds
        after two days, is the time since that tick: `2 s later`.
        """
        ticks: list[tuple[float, str]] = []
        previous = timeline.start
        last_offset = ""
        for moment in self._moments:
            x = self.position(moment)
            if ticks and (x - ticks[-1][0] < _MIN_TICK_DISTANCE or moment - previous < RESOLUTION):
                continue
            offset = offset_text(timeline, moment)
            ticks.append((x, offset if offset != last_offset else f"{duration_text(moment - previous)} later"))
            previous, last_offset = moment, offset
        return ticks
