"""Statistics of the engine for Prometheus.  Needs the extra `metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from durabletask_aio.engine.management import management_pb2 as messages
from durabletask_aio.engine.web.formats import LISTED

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Of what `exposition` returns."""


def exposition(statistics: messages.Statistics) -> bytes:
    """Return statistics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Statistics(statistics))
    return generate_latest(registry)


class _Statistics(Collector):
    """Makes metrics of statistics that were taken before."""

    def __init__(self, statistics: messages.Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; called by the registry."""
        yield from self._of_work()
        yield from self._of_storage()

    def _of_work(self) -> Iterator[Metric]:
        now = self._statistics
        info = {"version": now.version, "durability": now.durability}
        yield InfoMetricFamily("durabletask_engine", "The engine.", info)
        started = now.started.ToMicroseconds() / 1e6
        yield GaugeMetricFamily("durabletask_start_time_seconds", "When the engine was started.", started)
        instances = GaugeMetricFamily("durabletask_instances", "Stored instances.", labels=["status"])
        for status in LISTED:
            instances.add_metric([status.key], now.instances.get(status.value, 0))
        yield instances
        for name, counts, text in (
            ("queued", now.queued, "Work items that wait for a worker."),
            ("running", now.running, "Work items that workers hold."),
        ):
            items = GaugeMetricFamily(f"durabletask_{name}_items", text, labels=["kind"])
            for kind, number in sorted(counts.items()):
                items.add_metric([kind], number)
            yield items
        yield GaugeMetricFamily("durabletask_workers", "Connected workers.", len(now.workers))
        yield GaugeMetricFamily("durabletask_timers", "Timers that are not due yet.", now.timers)
        yield CounterMetricFamily("durabletask_commands", "Commands since the start.", now.commands)
        yield CounterMetricFamily("durabletask_commits", "Commits that made them durable.", now.commits)

    def _of_storage(self) -> Iterator[Metric]:
        now = self._statistics
        yield GaugeMetricFamily("durabletask_entities", "Stored entities.", now.entities)
        yield GaugeMetricFamily("durabletask_file_bytes", "Size of the database.", now.file_bytes)
        yield GaugeMetricFamily("durabletask_file_free_bytes", "What of it is not used.", now.free_bytes)
        largest = max((each.event_count for each in now.largest), default=0)
        yield GaugeMetricFamily("durabletask_largest_history_events", "Events of the longest history.", largest)
