"""Files for teams against the schemas and linters of those who read them, and every name in them against the code."""

import asyncio
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from polling import PATIENCE
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.settings import Settings
from prefect.settings.legacy import _get_settings_fields
from prefect_kubernetes.settings import KubernetesSettings
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

from deployments.set_up import WORK_POOL
from longrecipe_core.launching.supervisor import MARGIN
from longrecipe_core.recipe import LaunchSection, Recipe

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ROOT / "deployments"
COMPOSE, DOCKERFILE = DEPLOYMENTS / "compose.yaml", DEPLOYMENTS / "docker" / "Dockerfile"
MANIFESTS = sorted((DEPLOYMENTS / "kubernetes").glob("*.yaml"))
TEMPLATE = DEPLOYMENTS / "kubernetes" / "base-job-template.json"
BATCH = DEPLOYMENTS / "slurm" / "machines.sbatch"
FILES = [COMPOSE, DEPLOYMENTS / "env.example", DOCKERFILE, *MANIFESTS, TEMPLATE, BATCH]
KUBERNETES_VERSIONS = ["1.31", "1.37"]  # the first with a successPolicy, and the newest
# What must fit between the signal and the kill: saving, the supervisor's own margin, and its last duty.
GRACE = LaunchSection().preemption_grace + MARGIN + 30


def tool(*arguments: str | Path) -> str:
    """Run a linter that came with the development environment; its output where it has found nothing."""
    done = subprocess.run(
        [Path(sys.executable).with_name(str(arguments[0])), *arguments[1:]],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


def validate(manifest: dict) -> None:
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def pod_of(manifest: dict) -> dict:
    return manifest["spec"]["template"]["spec"]


def job_of(path: Path) -> dict:
    return next(document for document in documents(path) if document["kind"] == "Job")


def render(values: dict) -> dict:
    """The Job that a Prefect worker makes of the template for a flow run."""
    nobody = PrefectClient("http://127.0.0.1:9/api")  # asked for blocks only, of which the template names none
    configuration = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(
            json.loads(TEMPLATE.read_text()), values, client=nobody
        )
    )
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="a-run"))
    return configuration.job_manifest


def test_compose_file_follows_its_specification():
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_dockerfile_passes_hadolint():
    tool("hadolint", DOCKERFILE)


@pytest.mark.parametrize("script", [BATCH, Path(__file__).with_name("install_services.sh")], ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
    tool("shellcheck", script)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_follow_kubernetes_schema(path):
    for manifest in documents(path):
        validate(manifest)
        assert manifest["metadata"]["namespace"] == "longrecipe"


@pytest.mark.parametrize(
    "values", [{}, {"gpus": 8, "env": {"FROM_DEPLOYMENT": "1"}, "cpu_request": "8", "memory_limit": "64Gi"}]
)
def test_job_template_renders_to_a_valid_job(values):
    manifest = render(values)
    validate(manifest)
    (container,) = pod_of(manifest)["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == values.get("gpus", 1)
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables["LONGRECIPE_STORE"] == "/storage/artifacts"  # the template's, and a deployment's beside it
    assert variables.get("FROM_DEPLOYMENT") == values.get("env", {}).get("FROM_DEPLOYMENT")
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["envFrom"] == [{"secretRef": {"name": "longrecipe"}}]


def test_job_template_has_all_that_prefect_s_own_has():
    ours, theirs = json.loads(TEMPLATE.read_text()), KubernetesWorker.get_default_base_job_template()
    assert set(theirs["job_configuration"]) == set(ours["job_configuration"])
    for name, schema in theirs["variables"]["properties"].items():
        held = ours["variables"]["properties"][name]
        assert {**held, "default": None} == {**schema, "default": None}, name
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(ours["job_configuration"])))
    assert used == set(ours["variables"]["properties"])


def test_pods_have_time_to_save_and_are_told_to():
    for pod in (pod_of(render({})), pod_of(job_of(DEPLOYMENTS / "kubernetes" / "machines.yaml"))):
        assert pod["terminationGracePeriodSeconds"] >= GRACE
        assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1:] == [
            "-m",
            "longrecipe_core.launching.preempt",
        ]
    assert int(re.search(r"--signal=TERM@(\d+)", BATCH.read_text())[1]) >= GRACE
    worker = yaml.safe_load(COMPOSE.read_text())["services"]["worker"]
    assert int(worker["stop_grace_period"].removesuffix("s")) >= GRACE


def test_pods_of_several_machines_find_each_other():
    service, job = documents(DEPLOYMENTS / "kubernetes" / "machines.yaml")
    pod, name = pod_of(job), job["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    variables = {entry["name"]: entry for entry in container["env"]}
    port = service["spec"]["ports"][0]["port"]
    # An Indexed Job's pod has the host name JOB-INDEX.
    assert variables["LONGRECIPE_MAIN_ADDRESS"]["value"] == f"{name}-0.{pod['subdomain']}:{port}"
    field = variables["LONGRECIPE_MACHINE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_recipes_of_several_machines_fit_their_jobs():
    job = job_of(DEPLOYMENTS / "kubernetes" / "machines.yaml")
    (container,) = pod_of(job)["containers"]
    command = re.search(r"longrecipe run (.+)", container["args"][2])[1]
    assert_fits(command, job["spec"]["completions"], container["resources"]["limits"]["nvidia.com/gpu"])
    assert job["spec"]["parallelism"] == job["spec"]["completions"]
    text = BATCH.read_text()
    command = re.search(r"^#  +longrecipe run (.+)", text, re.MULTILINE)[1]
    keys = ("nodes", "gpus-per-node")
    nodes, gpus = (int(re.search(rf"^#SBATCH --{key}=(\d+)", text, re.MULTILINE)[1]) for key in keys)
    assert_fits(command, nodes, gpus)


def assert_fits(command: str, machines: int, gpus: int) -> None:
    recipe, *options = shlex.split(command)
    launch = Recipe.load(ROOT / recipe, [option for option in options if option != "--set"]).launch
    assert (launch.machines, launch.processes) == (machines, machines * gpus)


def test_no_secret_has_a_default():
    compose, example = COMPOSE.read_text(), (DEPLOYMENTS / "env.example").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", compose))
    assert needed == {"PREFECT_API_AUTH_STRING", "POSTGRES_PASSWORD", "STORE_ACCESS_KEY", "STORE_SECRET_KEY"}
    assert dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == dict.fromkeys(needed, "")
    optional = set(re.findall(r"\$\{(\w+):-", compose))
    assert set(re.findall(r"^#(\w+)=", example, re.MULTILINE)) == optional
    for service in yaml.safe_load(compose)["services"].values():
        for name, value in service["environment"].items():
            if re.search(r"PASSWORD|SECRET|AUTH|TOKEN|ACCESS_KEY", name):
                assert re.fullmatch(r"\$\{\w+:(\?.+|-)\}", value), name
    ignored = subprocess.run(["git", "check-ignore", "deployments/.env"], cwd=ROOT, check=False, capture_output=True)
    assert ignored.returncode == 0


def test_every_variable_is_one_that_somebody_reads():
    prefect = {*_get_settings_fields(Settings), *_get_settings_fields(KubernetesSettings)}
    sources = [path for folder in ("longrecipe_core", "tasks", "flows") for path in (ROOT / folder).rglob("*.py")]
    ours = set(re.findall(r'"(LONGRECIPE_[A-Z_]+)"', "".join(path.read_text() for path in sources)))
    for path in FILES:
        text = re.sub(r'^ *"description": .*$', "", path.read_text(), flags=re.MULTILINE)  # Prefect's own words
        for name in re.findall(r"\b(?:LONGRECIPE|PREFECT)_[A-Z_]+\b", text):
            assert name in prefect | ours, f"{path.name}: {name}"


def test_every_module_pool_claim_and_file_exists():
    for path in FILES:
        text = path.read_text()
        for module in re.findall(r"""python["']?,? ["']?-m["']?,? ["']?([\w.]+)""", text):
            assert importlib.util.find_spec(module) is not None, f"{path.name}: {module}"
        for pool in re.findall(r"--pool,? (\w+)", text):
            assert pool == WORK_POOL
        for recipe in re.findall(r"recipes/[\w.-]+", text):
            assert (ROOT / recipe).is_file(), f"{path.name}: {recipe}"
    (claim,) = documents(DEPLOYMENTS / "kubernetes" / "storage.yaml")
    for pod in (pod_of(render({})), pod_of(job_of(DEPLOYMENTS / "kubernetes" / "machines.yaml"))):
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_image_takes_what_it_names_and_nothing_else():
    kept = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = {
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)
    extras = re.search(r"^ARG EXTRAS=(.+)$", DOCKERFILE.read_text(), re.MULTILINE)[1].split(",")
    assert all(re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE) for extra in extras)
