"""Every metric of every service, by name, in one place. Prefix `backupmx_`; labels are bounded."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"backupmx_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"backupmx_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"backupmx_{name}", text, labels, registry=registry, buckets=_FAST)

        # every process
        self.build_info = gauge("build_info", "Always 1", "version", "python")
        self.quarantined = counter("quarantined_records_total", "Records that could not be decoded", "topic")
        self.events_failed = counter("events_failed_total", "Events that reached the log lines only")
        self.append_seconds = histogram("append_seconds", "Time to an acknowledgement of the log", "topic")
        self.append_errors = counter("append_errors_total", "Appends that failed", "topic", "error")
        self.process_deaths = counter("process_deaths_total", "Processes of this one that died")
        self.processes_ready = gauge("processes_ready", "Processes of this one that are ready")

        # ingest
        self.sessions = counter("sessions_total", "SMTP sessions accepted")
        self.sessions_open = gauge("sessions_open", "SMTP sessions open now")
        self.flushes = counter("flushes_total", "Requests to flush a domain, made by ETRN")
        self.tls_handshakes = counter("tls_handshakes_total", "STARTTLS by what became of it", "outcome")
        self.tls_loads = counter("tls_certificate_loads_total", "Certificates read", "outcome")
        self.tls_expiry = gauge(
            "tls_certificate_expiry_timestamp_seconds", "When the certificate in use expires"
        )
        self.proxy_refused = counter("proxy_refused_total", "Connections cut off at a proxied port", "reason")
        self.limited = counter("limited_total", "Replies that a limit is reached", "limit")
        self.replies = counter("replies_total", "SMTP replies said", "command", "class")
        self.recipients = counter("recipients_total", "RCPT answers", "answer", "source")
        self.commit_seconds = histogram("commit_seconds", "Final dot to the queue acknowledgement")
        self.accepted = counter("accepted_total", "Mails that got 250")
        self.orphans = counter(
            "orphan_domain_total", "RCPTs of a domain that names us and that we do not serve"
        )
        self.sent_back = counter(
            "sent_back_total", "RCPTs that got 451 because the primary is up (admission `fallback`)"
        )
        self.unverdicted = counter("unverdicted_total", "Mails accepted without a verdict")
        self.content_budget = gauge("content_budget_bytes", "Content being filled or not yet acknowledged")
        self.loops_held = counter("loops_held_total", "Mails held because they were here three times")
        self.session_errors = counter("session_errors_total", "Exceptions of ours in a session")

        # verify, content
        self.verdicts = counter("verdicts_total", "Verdicts stored", "spf", "dkim", "dmarc")
        self.verdict_seconds = histogram("verdict_seconds", "Last chunk read to the verdict stored")
        self.contents_broken = counter("contents_broken_total", "Contents that did not come together")
        self.contents_stepped_over = counter(
            "contents_stepped_over_total", "Contents too old for anybody to wait for their verdict"
        )
        self.assembly_bytes = gauge("assembly_bytes", "Content held in memory for evaluation")

        # verify, callouts
        self.callouts = counter("callouts_total", "Questions by what became of them", "outcome")
        self.callouts_stale = counter("callouts_stale_total", "Questions read when nobody waited any more")
        self.primary_callouts = gauge(
            "primary_callouts",
            "1: how asking the primary stands, in every verify alike",
            "domain",
            "state",
        )
        self.callout_brake = gauge(
            "callout_brake", "1: the primary denies recipients that it had, nobody is refused", "domain"
        )
        self.callout_seconds = histogram("callout_seconds", "Question read to the primary's answer")

        # deliver
        self.queue_messages = gauge("queue_messages", "Waiting mails", "domain")
        self.queue_bytes = gauge("queue_bytes", "Octets of waiting mails", "domain")
        self.queue_oldest_seconds = gauge("queue_oldest_seconds", "Age of the oldest waiting mail", "domain")
        self.queue_overdue = gauge(
            "queue_overdue", "Mails past their lifetime that are held, or whose domain is stopped", "domain"
        )
        self.primary_up = gauge("primary_up", "1: the primary takes mail, 0: it is away", "domain")
        self.primary_refusing = gauge(
            "primary_refusing", "1: the primary refuses mail from us whosesoever it is", "domain"
        )
        self.braked = gauge("braked", "1: the bounce brake of the domain is pulled", "domain")
        self.attempts = counter("attempts_total", "Recipients of attempts by outcome", "outcome")
        self.probes = counter("probes_total", "Probes of primaries", "outcome")
        self.bounces = counter("bounces_total", "Recipients that failed for good", "reason")
        self.dsns = counter("dsns_total", "Notices written to senders", "action")
        self.notices = counter("notices_total", "Notices to domains' contacts", "cause", "to")
        self.examinations = counter("examinations_total", "Domains examined by themselves", "outcome")
        self.findings = gauge("findings", "Findings of the last examination", "domain", "level")
        self.domains_with_finding = gauge(
            "domains_with_finding", "Domains whose last examination found it", "kind", "level"
        )
        self.webhook_posts = counter("webhook_posts_total", "Posts to webhooks of contacts", "outcome")
        self.dsns_suppressed = counter("dsns_suppressed_total", "Failures nobody was told of", "reason")
        self.contents_moved = counter(
            "contents_moved_total", "Contents written again so that their neighbours can be deleted"
        )
        self.content_lost = counter("content_lost_total", "Mails whose content is missing")
        self.slots_used = gauge("slots_used", "Attempts whose outcome is not acknowledged yet")
        self.clock_difference_seconds = gauge(
            "clock_difference_seconds", "This process's clock minus the log's at the last acknowledgement"
        )
