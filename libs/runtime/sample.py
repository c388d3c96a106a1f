"""A configuration file for a newcomer: every setting explained, those with a default commented out."""


def sample(*, id: str, listen: str, health: str) -> str:  # noqa: A002 the setting's name
    """TOML that `config_file.load` takes. `id`: of the new installation; `listen`, `health`: address:port."""
    return f"""\
# backupmx: every setting there is. Commented lines show the default.
# An environment variable overrides a setting: BACKUPMX_SMTP__MAX_CONNECTIONS=100 (lists are JSON).
# Paths are relative to this file.

# The log (SQLite), and the socket through which the backupmx command speaks to the running service.
state_directory = "state"

[installation]
# Written into the log when that is made, and compared ever after. Never change it.
id = "{id}"
# The public names of all our hosts, as they stand in the MX records of those whose mail we take.
hosts = ["mx1.backup.example"]
# Who reads mail to postmaster@ and abuse@ our hosts: an address elsewhere, in a domain with MX records.
operators = "postmaster@isp.example"
# dns: a domain is active once its MX records name one of `hosts` below its own server.
# trusted: at once; for trying it out, and allowed with listeners on loopback only.
activation = "trusted"

[host]
# This host: its public name, and the published addresses that outgoing connections leave from.
name = "mx1.backup.example"
# ipv4 = []
# ipv6 = []

[log]
# sqlite: one file in the state directory. kafka: the services run as processes of their own.
# kind = "sqlite"
# bootstrap = []            # of Kafka, such as ["kafka1:9092", "kafka2:9092"]
# replication = 3           # copies of each topic
# max_disk_share = 0.8      # of the log's fullest disk: above it no new mail is taken (452)
# prefix = ""               # before the names of topics and groups, on a cluster shared with others

[smtp]
# Where mail is received. The real thing is ["0.0.0.0:25", "[::]:25"]: [::] takes IPv6 alone.
listen = ["{listen}"]
# Where each connection begins with a PROXY header (version 1 or 2), such as ["10.0.0.5:2525"], and the
# proxies that may connect there: whom they name is the client, for limits, SPF and Received. Others are cut
# off.
# proxy_listen = []
# proxy_networks = []
# STARTTLS is offered with a certificate (PEM, with its chain) and its key.
# tls_certificate = "cert.pem"
# tls_key = "key.pem"
# How much of it. A client is an IPv4 address or an IPv6 /64; each process counts by itself.
# processes = 1             # that share these ports; more than one over kafka only, and for `ingest`
# max_connections = 2000
# max_connections_per_client = 50
# max_connection_rate = 500             # new connections a second
# max_connection_rate_per_client = 50
# max_unknown_per_client = 100          # unknown recipients within an hour: then 421
# max_unverified_per_client = 20        # recipients within an hour that are accepted and cannot be verified
# max_unverified_per_domain = 500
# Whom limits of clients do not hold for: your own monitoring. Where everybody comes from loopback, because a
# proxy on this host sends no PROXY header, take it off the list.
# exempt_networks = ["127.0.0.0/8", "::1/128"]
# Hosts that hand us mail which they received, such as the queue of an old backup or a filter in front. SPF is
# checked for the client that they name with XFORWARD or XCLIENT, and for none where they name nobody.
# trusted_relays = []
# max_errors = 10           # 5yz in a session before 421
# max_recipients = 100      # of a mail; RFC 5321 wants at least 100
# proxy_timeout_s = 5.0     # a PROXY header must be whole within this
# drain_s = 10.0            # sessions may go on so long after SIGTERM; then 421 at the next command
# drain_data_s = 60.0       # and a content that is coming in so long after that
# command_timeout_s = 300.0
# data_timeout_s = 300.0    # content: silence, and how far it may be behind the rate below
# min_data_rate = 500       # octets a second; 0: none
# session_time_s = 3600.0   # then a session ends between two commands
# bare_newline = "normalize"   # a lone LF in content becomes CR LF; or "reject"

[dial]
# How the mail servers of others are reached: their port, and forbidden networks (loopback, private,
# link-local ...) that may be dialled all the same, such as ["192.168.1.0/24"].
# port = 25
# allow = []
# TLS is used where it is offered. Where a domain's MTA-STS policy (RFC 8461, fetched over HTTPS) or DANE (RFC
# 7672) asks for more, its mail waits until the certificate is right. DANE needs a validating resolver on
# loopback in dns.servers. authorities: who may sign certificates, a PEM file; none: those of the system.
# mta_sts = true
# policy_port = 443
# dane = false
# authorities = "authorities.pem"
# Seconds, for mail that is handed over. A primary that takes a connection and then says nothing is left alone
# after greeting_s: its mail waits, it is asked again and again, now and then with the patience of RFC 5321
# (banner_timeout_s); one that greets so late gets that patience for its mail, too.
# greeting_s = 30.0
# connect_timeout_s = 10.0
# banner_timeout_s = 300.0
# ehlo_timeout_s = 300.0
# starttls_timeout_s = 60.0
# mail_timeout_s = 300.0
# rcpt_timeout_s = 300.0
# data_timeout_s = 120.0
# block_timeout_s = 180.0   # for 64 KiB of content
# dot_timeout_s = 600.0     # for the reply that decides

[dns]
# The resolvers, such as ["127.0.0.1:53"]; none: those of the system.
# servers = []
# timeout_s = 5.0           # for one question in all

[auth]
# received_spf = false      # SPF in a Received-SPF field, too, for filters that read only that one

[arc]
# Forwarders whose ARC seals are believed where DMARC is enforced, such as ["lists.example"].
# trusted = []
# With all three set, accepted mail is sealed: whoever gets it from your primary can know what we found. The
# public key is published at SELECTOR._domainkey.DOMAIN, as for DKIM; RSA or Ed25519, PEM.
# domain = "backup.example"
# selector = "arc"
# key = "arc.pem"

[health]
# /livez, /readyz and /metrics. Their labels name your domains: never on a public address.
listen = "{health}"

[defaults]
# For every relay domain.
# lifetime_days = 30.0      # how long mail waits for its primary, at most 30
# unverified = "accept"     # a recipient that cannot be asked for: accept (250), or defer (451)
# max_size = 52428800       # octets of a mail
# max_connections = 5       # at once to one primary
# max_rate = 0              # mails a minute to one primary; 0: any
# max_waiting = 1000000     # mails that may wait for one domain; above: 452 for this domain
# max_waiting_size = 21474836480  # and their octets
# admission = "always"      # or "fallback": while the primary is up, a first try is sent back to it (451)
# enforce = "off"           # or "dmarc": DMARC fail with p=reject is refused (550); "spf": SPF fail as well
# language = "en"           # or "de": of notices to senders and to a domain's contact
# parked_days = 7.0         # mail that nobody could be told of is kept so long for the domain's owner

[notices]
# To the contact of a domain (domain set --contact), a mail address or a URL. What there is no room for is
# told later, if it is still so. Those of domains without a contact go to the operators.
# down_after_s = 1800.0     # a primary is away, or refuses us, for so long
# back_after_s = 600.0      # it is back for so long
# expiring_days = 3.0       # before the oldest mail that waits for it expires
# most_a_day = 6            # for one domain
# most_to_operators = 20    # of all domains in 24 h

[timing]
# Seconds.
# rcpt_deadline_s = 20.0    # RCPT waits so long for a callout
# verdict_deadline_s = 20.0 # the final dot waits so long for SPF, DKIM and DMARC
# acknowledgement_s = 30.0  # and so long for the log
# probe_s = 15.0            # between probes of a primary that is down
# probe_late_s = 60.0       # the same after 6 hours
# settle_s = 15.0           # before the first attempt after taking over mail
# pending_check_s = 60.0    # between looks at the DNS of a pending domain
# leave_s = 60.0            # from `domain remove` to the end of the domain, even when nothing waits
# examine_s = 14400.0       # between two examinations of a domain (domain doctor); 0: only when asked
"""
