"""How all our clients prove to Kafka who they are, and know that it is Kafka: TLS and SASL, from a client properties file.

The file has the names of Kafka's own tools and of librdkafka's; `KAFKA_CLIENT_CONFIG` names it. Passwords may come from the environment
instead. They are held where no representation, log line or error shows them. docs/running.md lists the keys.
"""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENV = "KAFKA_CLIENT_CONFIG"
USERNAME_ENV, PASSWORD_ENV, KEY_PASSWORD_ENV = "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "KAFKA_SSL_KEY_PASSWORD"
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

PROTOCOL, MECHANISM, JAAS = "security.protocol", "sasl.mechanism", "sasl.jaas.config"
USERNAME, PASSWORD = "sasl.username", "sasl.password"
TRUST, TRUST_TYPE, TRUSTED = "ssl.truststore.location", "ssl.truststore.type", "ssl.truststore.certificates"
CA, CERTIFICATE, KEY, KEY_PASSWORD = "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.key.password"  # fmt: skip
STORE, STORE_TYPE, HOSTNAME = "ssl.keystore.location", "ssl.keystore.type", "ssl.endpoint.identification.algorithm"
BOOTSTRAP = "bootstrap.servers"
KNOWN = (BOOTSTRAP, PROTOCOL, MECHANISM, JAAS, USERNAME, PASSWORD, TRUST, TRUST_TYPE, TRUSTED, CA, CERTIFICATE, KEY,
         KEY_PASSWORD, STORE, STORE_TYPE, HOSTNAME)  # fmt: skip
ALIASES = {"sasl.mechanisms": MECHANISM}
TUNING = frozenset({
    "acks", "allow.auto.create.topics", "auto.offset.reset", "batch.size", "buffer.memory", "client.dns.lookup", "client.id", "client.rack",
    "compression.type", "enable.auto.commit", "enable.idempotence", "group.id", "isolation.level", "max.in.flight.requests.per.connection",
    "max.poll.records", "max.request.size", "retries",
})  # fmt: skip
"""Settings of Java clients that say nothing of security; so do those whose names end in .ms or .bytes. They are left out."""
_LOGIN = re.compile(r'\s*([\w.$]+)\s+(?:required|requisite|sufficient|optional)\s+((?:[^";]|"(?:[^"\\]|\\.)*")*);?\s*')
_OPTION = re.compile(r'(\w+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]+)')
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PEM = "-----BEGIN "


class BadConfig(Exception):
    """The client properties cannot be used; the text says why, and never a password."""


@dataclass(frozen=True)
class Security:
    """How to connect to Kafka. `context` is there where the protocol has TLS, the mechanism and its two where it has SASL."""

    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    bootstrap: str = ""
    """The servers that the file names, if it does."""
    source: str = ""
    """The file's name."""
    left_out: tuple[str, ...] = ()
    """Keys of the file that say nothing of security."""

    def settings(self) -> dict[str, Any]:
        """What aiokafka's clients are to be given."""
        given: dict[str, Any] = {"security_protocol": self.protocol}
        if self.context:
            given["ssl_context"] = self.context
        if self.mechanism:
            given["sasl_mechanism"] = self.mechanism
            given |= {"sasl_plain_username": self.username, "sasl_plain_password": self.password}
        return given


def from_environment(environment: Mapping[str, str] = os.environ) -> Security:
    """What the file in `KAFKA_CLIENT_CONFIG` says; without one, no TLS and no login. Raises `BadConfig`."""
    name = environment.get(ENV, "")
    if not name:
        return Security()
    try:
        text = Path(name).read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise BadConfig(
            f"client config {name} cannot be read: {getattr(e, 'strerror', None) or 'it is no text'}"
        ) from None
    return read(text, name, environment)


def read(text: str, source: str, environment: Mapping[str, str] = os.environ) -> Security:
    """Client properties as `Security`; the environment's user name and passwords outrank the file's. Raises `BadConfig`."""
    try:
        return _security(properties(text), source, environment)
    except BadConfig as e:
        raise BadConfig(f"client config {source}: {e}") from None


def properties(text: str) -> dict[str, str]:
    """The pairs of a Java properties file (java.util.Properties). Raises `BadConfig`."""
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        line = line.lstrip()
        if not line or line[0] in "#!":
            continue
        while _continues(line):
            line = line[:-1] + next(lines, "").lstrip()
        if not (parts := re.match(r"((?:[^\\=:\s]|\\.)+)\s*[=:\s]\s*(.*)", line, re.DOTALL)):
            raise BadConfig("write key=value, a pair a line; one line has no '='")  # it may be a password
        key, value = (_ESCAPE.sub(_unescape, x) for x in parts.groups())
        key = ALIASES.get(key, key)
        if key in found:
            raise BadConfig(f"{key} is said twice: leave one")
        found[key] = value.strip()
    return found


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _unescape(escape: re.Match[str]) -> str:
    it = escape[1]
    return chr(int(it[1:], 16)) if len(it) == 5 else {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}.get(it, it)


def _security(said: dict[str, str], source: str, environment: Mapping[str, str]) -> Security:
    left_out = tuple(k for k in said if k in TUNING or (k not in KNOWN and k.endswith((".ms", ".bytes"))))
    if strange := sorted(set(said) - set(KNOWN) - set(left_out)):
        raise BadConfig(f"{', '.join(strange)}: not known here. Known: {', '.join(KNOWN)}")
    protocol = said.get(PROTOCOL, "PLAINTEXT").upper()
    if protocol not in PROTOCOLS:
        raise BadConfig(f"{PROTOCOL} {protocol}: there are {', '.join(PROTOCOLS)}")
    for part in ("ssl.", "sasl."):
        idle = sorted(k for k in said if k.startswith(part))
        if idle and part[:-1].upper() not in protocol.split("_"):
            raise BadConfig(f"{idle[0]} means nothing with {PROTOCOL} {protocol}: say SSL, SASL_PLAINTEXT or SASL_SSL, or leave it out")  # fmt: skip
    mechanism = username = password = ""
    if protocol.startswith("SASL"):
        mechanism, username, password = _login(said, environment)
    context = _context(said, environment) if protocol.endswith("SSL") else None
    return Security(protocol, mechanism, username, password, context, said.get(BOOTSTRAP, ""), source, left_out)


def _login(said: Mapping[str, str], environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Mechanism, user name and password."""
    mechanism = said.get(MECHANISM, "").upper()
    if mechanism not in MECHANISMS:
        what = f"{MECHANISM} {mechanism} is not supported" if mechanism else f"{MECHANISM} is missing"
        raise BadConfig(
            f"{what}: there are {', '.join(MECHANISMS)} (no OAUTHBEARER, no GSSAPI), and certificates with {PROTOCOL} SSL"
        )
    options: dict[str, str] = {}
    if jaas := said.get(JAAS):
        options = _jaas(jaas, "Plain" if mechanism == "PLAIN" else "Scram")
    username = environment.get(USERNAME_ENV) or said.get(USERNAME) or options.get("username", "")
    password = environment.get(PASSWORD_ENV) or said.get(PASSWORD) or options.get("password", "")
    if not username:
        raise BadConfig(f"no user name: say {USERNAME}, or username in {JAAS}, or set {USERNAME_ENV}")
    if not password:
        raise BadConfig(f"no password: say {PASSWORD}, or password in {JAAS}, or set {PASSWORD_ENV}")
    return mechanism, username, password


def _jaas(text: str, module: str) -> dict[str, str]:
    login = _LOGIN.fullmatch(text)
    if not login or not login[1].endswith(f".{module}LoginModule"):
        package = "plain" if module == "Plain" else "scram"
        raise BadConfig(
            f"{JAAS}: write org.apache.kafka.common.security.{package}.{module}LoginModule required "
            'username="…" password="…";'
        )
    return {k: _ESCAPE.sub(r"\1", v[1:-1]) if v[0] == '"' else v for k, v in _OPTION.findall(login[2])}


def _context(said: Mapping[str, str], environment: Mapping[str, str]) -> ssl.SSLContext:
    trust = [k for k in (TRUST, CA, TRUSTED) if said.get(k)]
    if len(trust) > 1:
        raise BadConfig(f"{' and '.join(trust)} say the same: leave one")
    pem = ""
    if trust:
        pem = said[TRUSTED] if trust == [TRUSTED] else _pem(said[trust[0]], trust[0], said.get(TRUST_TYPE, ""))
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=pem or None)
    except (ssl.SSLError, ValueError) as e:
        raise BadConfig(f"{trust[0]} holds no certificate that can be read (PEM): {e}") from None
    algorithm = said.get(HOSTNAME, "https").lower()
    if algorithm not in ("https", "", "none"):
        raise BadConfig(f"{HOSTNAME} {algorithm}: https, or nothing, which compares no names")
    context.check_hostname = algorithm == "https"
    _identify(context, said, environment)
    return context


def _identify(context: ssl.SSLContext, said: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Load the certificate that the client shows, if one is named."""
    store, certificate, key = said.get(STORE), said.get(CERTIFICATE), said.get(KEY)
    if store and (certificate or key):
        raise BadConfig(f"{STORE} holds certificate and key: leave out {CERTIFICATE} and {KEY}")
    if bool(certificate) != bool(key):
        raise BadConfig(f"{CERTIFICATE} and {KEY} go together")
    chain = store or certificate
    if not chain:
        return
    _pem(chain, STORE if store else CERTIFICATE, said.get(STORE_TYPE, ""))
    if key:
        _pem(key, KEY)
    secret = environment.get(KEY_PASSWORD_ENV) or said.get(KEY_PASSWORD, "")
    try:
        context.load_cert_chain(chain, key, secret)  # "" rather than None, or OpenSSL would ask the terminal
    except (ssl.SSLError, OSError) as e:
        raise BadConfig(
            f"{key or chain}: the key cannot be loaded ({getattr(e, 'reason', None) or 'wrong or missing password'}): "
            f"does it belong to the certificate, and is its password in {KEY_PASSWORD} or {KEY_PASSWORD_ENV}?"
        ) from None


def _pem(name: str, key: str, kind: str = "") -> str:
    try:
        data = Path(name).read_bytes()
    except OSError as e:
        raise BadConfig(f"{key} {name} cannot be read: {e.strerror}") from None
    if _PEM.encode() not in data or kind.upper() not in ("", "PEM"):
        out = "cert" if key in (TRUST, CA) else "cert and key"
        raise BadConfig(
            f"{key} {name} is no PEM, and Java's key stores (JKS, PKCS12) are not read here: turn the {out} into PEM "
            "(keytool -importkeystore … -deststoretype PKCS12, then openssl pkcs12 -in … -nodes), and say its type is PEM"
        )
    return data.decode("ascii", errors="ignore")  # of comments beside it
