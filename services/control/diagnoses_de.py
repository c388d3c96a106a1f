"""The words of diagnoses.py in German: of each finding what is so, why it matters, what to do."""

from collections.abc import Mapping

from services.control.findings import Kind, Light

LIGHTS: Mapping[Light, str] = {
    Light.MX: "Das DNS nennt zuerst Ihren Server und dahinter uns",
    Light.REACHABLE: "Ihr Server ist von hier erreichbar",
    Light.CALLOUTS: "Er sagt, welche Empfänger es gibt",
    Light.SPF: "Er nimmt von uns Mail fremder Absender an",
    Light.RECIPIENTS: "Wir kennen Ihre Empfänger",
}
UNSEEN = "Das weiß niemand, solange Ihr Server nicht erreichbar ist."
_UNKNOWN = "Solange er nicht gefragt werden kann, nehmen wir Mail nur auf Verdacht an; manche kommt zurück."
_SAME = "Für uns ist er damit so gut wie ausgefallen: Mail wartet bei uns."

WORDS: Mapping[Kind, tuple[str, str, str]] = {
    Kind.NXDOMAIN: (
        "Laut DNS gibt es {domain} nicht.",
        "Niemand kann Mail dorthin schicken.",
        "Prüfen Sie beim Registrar, ob die Domain abgelaufen ist und die Nameserver stimmen.",
    ),
    Kind.DNS_TROUBLE: (
        "Die Nameserver von {domain} antworten nicht.",
        "Niemand erfährt, wohin die Mail soll. Was wir haben, wartet mindestens 30 Tage.",
        "Fragen Sie den Betreiber der Nameserver; `dig +trace {domain} MX` zeigt, wo es endet.",
    ),
    Kind.NULL_MX: (
        "{domain} erklärt im DNS, keine Mail anzunehmen (Null-MX).",
        "Absender versuchen es gar nicht erst.",
        "Ersetzen Sie `{domain}. MX 0 .` durch den MX-Eintrag Ihres Servers und unsere: {records}",
    ),
    Kind.NO_MX: (
        "{domain} hat keine MX-Einträge.",
        "Dann gilt allein seine Adresse als Mailserver, und für einen Backup-MX ist kein Platz.",
        "Legen Sie einen MX-Eintrag mit Präferenz 10 für Ihren Server an, und unsere: {records}",
    ),
    Kind.NOT_NAMED: (
        "Kein MX-Eintrag von {domain} nennt uns.",
        "Fällt Ihr Server aus, finden die Absender uns nicht.",
        "Ins DNS eintragen: {records}",
    ),
    Kind.HOST_MISSING: (
        "Die MX-Einträge von {domain} nennen nur einen Teil unserer Server: {at} fehlt.",
        "Fallen die anderen auch aus, nimmt niemand Ihre Mail an.",
        "Ins DNS eintragen: {domain}. MX mit der Präferenz unseres anderen Servers, {at}.",
    ),
    Kind.NOTHING_ABOVE: (
        "Kein MX-Eintrag ist besser als unserer (Präferenz {detail}).",
        "Alle Mail kommt zu uns, und wir kennen keinen Server, der sie bekommen soll.",
        "Geben Sie Ihrem Server eine kleinere Zahl als {detail}, oder der Betreiber trägt ihn ein: "
        "backupmx domain set {domain} --primary-host HOST",
    ),
    Kind.EQUAL_PREFERENCE: (
        "{at} hat dieselbe Präferenz wie wir ({detail}).",
        "Absender wählen zufällig, und wir geben nichts an einen Server, der nicht besser ist als wir.",
        "Geben Sie {at} eine kleinere Zahl als {detail}.",
    ),
    Kind.BELOW_US: (
        "{at} steht hinter uns (Präferenz {detail}).",
        "Wir liefern nichts dorthin; was Absender dort abgeben, sehen wir nicht.",
        "Ein früherer Backup-MX gehört aus dem DNS; Ihr eigener Server braucht die kleinste Zahl.",
    ),
    Kind.OWN_ALIAS: (
        "{at} ist ein eigener Name von Ihnen für unsere Adresse {detail}.",
        "Mail liefe im Kreis: Wir halten ihn für einen von uns und überspringen alles dahinter. Auch gilt "
        "unser "
        "Zertifikat nur für unsere Namen.",
        "Nennen Sie uns, wie wir heißen: {records}",
    ),
    Kind.MX_ADDRESS: (
        "In einem MX-Eintrag steht eine Adresse, {at}, statt eines Namens.",
        "Viele Absender verstehen das nicht.",
        "Geben Sie dem Server einen Namen mit A-Eintrag und setzen Sie diesen ein.",
    ),
    Kind.MX_ALIAS: (
        "Der MX-Eintrag nennt {at}, das ein Alias (CNAME) von {detail} ist.",
        "RFC 2181 verbietet das, und manche Absender lehnen es ab.",
        "Tragen Sie {detail} als MX ein.",
    ),
    Kind.MX_WITHOUT_ADDRESS: (
        "Der MX-Server {at} hat keine Adresse.",
        "Niemand erreicht ihn; Absender nehmen den nächsten.",
        "Legen Sie einen A-Eintrag (und AAAA) für {at} an, oder entfernen Sie den MX-Eintrag.",
    ),
    Kind.MX_TROUBLE: (
        "Die Adresse von {at} ist nicht zu finden: seine Nameserver antworten nicht.",
        "Absender warten oder nehmen den nächsten Server.",
        "Fragen Sie den Betreiber der Nameserver von {at}.",
    ),
    Kind.FORBIDDEN: (
        "{at}, wohin Mail für {domain} soll, ist keine Adresse des Internets oder eine von uns.",
        "Sie wird nie angewählt, von nirgendwo draußen.",
        "Die öffentliche Adresse Ihres Anschlusses gehört ins DNS; der Router leitet Port 25 an den Server "
        "weiter.",
    ),
    Kind.STS_WITHOUT_US: (
        "Die MTA-STS-Policy von {domain} nennt {at} nicht.",
        "Absender, die sie beachten, geben dort nichts ab: für sie gibt es den Backup-MX nicht.",
        "Zeile `mx: {at}` in https://mta-sts.{domain}/.well-known/mta-sts.txt ergänzen und die id im DNS "
        "ändern.",
    ),
    Kind.NOT_REGISTERED: (
        "{domain} ist hier nicht eingetragen.",
        "Mail dafür wird vertröstet (451), bis es so weit ist; verloren geht nichts.",
        "backupmx domain add {domain}",
    ),
    Kind.PENDING: (
        "{domain} ist eingetragen, aber noch nicht aktiv.",
        "Mail dafür wird vertröstet (451). Wir haben noch nicht gesehen, dass die MX-Einträge uns hinter "
        "einem "
        "Server von Ihnen nennen.",
        "Nichts, wenn Sie das DNS eben geändert haben: wir sehen von selbst wieder nach.",
    ),
    Kind.REFUSED: (
        "An {at}, Port 25, hört niemand zu.",
        _SAME,
        "Starten Sie den Mailserver oder leiten Sie Port 25 des Routers dorthin. {hint}",
    ),
    Kind.SILENT: (
        "{at} antwortet nicht ({detail}).",
        _SAME,
        "Prüfen Sie, ob er läuft und die Leitung steht. {hint}",
    ),
    Kind.UNREACHABLE: (
        "Zu {at} führt kein Weg.",
        _SAME,
        "Prüfen Sie, ob die Leitung steht und im DNS die heutige Adresse.",
    ),
    Kind.NO_SOURCE: (
        "Unserem Server fehlt die Adresse, von der aus er anrufen soll.",
        "Freigegeben sind unsere veröffentlichten Adressen; von einer anderen wären wir Fremde.",
        "Für den Betreiber: die Adressen dieses Servers richtigstellen ([host] in der Konfiguration).",
    ),
    Kind.TURNED_AWAY: (
        "{at} weist uns an der Tür ab: {detail}",
        _SAME,
        "{hint}",
    ),
    Kind.HUNG_UP: (
        "{at} legt auf ({detail}).",
        _SAME,
        "{hint}",
    ),
    Kind.NO_SMTP: (
        "Was an {at}, Port 25, antwortet, ist kein Mailserver.",
        _SAME,
        "Leiten Sie Port 25 des Routers an den Mailserver und an nichts anderes.",
    ),
    Kind.OURSELVES: (
        "Der Server an {at} nennt sich mit einem unserer Namen.",
        "Mail liefe im Kreis; deshalb bekommt er nichts.",
        "Geben Sie ihm einen eigenen Namen (Postfix: myhostname), oder stellen Sie die Adresse im DNS "
        "richtig.",
    ),
    Kind.ONE_OF_SEVERAL: (
        "Von Ihren besten Servern ist {at} nicht erreichbar, {detail} schon.",
        "Mail kommt an, aber jeder Absender versucht es erst vergeblich.",
        "Kümmern Sie sich um {at}, oder nehmen Sie die Adresse aus dem DNS.",
    ),
    Kind.NO_STARTTLS: (
        "{at} bietet keine Verschlüsselung an (STARTTLS).",
        "Ihre Mail ist auf dem Weg von uns zu Ihnen lesbar.",
        "Geben Sie dem Server ein Zertifikat (Postfix: smtpd_tls_chain_files, smtpd_tls_security_level = "
        "may).",
    ),
    Kind.STARTTLS_FAILS: (
        "{at} bietet STARTTLS an, und es misslingt: {detail}",
        "Mail geht dann unverschlüsselt, oder sie wartet, wenn Ihre Domain Verschlüsselung verlangt.",
        "Prüfen Sie Zertifikat, Schlüssel und Protokolle des Servers (TLS 1.2 oder neuer).",
    ),
    Kind.CERTIFICATE: (
        "Das Zertifikat von {at} gilt nicht für seinen Namen, oder niemand bürgt dafür: {detail}",
        "Verschlüsselt wird trotzdem. Mit MTA-STS oder `--tls-name` würde Mail warten.",
        "Ein Zertifikat einer öffentlichen Stelle für den Namen im MX-Eintrag.",
    ),
    Kind.NO_PIPELINING: (
        "{at} bietet kein PIPELINING an.",
        "Was gewartet hat, kommt langsamer an.",
        "Schalten Sie es ein, wenn der Server es kann.",
    ),
    Kind.NO_8BITMIME: (
        "{at} bietet kein 8BITMIME an.",
        "Wir liefern Mail, wie sie kam, damit Signaturen gültig bleiben; ein sehr alter Server kann sie "
        "verderben.",
        "Schalten Sie es ein, wenn der Server es kann.",
    ),
    Kind.NO_SMTPUTF8: (
        "{at} bietet kein SMTPUTF8 an.",
        "Mail von oder an Adressen mit Umlauten wird auch hier abgelehnt.",
        "Schalten Sie es ein, wenn Sie solche Mail wollen.",
    ),
    Kind.NO_DSN: (
        "{at} bietet kein DSN an.",
        "Wer eine Zustellbestätigung will, hört von uns, dass wir seine Mail übergeben haben, von Ihnen "
        "nichts.",
        "Nichts.",
    ),
    Kind.SMALLER: (
        "{at} nimmt Mail bis {detail} Oktette, weniger als die hier eingestellten {size}.",
        "Größere wird dem Absender abgelehnt, sobald wir es wissen, wie Ihr Server es täte.",
        "Nichts, oder: backupmx domain set {domain} --max-size {detail}",
    ),
    Kind.SLOW: (
        "{at} braucht {detail} Sekunden für eine Antwort.",
        "Absender warten höchstens 20 Sekunden auf die Auskunft über einen Empfänger, dem sie als Erste "
        "schreiben.",
        "Nehmen Sie uns von Verzögerungen an der Tür aus (postscreen, Tarpits, Sperrlisten).",
    ),
    Kind.BLOCKED: (
        "{at} lehnt uns ab, nach wem wir auch fragen: {detail}",
        _UNKNOWN,
        "{hint}",
    ),
    Kind.GREYLISTED: (
        "{at} wendet Greylisting auf uns an: {detail}",
        "Neue Empfänger werden vertröstet, und nach jedem Ausfall kommt Ihre Mail später.",
        "{hint}",
    ),
    Kind.DEFERS_ALL: (
        "{at} vertröstet jeden Empfänger: {detail}",
        _UNKNOWN,
        "Im Protokoll des Servers steht, was fehlt: Platz, die Benutzerdatenbank, DNS.",
    ),
    Kind.ACCEPTS_ALL: (
        "{at} nimmt ein Postfach an, das es nicht geben kann: {detail}",
        "Im Ausfall nehmen wir Mail an jeden an, wie er es täte, und sie kommt später zurück.",
        "{hint}",
    ),
    Kind.REFUSES_LATE: (
        "Der Server lehnt Empfänger erst ab, wenn er die ganze Mail hat: {detail}",
        "Wer existiert, lernen wir nur beim Zustellen, und wir nehmen je Mail nur einen Empfänger.",
        "{hint}",
    ),
    Kind.UNCLEAR_DENIAL: (
        "{at} lehnt ein Postfach ab, das es nicht geben kann, sagt aber nicht, dass es fehlt: {detail}",
        "So lernen wir von niemandem, dass es ihn nicht gibt; im Ausfall wird Mail an ihn auf Verdacht "
        "angenommen.",
        "Er soll 550 5.1.1 sagen. OpenSMTPD sagt 524 5.2.4, wo `virtual` niemanden findet, und 550 bei einer "
        "Tabelle von Benutzern: `table users file:/etc/mail/users`, und `userbase <users>` statt `virtual "
        "<...>` in der Action von {domain}; oder die Postfächer stehen in der Regel: `match from any for "
        "rcpt-to <recipients>` mit `table recipients file:/etc/mail/recipients`.",
    ),
    Kind.NO_POSTMASTER: (
        "{at} kennt postmaster@{domain} nicht: {detail}",
        "RFC 5321 verlangt die Adresse; wer ein Problem mit Ihrer Mail hat, schreibt dorthin, auch wir.",
        "Ein Alias postmaster an jemanden, der es liest.",
    ),
    Kind.KNOWN_DENIED: (
        "{at} bestreitet einen Empfänger, den es gab: {detail}",
        "Er ist gegangen, oder der Server hat seine Benutzerliste verloren. Wir glauben es nicht sofort.",
        "Wenn es ihn gibt: prüfen Sie, womit der Server Empfänger nachschlägt.",
    ),
    Kind.CALLOUT_BRAKE: (
        "Der Server hat mehrere bekannte Empfänger bestritten; neuen Absagen glauben wir vorerst nicht.",
        "Bekannte Empfänger werden angenommen, andere vertröstet (451).",
        "Wenn er recht hat: backupmx domain release {domain}",
    ),
    Kind.SPF_CHECKED: (
        "{at} lehnt einen Absender ab, dessen Mail nur von seinen eigenen Servern kommen darf: {detail}",
        "Er prüft SPF gegen uns. Alle Mail, die gewartet hat, kommt aber von uns: viel davon würde "
        "abgelehnt.",
        "{hint}",
    ),
    Kind.SPF_UNTRIED: (
        "Ob {at} SPF gegen uns prüft, ließ sich nicht versuchen.",
        "Wenn ja, wird Mail abgelehnt, die gewartet hat.",
        "Für den Betreiber: ein TXT-Eintrag `v=spf1 -all` unter spf-test.{name}",
    ),
    Kind.REFUSING: (
        "Der Server lehnt ab, was wir übergeben: {detail}",
        "Seine Mail wartet hier; alle 15 Minuten wird eine versucht.",
        "{hint}",
    ),
    Kind.BOUNCE_BRAKE: (
        "Nach einem Ausfall bestritt der Server bekannte Empfänger; deshalb kommt vorerst nichts zurück.",
        "Vielleicht läuft er wieder, aber ohne seine Benutzer; deren Mail wartet.",
        "Wenn die Benutzer zurück sind oder es bleiben: backupmx domain release {domain}",
    ),
    Kind.NOBODY_KNOWN: (
        "Noch ist kein Empfänger von {domain} bekannt.",
        "Wir lernen sie nach und nach, solange Mail kommt und Ihr Server läuft.",
        "Sofort bereit: backupmx domain recipients import {domain} DATEI",
    ),
}
