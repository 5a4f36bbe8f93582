"""The files under deploy/ agree with the server: its settings, ports, services, metrics and exit."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.api.open_inference import InferenceService
from serving.api.rank_service import SERVICE_NAME
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import PREFIX, ServerSettings
from tests.deploy.kustomize import rendered
from tests.tiny_bundle import publish_tiny

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
IMAGE = dict(
    pair.split("=") for line in re.findall(rf"^ENV ({PREFIX}.+)$", DOCKERFILE, re.MULTILINE) for pair in line.split()
)
PORTS = {"grpc": ServerSettings(store=Path()).port, "metrics": int(IMAGE["MOERANK_METRICS_PORT"])}


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def settings(environment: dict[str, str]) -> ServerSettings:
    """What the server makes of a container's variables on top of its image's; unknown ones are a mistake."""
    unknown = {name for name in environment if name.removeprefix(PREFIX).lower() not in ServerSettings.model_fields}
    assert not unknown
    return ServerSettings.read({}, IMAGE | environment)


@pytest.mark.parametrize("file", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_yaml(file: Path) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(file.read_text(encoding="utf-8")))


BASE, PRODUCTION = "base", "overlays/production"
BOTH = pytest.mark.parametrize("place", [BASE, PRODUCTION])


def of_kind(kind: str, place: str = BASE) -> Any:
    (found,) = (document for document in rendered(DEPLOY / "kubernetes" / place) if document["kind"] == kind)
    return found


def pod(place: str = BASE) -> Any:
    return of_kind("Deployment", place)["spec"]["template"]["spec"]


def container(place: str = BASE) -> Any:
    (found,) = pod(place)["containers"]
    return found


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@BOTH
def test_kubectl_makes_the_same_of_a_kustomization(place: str) -> None:
    command = ["kubectl", "kustomize", str(DEPLOY / "kubernetes" / place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        {(each["kind"], each["metadata"]["name"]): in_any_order(each) for each in documents}
        for documents in (rendered(DEPLOY / "kubernetes" / place), yaml.safe_load_all(done.stdout))
    )
    assert ours == theirs


def in_any_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: in_any_order(each) for name, each in value.items()}
    if isinstance(value, list):
        return sorted((in_any_order(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


@BOTH
def test_a_pod_has_the_servers_settings_and_time_to_end(place: str) -> None:
    server = container(place)
    chosen = settings({entry["name"]: entry["value"] for entry in server["env"]})
    plaintext = place == BASE
    assert (chosen.host, chosen.allow_plaintext, chosen.device) == ("0.0.0.0", plaintext, "cpu")  # noqa: S104 in a container
    assert str(chosen.threads) == server["resources"]["limits"]["cpu"]
    before = float(server["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod(place)["terminationGracePeriodSeconds"] > before + chosen.drain_seconds + chosen.grace_seconds
    # Unready before the drain is over, or the pod is gone while calls are still sent to it.
    ready = server["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < before + chosen.drain_seconds


@BOTH
def test_replicas_are_spread_and_everything_names_the_same_pods(place: str) -> None:
    labels = of_kind("Deployment", place)["spec"]["template"]["metadata"]["labels"]
    spread = pod(place)["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    selectors = [each["labelSelector"] for each in spread]
    selectors += [of_kind("PodDisruptionBudget", place)["spec"]["selector"]]
    selectors += [of_kind("NetworkPolicy", place)["spec"]["podSelector"]]
    selectors += [{"matchLabels": of_kind("Service", place)["spec"]["selector"]}]
    assert all(each["matchLabels"] == labels for each in selectors)


def test_production_reads_its_secrets_from_volumes_and_probes_over_tls() -> None:
    server = container(PRODUCTION)
    chosen = settings({entry["name"]: entry["value"] for entry in server["env"]})
    mounts = {mount["mountPath"]: mount["name"] for mount in server["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(PRODUCTION)["volumes"]}
    for path in (chosen.tls_certificate, chosen.tls_key, chosen.token_file):
        assert path is not None
        assert "secret" in volumes[mounts[str(path.parent)]]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert "grpc" not in server[name]
        assert server[name]["exec"]["command"][:3] == ["python", "-m", "serving.client.probe"]
    assert "Secret" not in {document["kind"] for document in rendered(DEPLOY / "kubernetes" / PRODUCTION)}


def test_production_scales_by_the_queue_and_is_scraped() -> None:
    scaled = of_kind("ScaledObject", PRODUCTION)["spec"]
    assert scaled["scaleTargetRef"]["name"] == of_kind("Deployment", PRODUCTION)["metadata"]["name"]
    # Applying the files again would undo what KEDA chose.
    assert "replicas" not in of_kind("Deployment", PRODUCTION)["spec"]
    assert 'moerank_latency_seconds_bucket{phase="queue"}' in scaled["triggers"][0]["metadata"]["query"]
    monitor = of_kind("ServiceMonitor", PRODUCTION)["spec"]
    service = of_kind("Service", PRODUCTION)
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {each["port"] for each in monitor["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    # The alert of a target that is down asks for this job.
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "moerank"


def test_ports_are_those_of_the_server() -> None:
    assert {port["name"]: port["containerPort"] for port in container()["ports"]} == PORTS
    assert {port["name"]: port["port"] for port in of_kind("Service")["spec"]["ports"]} == PORTS
    annotations = of_kind("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORTS["metrics"])
    assert f"EXPOSE {PORTS['grpc']} {PORTS['metrics']}\n" in DOCKERFILE
    server = documents("compose.yaml")[0]["services"]["server"]
    assert server["ports"] == [f"127.0.0.1:{PORTS['grpc']}:{PORTS['grpc']}"]
    targets = documents("prometheus.yaml")[0]["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"server:{PORTS['metrics']}"]


def test_probes_ask_for_services_that_there_are() -> None:
    probes = [container()[name]["grpc"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert all(probe["port"] == PORTS["grpc"] for probe in probes)
    assert {probe.get("service", "") for probe in probes} <= {"", SERVICE_NAME, InferenceService.name}
    assert "serving.client.probe" in DOCKERFILE


def test_nothing_runs_as_root_or_writes_to_the_store() -> None:
    assert pod()["securityContext"]["runAsNonRoot"]
    guard = container()["securityContext"]
    assert guard["readOnlyRootFilesystem"]
    assert not guard["allowPrivilegeEscalation"]
    store = IMAGE["MOERANK_STORE"]
    mounts = {mount["mountPath"]: mount["readOnly"] for mount in container()["volumeMounts"]}
    assert mounts == {store: True}
    stages = DOCKERFILE.split("\nFROM ")
    assert all("\nUSER 10001\n" in stage for stage in stages[-2:])
    server = documents("compose.yaml")[0]["services"]["server"]
    assert server["read_only"]
    assert server["volumes"][0].endswith(f":{store}:ro")


def test_compose_has_the_servers_settings_and_time_to_end() -> None:
    services = documents("compose.yaml")[0]["services"]
    chosen = settings(services["server"]["environment"])
    patience = float(services["server"]["stop_grace_period"].removesuffix("s"))
    assert patience > chosen.drain_seconds + chosen.grace_seconds
    assert chosen.user_store is not None
    assert chosen.user_store.startswith("redis://users:")
    mounted = [
        volume for service in services.values() for volume in service.get("volumes", []) if volume.startswith("./")
    ]
    assert all((DEPLOY / volume.split(":")[0]).is_file() for volume in mounted)


def test_images_copy_what_exists_and_is_not_ignored() -> None:
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert copied
    for name in {*copied, *kept} - {"."}:
        assert (ROOT / name).exists(), name
        assert any(fnmatch(name, rule) for rule in kept), name


def test_the_image_has_a_python_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    image = re.search(r"^FROM python:3\.(\d+)-", DOCKERFILE, re.MULTILINE)
    assert image is not None
    assert f">=3.{image[1]}" == project["requires-python"]


@pytest.mark.parametrize("module", ["serving", "serving.client.probe"])
def test_the_commands_of_the_image_exist(module: str) -> None:
    assert f'"{module}"' in DOCKERFILE
    assert find_spec(f"{module}.__main__" if module == "serving" else module) is not None


LOADED = """
import sys
from importlib.metadata import packages_distributions
import serving.__main__, serving.grpc_server.server, serving.client, serving.client.probe, serving.observe.tracing
distributions = packages_distributions()
print("\\n".join({d for m in sys.modules if "." not in m for d in distributions.get(m, [])}))
"""


def test_the_server_imports_only_what_its_image_installs() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    def listed(file: str) -> set[str]:
        lines = (ROOT / "requirements" / file).read_text(encoding="utf-8").splitlines()
        return {normal(re.split("[=;]", line)[0]) for line in lines if line and not line.startswith(("#", "-"))}

    run = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {normal(name) for name in run.stdout.split()} - {"moerank"}
    # What the wanted packages pull in, or take along where it happens to be installed.
    follows = {"annotated-types", "async-timeout", "pydantic-core", "typing-extensions", "typing-inspection"}
    follows |= {"cloudpickle", "cryptography", "grpcio-tools", "setuptools", "cffi", "packaging", "python-dotenv"}
    assert loaded - follows - listed("server.txt") <= {"onnxruntime"}
    assert not loaded & {"torch", "prefect", "ibis-framework", "duckdb", "torchrec"}
    assert listed("server.txt") <= listed("common.txt")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the metrics of a running server."""
    folder = tmp_path_factory.mktemp("deploy")
    publish_tiny(folder / "store", folder / "work")
    chosen = ServerSettings(
        store=folder / "store", port=0, metrics_port=0, user_store="redis://127.0.0.1:1/0", log=folder / "log"
    )
    with start(chosen) as server:
        assert server.metrics is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics.port}/metrics") as answer:
            text = answer.read().decode()
    # Of a server of several processes alone.
    text += "# TYPE moerank_processes gauge\nmoerank_processes 2\n"
    text += "# TYPE moerank_process_restarts_total counter\nmoerank_process_restarts_total 0\n"
    families = list(text_string_to_metric_families(text))
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "summary": ["_count", "_sum"]}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


def expressions(name: str) -> list[str]:
    if name.endswith(".json"):
        board = json.loads((DEPLOY / name).read_text(encoding="utf-8"))
        queries = [variable["query"] for variable in board["templating"]["list"]]
        return [*queries, *(target["expr"] for panel in board["panels"] for target in panel["targets"])]
    return [rule["expr"] for group in documents(name)[0]["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("file", ["grafana/server.json", "alerts.yaml"])
def test_queries_name_only_metrics_that_the_server_has(exported: set[str], file: str) -> None:
    for expression in expressions(file):
        named = set(re.findall(r"\b(?:nv|moerank|process)_\w+", expression))
        assert named or expression.startswith("up{"), expression
        assert named <= exported, expression
        assert expression.count("(") == expression.count(")")


def test_every_metric_has_a_panel(exported: set[str]) -> None:
    shown = set(re.findall(r"\b(?:nv|moerank)_\w+", " ".join(expressions("grafana/server.json"))))
    # Either series of a histogram or a summary shows it.
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in exported if name.startswith(("nv_", "moerank_"))}
    assert families - {re.sub("_(bucket|sum|count)$", "", name) for name in shown} == set()


def test_the_documentation_names_only_metrics_that_the_server_has(exported: set[str]) -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`((?:nv_inference|moerank)_\w+)", page)) - {"moerank_client"}:
        assert any(known.startswith(name) for known in exported), name
