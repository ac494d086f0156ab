"""A broker with TLS, logins and an authorizer, for tests: certificates and users are made for it, and end with it."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streams import broker, jars
from streams.broker import commands, free_port, settings

MODULE = "org.apache.kafka.common.security.{}LoginModule required"
SECURED = """
listeners=PLAINTEXT://127.0.0.1:{plain},TLS://127.0.0.1:{tls},MUTUAL://127.0.0.1:{mutual},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},TLS://127.0.0.1:{tls},MUTUAL://localhost:{mutual}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,TLS:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={folder}/broker.pem
listener.name.mutual.ssl.keystore.type=PEM
listener.name.mutual.ssl.keystore.location={folder}/broker.pem
listener.name.mutual.ssl.truststore.type=PEM
listener.name.mutual.ssl.truststore.location={folder}/ca.crt
listener.name.mutual.ssl.client.auth=required
listener.name.tls.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.tls.plain.sasl.jaas.config={plain_module} user_admin="{password}" user_stranger="{password}";
listener.name.tls.scram-sha-256.sasl.jaas.config={scram_module};
"""
"""What a secured broker has besides, or in the place of, the settings of all local ones: a later line of a properties file holds.
It trusts itself without TLS (ANONYMOUS), as its own listener is not what is tested. To clients that show a certificate it names itself as its own does not."""
PASSWORD = "a pass=word;"


@dataclass(frozen=True)
class Secured:
    """HOST:PORT `tls` with TLS and logins, `mutual` with TLS by certificates on both sides, `plain` without either. `ca` signed the broker's
    certificate and `client`, which holds its key, too; `other_ca` did not."""

    tls: str
    mutual: str
    plain: str
    client: Path
    ca: Path
    other_ca: Path
    log: Path

    def properties(self, user: str, mechanism: str = "SCRAM-SHA-256", password: str = PASSWORD) -> str:
        """A client properties file, as Kafka's own tools take it."""
        module = MODULE.format("plain.Plain" if mechanism == "PLAIN" else "scram.Scram")
        return (
            f"security.protocol=SASL_SSL\nsasl.mechanism={mechanism}\nssl.truststore.type=PEM\nssl.truststore.location={self.ca}\n"
            f'sasl.jaas.config={module} username="{user}" password="{password}";\n'
        )


@contextlib.contextmanager
def secured(folder: Path, users: tuple[str, ...] = ()) -> Iterator[Secured]:
    """Start one; `users` have SCRAM logins, `admin` and `stranger` PLAIN ones."""
    _authority(folder, "ca"), _authority(folder, "other-ca")
    _certificate(folder, "broker"), _certificate(folder, "client")
    plain, tls, mutual, controller = (free_port() for _ in range(4))
    properties, log = folder / "server.properties", folder / "broker.log"
    modules = {"plain_module": MODULE.format("plain.Plain"), "scram_module": MODULE.format("scram.Scram")}
    said = SECURED.format(
        plain=plain, tls=tls, mutual=mutual, controller=controller, folder=folder, password=PASSWORD, **modules
    )
    properties.write_text(settings(plain, controller, (folder / "data").as_posix()) + said)
    prepare, serve = commands(jars.find_java(), str(jars.jars()), str(properties))
    for user in users:
        prepare += ["--add-scram", f"SCRAM-SHA-256=[name={user},password={PASSWORD}]"]
    with log.open("wb") as out:
        subprocess.run(prepare, stdout=out, stderr=out, check=True)
        process = subprocess.Popen(serve, stdout=out, stderr=out)
    try:
        broker.await_ready(f"127.0.0.1:{plain}", lambda: process.poll() is None, log.read_text)
        at = (f"127.0.0.1:{port}" for port in (tls, mutual, plain))
        yield Secured(*at, folder / "client.pem", folder / "ca.crt", folder / "other-ca.crt", log)
    finally:
        process.kill()
        process.wait()


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def _authority(folder: Path, name: str) -> None:
    _openssl(
        folder,
        *(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
        ),
        *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
    )


def _certificate(folder: Path, name: str) -> None:
    """A certificate for the address 127.0.0.1 alone, with its key in one file, as Kafka wants PEM (PKCS #8)."""
    _openssl(
        folder,
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl(
        folder,
        *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"),
        *("-extfile", "names", "-out", f"{name}.crt"),
    )
    (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())
