"""The Helm chart: Helm's own linter has nothing to say, Kubernetes' schemas hold, and what it starts are commands that there are."""

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from olearning.cli import app
from streams.jars import from_maven

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/olearning"
HELM = ("helm-java-0.0.21", "com.marcnuri.helm-java:helm-java:0.0.21")
"""Helm as a library, from Maven as the broker is: Helm itself would take minutes to build."""
KUBERNETES = "1.33.0"
KAFKA = "kafka.bootstrapServers=broker:9092"
ALL = (KAFKA, "aggregator.autoscaling.enabled=true", "fleets.enabled=true", "networkPolicy.enabled=true", "podMonitor.enabled=true",
       "gateway.enabled=true", "gateway.secret=tokens", "gateway.tlsSecret=tls", "gateway.check=own", "monitor.passwordSecret=who", "modules.enabled=true",
       "kafka.client.secret=login", "kafka.client.secrets.gateway=edge", "code.configMap=own", "code.load[0]=/code/own.py", "imagePullSecrets[0].name=pull")  # fmt: skip
OTHERS = {"ScaledObject", "PodMonitor"}
"""Kinds of KEDA and of the Prometheus operator, which are no part of Kubernetes."""

pytestmark = pytest.mark.stack


def helm(chart: Path, *values: str) -> "subprocess.CompletedProcess[str]":
    java = shutil.which("java") or "java"
    jars = from_maven(*HELM)
    return subprocess.run(
        [java, "-cp", f"{jars}/*", str(Path(__file__).with_name("Chart.java")), str(chart), KUBERNETES, *values],
        capture_output=True,
        text=True,
    )


@lru_cache
def manifests(*values: str) -> list[dict[str, Any]]:
    done = helm(CHART, *values)
    assert done.returncode == 0, done.stderr
    return [m for m in yaml.safe_load_all(done.stdout) if m]


def check(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.33", strict=True)


@pytest.mark.parametrize("values", [(KAFKA,), ALL], ids=["least", "all"])
def test_kubernetes_takes_it(values: tuple[str, ...]) -> None:
    found = manifests(*values)
    kinds = [m["kind"] for m in found]
    assert kinds.count("Deployment") == 8 + 6 * (values is ALL)
    assert kinds.count("Service") == 1 + 2 * (values is ALL)
    for m in found:
        if m["kind"] in OTHERS:
            assert values is ALL
        else:
            check(m)


def test_what_kubernetes_does_not_know_would_be_seen() -> None:
    deployment = next(m for m in manifests(KAFKA) if m["kind"] == "Deployment")
    wrong = deployment | {"spec": deployment["spec"] | {"replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(wrong)


def test_every_pod_starts_a_command_that_there_is() -> None:
    """Words and options are those of the command line, and no pod is root or writes to its root file system."""
    for m in manifests(*ALL):
        if m["kind"] != "Deployment":
            continue
        pod = m["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        words, command = list(container["args"]), get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("olearning", words)  # raises for an option that there is not


def test_secrets_lie_where_the_command_looks_for_them() -> None:
    for m in manifests(*ALL):
        if m["kind"] != "Deployment":
            continue
        pod = m["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
        at = {v["mountPath"]: secrets[v["name"]] for v in container["volumeMounts"] if v["name"] in secrets}
        environment = {e["name"]: e.get("value") for e in container["env"]}
        assert environment["KAFKA_CLIENT_CONFIG"] == "/run/secrets/kafka/client.properties"
        if container["name"] == "monitor":
            assert at == {"/run/secrets/kafka": "login", "/run/secrets/monitor": "who"}
            assert container["args"][5:7] == ["--password-file", "/run/secrets/monitor/password"]
            continue
        if container["name"] != "gateway":
            assert at == {"/run/secrets/kafka": "login"}
            continue
        assert at == {"/run/secrets/kafka": "edge", "/run/secrets/gateway": "tokens", "/run/secrets/tls": "tls"}
        files = [w for w in container["args"] if w.startswith("/run/")]
        assert files == ["/run/secrets/gateway/secret", "/run/secrets/tls/tls.crt", "/run/secrets/tls/tls.key"]
        assert {p["name"]: p["containerPort"] for p in container["ports"]} == {"metrics": 9464, "http": 8080}
    page = next(m for m in manifests(KAFKA) if m["metadata"]["name"].endswith("monitor") and m["kind"] == "Deployment")
    assert "--open" in page["spec"]["template"]["spec"]["containers"][0]["args"], "who wants no password has said so"
    assert not any("KAFKA_CLIENT_CONFIG" in str(m) or "secretName" in str(m) for m in manifests(KAFKA))


def test_helm_and_its_schema_say_what_is_wrong(tmp_path: Path) -> None:
    done = helm(CHART)
    assert done.returncode == 1
    assert "kafka.bootstrapServers must name your brokers" in done.stderr
    done = helm(CHART, KAFKA, "zones[0]=A")
    assert done.returncode == 1
    assert "zones" in done.stderr
    done = helm(CHART, KAFKA, "gateway.enabled=true")
    assert done.returncode == 1
    assert "gateway.secret must name a Secret" in done.stderr
    broken = tmp_path / "olearning"
    shutil.copytree(CHART, broken)
    (broken / "templates/coordinators.yaml").write_text('{{ include "olearning.nothing" . }}')
    assert helm(broken, KAFKA).returncode == 1
