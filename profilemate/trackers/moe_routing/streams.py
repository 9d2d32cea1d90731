"""The tracker's streams."""

from profilemate.probe.process import THIS
from profilemate.trackers.moe_routing import events

LAYERS = THIS.writer.stream(events.LAYERS, detail=False)
COUNTS = THIS.writer.stream(events.COUNTS)
PAIRS = THIS.writer.stream(events.PAIRS)
STREAMS = (LAYERS, COUNTS, PAIRS)
