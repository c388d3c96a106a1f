"""Every metric of every service, by name, in one place. Prefix `backupmx_`; labels are bounded: the relay
domain at most, never an id, a recipient or somebody else's domain. docs/metrics.md is made of this file.
"""

from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from libs.runtime.tally import Tally, Times

PREFIX = "backupmx_"
SERVICES = ("ingest", "verify", "deliver", "control")
PARENT = "ingest's parent"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series of each counter, which nobody asks for


class Described(NamedTuple):
    """A metric for people. `kind`: counter, gauge or histogram; `services`: who exports it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    services: tuple[str, ...]
    text: str


class _Of:
    """Makes the metrics of `services`. A process exports those of the services that it runs; the others are
    there to be written to, and nobody sees them."""

    def __init__(self, metrics: "Metrics", *services: str) -> None:
        self._services, self._described = services, metrics.described
        exported = not metrics.running.isdisjoint(services)
        self.registry = metrics.registry if exported else None

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._named(name, "counter", labels, text), text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._named(name, "gauge", labels, text), text, labels, registry=self.registry)

    def tally(self, name: str, text: str, *labels: str) -> Tally:
        """A counter for what happens to each mail."""
        return Tally(self._named(name, "counter", labels, text), text, labels, self.registry)

    def times(self, name: str, text: str, *labels: str) -> Times:
        return Times(self._named(name, "histogram", labels, text), text, labels, self.registry)

    def process(self) -> None:
        """CPU time, memory, file descriptors, as prometheus_client names them."""
        collector = ProcessCollector(namespace=PREFIX.rstrip("_"), registry=self.registry)
        for family in collector.collect():
            name = family.name + "_total" * (family.type == "counter")
            self._described.append(Described(name, family.type, (), self._services, family.documentation))

    def _named(self, name: str, kind: str, labels: tuple[str, ...], text: str) -> str:
        self._described.append(Described(PREFIX + name, kind, labels, self._services, text))
        return PREFIX + name


class Metrics:
    """The metrics of one process that runs `services`, in a registry of its own. `described`: all there are,
    whoever exports them."""

    def __init__(self, services: Sequence[str] = SERVICES) -> None:
        self.registry = CollectorRegistry()
        self.running = frozenset(services)
        self.described: list[Described] = []
        self._every(_Of(self, *SERVICES))
        self._parent(_Of(self, PARENT))
        self._ingest(_Of(self, "ingest"))
        self._content(_Of(self, "verify"))
        self._callouts(_Of(self, "verify"))
        self._queue(_Of(self, "deliver"))
        self._attempts(_Of(self, "deliver"))
        self._owners(_Of(self, "control"))
        told = _Of(self, "deliver", "control")
        self.notices = told.counter("notices_total", "Notices to domains' contacts", "cause", "to")
        own = _Of(self, "ingest", "verify")
        self.remembered = own.gauge("recipients_remembered", "Records in the memory of recipients")

    def _every(self, own: _Of) -> None:
        also_parent = _Of(self, *SERVICES, PARENT)
        self.build_info = also_parent.gauge(
            "build_info", "Always 1: which version, as which service, on which host", "version", "python",
            "service", "host",
        )  # fmt: skip
        also_parent.process()
        self.loop_delay = own.times(
            "event_loop_delay_seconds",
            "How late the event loop came back to a timer, looked at twice a second",
        )
        self.clock_difference_seconds = own.gauge(
            "clock_difference_seconds", "This process's clock minus the log's at the last acknowledgement"
        )
        self.append_seconds = own.times("append_seconds", "Time to an acknowledgement of the log", "topic")
        self.append_errors = own.counter(
            "append_errors_total", "Appends that the log did not acknowledge", "topic", "error"
        )
        self.lag_records = own.gauge(
            "consumer_lag_records", "Records of the topic that this process has still to read", "topic"
        )
        self.lag_seconds = own.gauge(
            "consumer_lag_seconds", "Since this process last stood at the end of each partition", "topic"
        )
        self.disk_used = own.gauge("log_disk_used_ratio", "Used share of the log's fullest disk")
        self.disk_limit = own.gauge("log_disk_limit_ratio", "Share above which new mail gets 452")
        self.isr_short = own.gauge(
            "log_partitions_below_min_isr", "Partitions that take no record, for want of replicas in sync"
        )
        self.replicas_short = own.gauge(
            "log_partitions_under_replicated", "Partitions with a replica that is not in sync"
        )
        self.leaderless = own.gauge("log_partitions_offline", "Partitions without a leader")
        self.topics_differ = own.gauge(
            "log_topics_misconfigured", "Topics whose settings endanger mail or are missing"
        )
        self.quarantined = own.counter(
            "quarantined_records_total", "Records that could not be decoded", "topic"
        )
        self.events_failed = own.counter("events_failed_total", "Events that reached the log lines only")

    def _parent(self, own: _Of) -> None:
        self.process_deaths = own.counter("process_deaths_total", "Processes of this one that died")
        self.processes_ready = own.gauge("processes_ready", "Processes of this one that are ready")

    def _ingest(self, own: _Of) -> None:
        self.sessions = own.tally("sessions_total", "SMTP sessions accepted")
        self.sessions_open = own.gauge("sessions_open", "SMTP sessions open now")
        self.replies = own.tally(
            "replies_total", "SMTP replies said, by what they answer", "command", "class"
        )
        self.recipients = own.tally(
            "recipients_total", "Answers to RCPT, by where they come from", "answer", "source"
        )
        self.accepted = own.tally("accepted_total", "Mails that got 250", "domain")
        self.commit_seconds = own.times("commit_seconds", "Final dot to the queue acknowledgement")
        self.faults = own.tally("faults_total", "Replies 4yz for a fault of ours", "fault")
        self.limited = own.tally("limited_total", "Replies that a limit is reached", "limit")
        self.session_errors = own.counter("session_errors_total", "Exceptions of ours in a session")
        self.unverdicted = own.counter("unverdicted_total", "Mails accepted without a verdict")
        self.unanswered = own.counter(
            "callouts_unanswered_total", "Questions about recipients that verify did not answer in time"
        )
        self.sent_back = own.counter(
            "sent_back_total", "RCPTs that got 451 because the primary is up (admission `fallback`)"
        )
        self.orphans = own.counter(
            "orphan_domain_total", "RCPTs of a domain that names us and that we do not serve"
        )
        self.loops_held = own.counter("loops_held_total", "Mails held because they were here three times")
        self.content_budget = own.gauge(
            "content_budget_bytes", "Content being filled or not yet acknowledged"
        )
        self.flushes = own.counter("flushes_total", "Requests to flush a domain, made by ETRN")
        self.proxy_refused = own.counter(
            "proxy_refused_total", "Connections cut off at a proxied port", "reason"
        )
        self.tls_handshakes = own.counter(
            "tls_handshakes_total", "STARTTLS, by TLS version or failed", "outcome"
        )
        self.tls_loads = own.counter("tls_certificate_loads_total", "Certificates read", "outcome")
        self.tls_expiry = own.gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires; 0: there is none",
        )
        self.host_checks_failed = own.gauge(
            "host_checks_failed", "What is wrong with this host, as `selfcheck` says it", "about"
        )

    def _content(self, own: _Of) -> None:
        self.verdicts = own.tally("verdicts_total", "Verdicts stored")
        self.auth_results = own.tally(
            "auth_results_total", "Results of SPF, DKIM, DMARC and ARC", "method", "result"
        )
        self.verdict_seconds = own.times("verdict_seconds", "Last chunk read to the verdict stored")
        self.contents_broken = own.counter("contents_broken_total", "Contents that did not come together")
        self.contents_stepped_over = own.counter(
            "contents_stepped_over_total", "Contents too old for anybody to wait for their verdict"
        )
        self.assembly_bytes = own.gauge("assembly_bytes", "Content held in memory for evaluation")

    def _callouts(self, own: _Of) -> None:
        self.callouts = own.counter("callouts_total", "Questions by what became of them", "outcome")
        self.callout_seconds = own.times("callout_seconds", "Question read to the primary's answer")
        self.callouts_stale = own.counter(
            "callouts_stale_total", "Questions read when nobody waited any more"
        )
        self.primary_callouts = own.gauge(
            "primary_callouts", "1: how asking the primary stands, in every verify alike", "domain", "state"
        )
        self.callout_brake = own.gauge(
            "callout_brake", "1: the primary denies recipients that it had, nobody is refused", "domain"
        )

    def _queue(self, own: _Of) -> None:
        self.queue_messages = own.gauge("queue_messages", "Waiting mails", "domain")
        self.queue_bytes = own.gauge("queue_bytes", "Octets of waiting mails", "domain")
        self.queue_oldest_seconds = own.gauge(
            "queue_oldest_seconds", "Age of the oldest waiting mail", "domain"
        )
        self.lifetime_seconds = own.gauge("lifetime_seconds", "How long mail may wait", "domain")
        self.still = own.gauge(
            "still_messages", "Mails that nothing is attempted for: held, parked, content-lost",
            "domain", "state",
        )  # fmt: skip
        self.queue_overdue = own.gauge(
            "queue_overdue", "Mails past their lifetime that are held, or whose domain is stopped", "domain"
        )
        self.primary_up = own.gauge("primary_up", "1: the primary takes mail, 0: it is away", "domain")
        self.primary_changed = own.gauge(
            "primary_changed_timestamp_seconds", "Since when the primary has the health that it has", "domain"
        )
        self.primary_refusing = own.gauge(
            "primary_refusing", "1: the primary refuses mail from us whosesoever it is", "domain"
        )
        self.braked = own.gauge("braked", "1: the bounce brake of the domain is pulled", "domain")

    def _attempts(self, own: _Of) -> None:
        self.attempts = own.tally("attempts_total", "Recipients of attempts by outcome", "outcome")
        self.delivered = own.tally("delivered_total", "Recipients that the primary took", "domain")
        self.probes = own.counter("probes_total", "Probes of primaries", "outcome")
        self.bounces = own.counter("bounces_total", "Recipients that failed for good", "reason")
        self.dsns = own.counter("dsns_total", "Notices written to senders", "action")
        self.dsns_suppressed = own.counter("dsns_suppressed_total", "Failures nobody was told of", "reason")
        self.contents_moved = own.counter(
            "contents_moved_total", "Contents written again so that their neighbours can be deleted"
        )
        self.content_lost = own.counter("content_lost_total", "Mails whose content was found missing")
        self.slots_used = own.gauge("slots_used", "Attempts whose outcome is not acknowledged yet")

    def _owners(self, own: _Of) -> None:
        self.webhook_posts = own.counter("webhook_posts_total", "Posts to webhooks of contacts", "outcome")
        self.examinations = own.counter("examinations_total", "Domains examined by themselves", "outcome")
        self.findings = own.gauge("findings", "Findings of the last examination", "domain", "level")
        self.domains_with_finding = own.gauge(
            "domains_with_finding", "Domains whose last examination found it", "kind", "level"
        )
