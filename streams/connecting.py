"""What is wrong between us and Kafka, in words, and what to check: aiokafka's clients say no more than that they cannot connect."""

import asyncio
import socket
import ssl

from aiokafka import errors
from aiokafka.client import collect_hosts
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from streams.security import CA, CERTIFICATE, ENV, HOSTNAME, KEY, MECHANISM, PROTOCOL, STORE, TRUST, Security

LOOK, ANSWER = 8.0, 3.0
"""Seconds that a look may take, and that the broker may take to answer there."""


async def why_not(bootstrap: str, security: Security) -> str:
    """What is wrong between us and these brokers, or one that they name, and what to check; "" if nothing is known.

    aiokafka's clients say no more than that they cannot connect, so this connects once more by itself.
    """
    addresses = [(host, port) for host, port, _ in collect_hosts(bootstrap)]
    for host, port in addresses:
        try:
            async with asyncio.timeout(LOOK):
                words, others = await _look(host, port, security)
        except (OSError, errors.KafkaError):  # TimeoutError is one
            continue
        if words:
            return f"{words} (at {host}:{port}; {_ours(security)})"
        addresses += others - set(addresses)
    return ""


async def unreached(bootstrap: str) -> str:
    """Why nobody is heard at any of these addresses; "" if somebody listens there, or if they are no addresses."""
    said: list[str] = []
    try:
        for host, port, _ in collect_hosts(bootstrap):
            try:
                async with asyncio.timeout(ANSWER):
                    _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return ""
            except socket.gaierror:
                said.append(f"no machine is known as {host}")
            except OSError:
                said.append(f"nobody listens at {host}:{port}")
    except ValueError:
        return ""
    return ", ".join(dict.fromkeys(said))


def _ours(security: Security) -> str:
    """What this client does, in words."""
    source = f"as {security.source} says" if security.source else f"as neither --client-config nor {ENV} says otherwise"
    return f"{' '.join(filter(None, (security.protocol, security.mechanism)))}, {source}"


async def _look(host: str, port: int, security: Security) -> tuple[str, set[tuple[str, int]]]:
    """What is wrong, and the brokers that this one names. Raises `OSError` where nobody listens."""
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    try:
        conn = await create_conn(host, port, request_timeout_ms=int(1000 * ANSWER), **security.settings())
    except ssl.SSLCertVerificationError as e:
        return _unverified(host, e), set()
    except errors.SaslAuthenticationFailed:
        return (
            f"the broker does not let user {security.username} in: check user name and password, and that the broker knows "
            f"the user for {security.mechanism}"
        ), set()
    except (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError):
        words = f"the broker does not take a login by {security.mechanism} here"
        return f"{words}: check {MECHANISM}, {PROTOCOL} and the port", set()
    except (OSError, errors.KafkaError) as e:
        return await _hung_up(host, port, security, getattr(e, "reason", None) or ""), set()
    try:
        metadata = await conn.send(MetadataRequest([]))
    except (OSError, errors.KafkaError):
        return await _hung_up(host, port, security), set()
    finally:
        conn.close()
    return "", {(b[1], b[2]) for b in metadata.brokers}


def _unverified(host: str, error: ssl.SSLCertVerificationError) -> str:
    if "mismatch" in error.verify_message or "not valid for" in error.verify_message:
        return (
            f"the broker's certificate is not for {host} ({error.verify_message}): name the broker as its certificate does, "
            f"or leave {HOSTNAME} empty, which compares no names"
        )
    return (
        f"the broker's certificate is not trusted ({error.verify_message}): check that {TRUST} (or {CA}) holds the CA that "
        "signed it, and its dates"
    )


async def _hung_up(host: str, port: int, security: Security, reason: str = "") -> str:
    """What to check when the broker ends the connection."""
    tls = await _speaks_tls(host, port)
    if security.context and not tls:
        return f"the port does not speak TLS: check the port, or set {PROTOCOL} to PLAINTEXT or SASL_PLAINTEXT"
    if tls and not security.context:
        return f"the port speaks TLS and this client does not: set {PROTOCOL} to SSL or SASL_SSL, or check the port"
    certificate = f"a certificate that it trusts ({CERTIFICATE} and {KEY}, or {STORE})"
    login = f"a login ({PROTOCOL} SASL_{security.protocol})" if not security.mechanism else ""
    asks = " or ".join(filter(None, (login, certificate if tls else "")))
    said = f" ({reason})" if reason else ""
    return f"the broker ends the connection{said}: " + (
        f"does it ask for {asks}?" if asks else f"check {PROTOCOL} and the port"
    )


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said over it
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as e:
        return "ALERT" in (e.reason or "")  # it says no, in TLS
    except OSError:
        return False
    writer.close()
    return True
