"""The words of hints.py in German."""

from collections.abc import Mapping

from libs.mail.trouble import Server, Trouble

_LATER = "; danach `postfix reload`"
_POSTFIX = (
    "schreiben Sie {lines} in /etc/postfix/backupmx.cidr, und in main.cf `check_client_access "
    "cidr:/etc/postfix/backupmx.cidr` an den Anfang von smtpd_client_restrictions, smtpd_helo_restrictions "
    "und smtpd_sender_restrictions, in smtpd_recipient_restrictions hinter reject_unauth_destination und "
    "reject_unverified_recipient" + _LATER
)
_POSTSCREEN = (
    "schreiben Sie {lines} in /etc/postfix/postscreen_backupmx.cidr, und in main.cf "
    "`postscreen_access_list = permit_mynetworks, cidr:/etc/postfix/postscreen_backupmx.cidr`" + _LATER
)
_ZIMBRA = (
    "schreiben Sie {lines} in /opt/zimbra/conf/postfix_rbl_override, dann `postmap "
    "/opt/zimbra/conf/postfix_rbl_override` und `zmprov mcf +zimbraMtaRestriction "
    '"check_client_access lmdb:/opt/zimbra/conf/postfix_rbl_override"`'
)
_MICROSOFT_365 = (
    "`Set-HostedConnectionFilterPolicy -Identity Default -IPAllowList @{{Add={quoted}}}` in der Exchange "
    "Online PowerShell (im Defender-Portal: Antispamrichtlinien, Verbindungsfilterrichtlinie, Liste "
    "zugelassener IP-Adressen)"
)
_EXCHANGE = (
    "`Set-TransportConfig -InternalSMTPServers @{{Add={quoted}}}` in der Exchange Management Shell; auf "
    "einem Edge-Server auch {lines}"
)
_GATEWAY = (
    "tragen Sie {each} in der Admin-Konsole als Gateway für eingehende E-Mails ein (Apps, Google Workspace, "
    "Gmail, Spam, Phishing und Malware)"
)
_RSPAMD = (
    "schreiben Sie `backupmx {{ priority = high; ip = [{quoted}]; apply {{ want_spam = yes; }} }}` in "
    "/etc/rspamd/local.d/settings.conf und laden Sie Rspamd neu"
)
_S, _T = Server, Trouble
ADVICE: Mapping[tuple[Server, Trouble], str] = {
    (_S.POSTFIX, _T.ADDRESS): _POSTFIX,
    (_S.POSTFIX, _T.SPF): (
        "nehmen Sie {each} von der SPF-Prüfung aus (policyd-spf: `Whitelist = {commas}` in "
        "/etc/postfix-policyd-spf-python/policyd-spf.conf): Mail für Ihre Domain kommt durch uns mit der "
        "Adresse ihres Absenders"
    ),
    (_S.POSTFIX, _T.RATE): (
        "in main.cf `smtpd_client_event_limit_exceptions = $mynetworks, {commas}`" + _LATER
    ),
    (_S.POSTFIX, _T.CATCH_ALL): (
        "in main.cf muss stehen, wen es gibt: `local_recipient_maps = proxy:unix:passwd.byname $alias_maps` "
        "für Benutzer der Maschine, virtual_mailbox_maps oder virtual_alias_maps ohne `@domain` für andere, "
        "relay_recipient_maps für einen Server dahinter" + _LATER + "; bis dahin wird Mail an jeden "
        "angenommen, solange er weg ist, und kommt später zurück"
    ),
    (_S.POSTSCREEN, _T.ADDRESS): _POSTSCREEN,
    (_S.POSTSCREEN, _T.GREYLIST): _POSTSCREEN,
    (_S.ZIMBRA, _T.ADDRESS): _ZIMBRA,
    (_S.EXIM, _T.ADDRESS): (
        "setzen Sie `!hosts = <; {semicolons}` in jedes `deny` und `defer` Ihrer ACLs, das nach Client oder "
        "Absender sieht, und in keines, das den Empfänger prüft (Debian: {lines}, je eine Zeile, in "
        "/etc/exim4/host_local_deny_exceptions)"
    ),
    (_S.MICROSOFT_365, _T.ADDRESS): _MICROSOFT_365,
    (_S.MICROSOFT_365, _T.SPF): (
        "richten Sie für uns einen eingehenden Connector mit erweiterter Filterung ein: "
        "`New-InboundConnector -Name backupmx -ConnectorType Partner -SenderDomains * -SenderIPAddresses "
        "{quoted} -EFSkipIPs {quoted}` in der Exchange Online PowerShell"
    ),
    (_S.EXCHANGE, _T.ADDRESS): _EXCHANGE,
    (_S.EXCHANGE, _T.SPF): _EXCHANGE,
    (_S.GOOGLE, _T.ADDRESS): (
        "setzen Sie {each} in der Admin-Konsole auf die Zulassungsliste (Apps, Google Workspace, Gmail, "
        "Spam, Phishing und Malware, E-Mail-Zulassungsliste)"
    ),
    (_S.GOOGLE, _T.SPF): _GATEWAY,
    (_S.GOOGLE, _T.RATE): _GATEWAY,
    (_S.HMAILSERVER, _T.ADDRESS): (
        "legen Sie für {each} einen IP-Bereich an (Settings, Advanced, IP Ranges), mit höherer Priorität als "
        "Internet, Zustellung von extern nach lokal erlaubt, ohne SMTP-Anmeldung und ohne Spamschutz"
    ),
    (_S.HMAILSERVER, _T.GREYLIST): (
        "tragen Sie {each} unter Settings, Anti-spam, Greylisting, White listing ein"
    ),
    (_S.MDAEMON, _T.ADDRESS): (
        "tragen Sie {each} bei Trusted IPs (Security, Security Settings) und in die Ausnahmen von Dynamic "
        "Screening ein"
    ),
    (_S.KERIO, _T.ADDRESS): (
        "legen Sie mit {each} eine IP-Adressgruppe an (Definitions), und wählen Sie diese als eigene "
        "Ausnahmeliste in Content Filter, Spam Filter, Blacklists, und als Ausnahme in SMTP Server, Security "
        "Options"
    ),
    (_S.KERIO, _T.GREYLIST): (
        "legen Sie mit {each} eine IP-Adressgruppe an (Definitions), und nehmen Sie diese in Content Filter, "
        "Spam Filter, Greylisting aus"
    ),
    (_S.SENDMAIL, _T.ADDRESS): (
        "schreiben Sie {lines} in /etc/mail/access, dann `makemap hash /etc/mail/access < /etc/mail/access`"
    ),
    (_S.COURIER, _T.ADDRESS): (
        "schreiben Sie {lines} (dazwischen ein Tabulator) in /etc/courier/smtpaccess/default, dann "
        "`makesmtpaccess`"
    ),
    (_S.QMAIL, _T.ADDRESS): (
        "ergänzen Sie die Regeln von tcpserver (/etc/tcp.smtp) um {lines}, und bauen Sie deren cdb neu"
    ),
    (_S.RSPAMD, _T.ADDRESS): _RSPAMD,
    (_S.RSPAMD, _T.GREYLIST): _RSPAMD,
    (_S.POSTGREY, _T.GREYLIST): (
        "schreiben Sie {lines}, je eine Zeile, in /etc/postgrey/whitelist_clients.local (oder die Datei, die "
        "--whitelist-clients nennt), und starten Sie Postgrey neu"
    ),
    (_S.SQLGREY, _T.GREYLIST): (
        "schreiben Sie {lines}, je eine Zeile, in /etc/sqlgrey/clients_ip_whitelist.local"
    ),
    (_S.MILTER_GREYLIST, _T.GREYLIST): "setzen Sie {lines} vor die anderen Regeln in greylist.conf",
    (_S.ANY, _T.ADDRESS): (
        "lassen Sie {each} zu, auf dem Mailserver und auf allem, was davor steht (Firewall, fail2ban, "
        "Spamfilter)"
    ),
    (_S.ANY, _T.LISTED): "nehmen Sie {each} von Sperrlisten aus",
    (_S.ANY, _T.NAME): "nehmen Sie {each} von der Prüfung des EHLO-Namens und des Reverse-DNS aus",
    (_S.ANY, _T.SENDER): (
        "nehmen Sie MAIL FROM:<postmaster@{name}> von {each} an, ohne den Absender zu prüfen"
    ),
    (_S.ANY, _T.SPF): (
        "nehmen Sie {each} von SPF und DMARC aus: Mail für Ihre Domain kommt durch uns mit der Adresse ihres "
        "Absenders"
    ),
    (_S.ANY, _T.RATE): "nehmen Sie {each} von Grenzen für Verbindungen und Befehle aus",
    (_S.ANY, _T.RELAY): "er soll von {each} Mail für die Domain annehmen",
    (_S.ANY, _T.LOGIN): "lassen Sie {each} auf Port 25 ohne Anmeldung Mail übergeben, mit TLS und ohne",
    (_S.ANY, _T.GREYLIST): "nehmen Sie {each} vom Greylisting aus",
    (_S.ANY, _T.DROPPED): (
        "wenn er läuft, sehen Sie nach, ob Firewall oder fail2ban {each} aussperrt: `fail2ban-client unban "
        "{blanks}`, und `ignoreip = 127.0.0.1/8 ::1 {blanks}` in /etc/fail2ban/jail.local"
    ),
    (_S.ANY, _T.CATCH_ALL): (
        "er soll unbekannte Empfänger bei RCPT ablehnen (550 5.1.1): bis dahin wird Mail an jeden "
        "angenommen, solange er weg ist, und kommt später zurück"
    ),
    (_S.ANY, _T.LATE): (
        "er soll unbekannte Empfänger bei RCPT ablehnen (550 5.1.1), nicht nach dem Inhalt: dort fragen wir"
    ),
}
WHAT: Mapping[Trouble, str] = {
    _T.ADDRESS: "Ihr Mailserver lehnt {them} ab",
    _T.LISTED: "Ihr Mailserver lehnt {them} wegen einer Sperrliste ab",
    _T.NAME: "Ihr Mailserver lehnt {them} wegen des Namens oder des Reverse-DNS ab",
    _T.SENDER: "Ihr Mailserver lehnt den Absender unserer Fragen ab, postmaster@{name}",
    _T.SPF: "Ihr Mailserver prüft {them} gegen den SPF- oder DMARC-Eintrag jedes Absenders",
    _T.RATE: "Ihr Mailserver begrenzt {them}",
    _T.RELAY: "Ihr Mailserver sagt, dass er für Ihre Domain nicht zuständig ist",
    _T.LOGIN: "Ihr Mailserver verlangt von {them} eine Anmeldung oder TLS",
    _T.GREYLIST: "Ihr Mailserver wendet Greylisting auf {them} an",
    _T.DROPPED: "Ihr Mailserver antwortet {them} nicht",
    _T.CATCH_ALL: "Ihr Mailserver nimmt jeden Empfänger an",
    _T.LATE: "Ihr Mailserver lehnt unbekannte Empfänger erst nach dem Inhalt ab",
}
SAME = " Dasselbe für die Adressen von {others}."
AND = " und "
