"""The swarm's figures for Prometheus. Owns the names of the metrics; their values are the status page's."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kinoswarm_coordinator.views import SwarmView
from kinoswarm_coordinator.web.health import Health


def metrics_of(view: SwarmView, health: Health) -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Swarm(view, health))
    return generate_latest(registry)


class _Swarm(Collector):
    def __init__(self, view: SwarmView, health: Health) -> None:
        self._view = view
        self._health = health

    def collect(self) -> list[Metric]:
        view = self._view
        return [
            GaugeMetricFamily("kinoswarm_nodes_online", "Volunteers heard of lately.", view.online),
            GaugeMetricFamily("kinoswarm_nodes", "Volunteers that ever joined.", view.num_nodes),
            CounterMetricFamily(
                "kinoswarm_samples_trained", "Samples in accepted training.", view.samples_trained
            ),
            CounterMetricFamily(
                "kinoswarm_flops_trained",
                "Floating point operations of accepted training.",
                view.flops_trained,
            ),
            CounterMetricFamily(
                "kinoswarm_sent_bytes", "Bytes sent since the coordinator's start.", view.bytes_up
            ),
            CounterMetricFamily(
                "kinoswarm_received_bytes",
                "Bytes received since the coordinator's start.",
                view.bytes_down,
            ),
            GaugeMetricFamily(
                "kinoswarm_release", "Version of the newest release.", _newest_release(view)
            ),
            self._contributions(),
            *self._clusters(),
            self._checks(),
        ]

    def _contributions(self) -> Metric:
        family = GaugeMetricFamily(
            "kinoswarm_contributions",
            "Train contributions by what became of them.",
            labels=["state"],
        )
        for state, count in self._view.contributions_by_state.items():
            family.add_metric([state], count)
        return family

    def _clusters(self) -> list[Metric]:
        version = GaugeMetricFamily(
            "kinoswarm_expert_version", "Newest version of an expert.", labels=["cluster"]
        )
        loss = GaugeMetricFamily(
            "kinoswarm_expert_heldout_loss", "Held-out loss of that version.", labels=["cluster"]
        )
        training = GaugeMetricFamily(
            "kinoswarm_segments_under_way", "Open train leases.", labels=["cluster"]
        )
        for cluster in self._view.clusters:
            label = [str(cluster.cluster)]
            version.add_metric(label, cluster.version)
            training.add_metric(label, cluster.training)
            newest = cluster.versions[-1].heldout_loss if cluster.versions else None
            if newest is not None:
                loss.add_metric(label, newest)
        return [version, loss, training]

    def _checks(self) -> Metric:
        family = GaugeMetricFamily(
            "kinoswarm_check_good", "1 where a check of /health is good.", labels=["check"]
        )
        for check in self._health.checks:
            family.add_metric([check.name], float(check.state == "good"))
        return family


def _newest_release(view: SwarmView) -> int:
    return max((release.version for release in view.releases if release.published), default=0)
