"""Client properties: as Java and librdkafka write them, with clear words for what cannot be, and never a password in them."""

import subprocess
from pathlib import Path

import pytest

from olearning.cli import outcome
from olearning.connect import choose, find
from olearning.errors import USAGE, Trouble
from streams.security import (
    ENV,
    KEY_PASSWORD_ENV,
    PASSWORD_ENV,
    USERNAME_ENV,
    BadConfig,
    Security,
    from_environment,
    read,
)

SECRET = 'geheim"; \\x'
PLAIN = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
JAAS = f'{PLAIN}sasl.jaas.config={LOGIN} \\\n  username="ann" \\\n  password="geheim\\\\"; \\\\\\\\x";\n'
"""Quoted for JAAS, and then for a properties file, as Kafka's own tools want it."""


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate, its key, and the same key under a password."""
    folder = tmp_path_factory.mktemp("pem")
    for words in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x -keyout key.pem -out cert.pem",
        "pkey -in key.pem -aes256 -passout pass:open -out locked.pem",
        "pkcs12 -export -in cert.pem -inkey key.pem -passout pass:open -out store.p12",
    ):
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    return folder


def test_without_a_file_nothing_is_secured() -> None:
    assert from_environment({}) == Security()
    assert Security().settings() == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize(
    "text",
    [
        JAAS,
        f"{PLAIN}sasl.username=ann\nsasl.password=geheim\"; \\\\x\n",
        f"! a word\n# another\n{PLAIN.replace('sasl.mechanism=', 'sasl.mechanisms : ')}\n sasl.username ann\n sasl.password = \\u0067eheim\"; \\\\x",
    ],
)  # fmt: skip
def test_a_login_as_java_and_as_librdkafka_say_it(text: str) -> None:
    how = read(text, "f", {})
    assert (how.protocol, how.mechanism, how.username, how.password) == ("SASL_PLAINTEXT", "PLAIN", "ann", SECRET)
    assert how.settings()["sasl_plain_password"] == SECRET
    assert "geheim" not in repr(how)


def test_the_environment_outranks_the_file_and_an_empty_variable_says_nothing() -> None:
    assert read(JAAS, "f", {PASSWORD_ENV: "new", USERNAME_ENV: ""}).settings()["sasl_plain_password"] == "new"
    assert read(PLAIN, "f", {PASSWORD_ENV: "new", USERNAME_ENV: "bob"}).username == "bob"


def test_what_tunes_java_s_clients_is_left_out_and_named() -> None:
    how = read(f"{JAAS}request.timeout.ms=100\nclient.id=x\nbootstrap.servers=a:1,b:2", "f", {})
    assert (how.left_out, how.bootstrap) == (("request.timeout.ms", "client.id"), "a:1,b:2")


def test_certificates(pem: Path) -> None:
    trust = f"security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={pem}/cert.pem\n"
    context = read(trust, "f", {}).context
    assert context
    assert (context.check_hostname, len(context.get_ca_certs())) == (True, 1)
    lax = read(f"{trust}ssl.endpoint.identification.algorithm=\n", "f", {}).context
    assert lax
    assert (lax.check_hostname, lax.verify_mode) == (False, context.verify_mode)
    inline = (pem / "cert.pem").read_text().replace("\n", "\\n\\\n")
    assert (
        len(read(f"security.protocol=SSL\nssl.truststore.certificates={inline}", "f", {}).context.get_ca_certs()) == 1
    )  # type: ignore[union-attr]
    mine = f"{trust}ssl.certificate.location={pem}/cert.pem\nssl.key.location={pem}/locked.pem\n"
    assert read(mine, "f", {KEY_PASSWORD_ENV: "open"}).context
    with pytest.raises(BadConfig, match=r"its password in ssl\.key\.password or KAFKA_SSL_KEY_PASSWORD"):
        read(mine, "f", {})
    with pytest.raises(BadConfig, match=r"no PEM, and Java's key stores \(JKS, PKCS12\) are not read here"):
        read(f"security.protocol=SSL\nssl.truststore.location={pem}/store.p12", "f", {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("securty.protocol=SSL", "securty.protocol: not known here. Known: bootstrap.servers, security.protocol, sasl"),
        ("ssl.protocol=TLSv1.3", "ssl.protocol: not known here"),
        ("security.protocol=TLS", "there are PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        (JAAS.replace("SASL_PLAINTEXT", "PLAINTEXT"), "sasl.jaas.config means nothing with security.protocol PLAINTEXT"),
        ("ssl.ca.location=/x", "ssl.ca.location means nothing with security.protocol PLAINTEXT"),
        (PLAIN.replace("sasl.mechanism=PLAIN", ""), "sasl.mechanism is missing: there are PLAIN, SCRAM-SHA-256"),
        (PLAIN.replace("=PLAIN\n", "=OAUTHBEARER\n"), "OAUTHBEARER is not supported: there are PLAIN"),
        (PLAIN.replace("=PLAIN\n", "=GSSAPI\n"), "GSSAPI is not supported: there are PLAIN"),
        (f"{PLAIN}sasl.jaas.config=geheim", "write org.apache.kafka.common.security.plain.PlainLoginModule required"),
        (JAAS.replace("=PLAIN\n", "=SCRAM-SHA-512\n"), "write org.apache.kafka.common.security.scram.ScramLoginModule"),
        (f"{PLAIN}sasl.password=geheim", "no user name: say sasl.username"),
        (f"{PLAIN}sasl.username=ann", "no password: say sasl.password, or password in sasl.jaas.config, or set KAFKA_SASL"),
        (f"{JAAS}sasl.mechanism=PLAIN", "sasl.mechanism is said twice"),
        (f"{PLAIN}geheim", "write key=value"),
        ("security.protocol=SSL\nssl.ca.location=/none", "ssl.ca.location /none cannot be read"),
        ("security.protocol=SSL\nssl.key.location=/none", "ssl.certificate.location and ssl.key.location go together"),
        ("security.protocol=SSL\nssl.endpoint.identification.algorithm=off", "https, or nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_words_without_the_password(text: str, words: str) -> None:
    with pytest.raises(BadConfig) as e:
        read(text, "file", {})
    assert words in str(e.value)
    assert str(e.value).startswith("client config file: ")
    assert "geheim" not in str(e.value)


def test_the_command_says_it_and_no_local_broker_is_taken_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv(ENV, "")
    assert outcome(["--client-config", str(tmp_path / "none"), "status", "--bootstrap", "x:1"]) == USAGE
    assert "none cannot be read: No such file" in capsys.readouterr().err
    config = tmp_path / "client.properties"
    config.write_text(JAAS)
    monkeypatch.setenv(ENV, str(config))
    with pytest.raises(Trouble, match=r"how to speak to a Kafka of yours, and none is named"):
        choose(tmp_path, lambda _: None)
    config.write_text(f"{JAAS}acks=all\nbootstrap.servers=k:9093")
    said: list[str] = []
    assert (choose(tmp_path, said.append).bootstrap, find()) == ("k:9093", "k:9093")
    assert said == [f"broker: yours, at k:9093, by SASL_PLAINTEXT as {config} says; ignored there: acks"]
