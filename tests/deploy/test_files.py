"""What starts the server on other machines: it fits the server, and the tools of its kind find it right. None of it is run here."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from deploy.requirements import requirements
from deploy.serving.settings import Settings
from tests.conftest import REPOSITORY
from tests.deploy.conftest import Tool

DEPLOY = REPOSITORY / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
NGINX = (DEPLOY / "nginx.conf").read_text()
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization")
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of the Dockerfile, as (word, rest), by stage."""
    text = re.sub(r"\\\n(\s*#.*\n)*", " ", re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE))
    found: dict[str, list[tuple[str, str]]] = {}
    stage = ""
    for word, _, rest in (line.strip().partition(" ") for line in text.splitlines() if line.strip()):
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        found.setdefault(stage, []).append((word, rest.strip()))
    return found


def instruction(stage: str, word: str) -> str:
    """The last of that word in a stage, or in the one that it begins from."""
    lines = stages()[stage]
    found = [rest for each, rest in lines if each == word]
    if found:
        return found[-1]
    parent = lines[0][1].split(" AS ")[0]
    return instruction(parent, word)


def pod() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    return found


def commands() -> Iterator[tuple[str, list[str]]]:
    """(image, arguments after its entry point) of whatever starts the server or the deployer."""
    for image in ("server", "deployer"):
        yield image, json.loads(instruction(image, "CMD"))
        if "command" in COMPOSE["services"][image]:
            yield image, COMPOSE["services"][image]["command"]
    for container in (*pod()["containers"], *pod()["initContainers"]):
        yield container["image"].removeprefix("maasflow-").partition(":")[0], container["args"]


def server_arguments() -> list[list[str]]:
    return [arguments for image, arguments in commands() if image == "server"]


def value(arguments: list[str], option: str, default: float) -> float:
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    return float(given.get(option, default))


@pytest.mark.parametrize("image", ["server", "deployer"])
def test_every_option_is_one_that_the_program_knows(image: str) -> None:
    entry = json.loads(instruction(image, "ENTRYPOINT"))
    assert entry[:2] == ["python", "-m"]
    done = subprocess.run([sys.executable, *entry[1:3], "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    known = set(re.findall(r"(?<![\w-])--[a-z-]+", done.stdout))
    given = [[*entry[3:], *arguments] for each, arguments in commands() if each == image]
    # In the image itself; by compose or once; and in Kubernetes.
    assert len(given) == 3
    assert {word.partition("=")[0] for arguments in given for word in arguments if word.startswith("--")} <= known


def test_the_server_has_time_to_finish() -> None:
    arguments = pod()["containers"][0]["args"]
    needed = value(arguments, "--grace", Settings().grace) + value(arguments, "--drain", Settings().drain)
    assert pod()["terminationGracePeriodSeconds"] > needed
    compose = COMPOSE["services"]["server"]
    arguments = compose["command"]
    needed = value(arguments, "--grace", Settings().grace) + value(arguments, "--drain", Settings().drain)
    assert float(compose["stop_grace_period"].removesuffix("s")) > needed


def test_probes_ask_what_the_server_answers() -> None:
    (server,) = pod()["containers"]
    paths = {name: server[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/v2/health/live", "livenessProbe": "/v2/health/live", "readinessProbe": "/v2/health/ready"}


def test_nobody_is_root_or_writes_to_the_image() -> None:
    for image in ("server", "deployer"):
        assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instruction(image, "USER"))
        assert instruction(image, "STOPSIGNAL") == "SIGTERM"
        assert COMPOSE["services"][image]["read_only"] is True
    assert pod()["securityContext"]["runAsNonRoot"] is True
    for container in (*pod()["containers"], *pod()["initContainers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_every_image_has_an_exact_tag() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += [container["image"] for container in (*pod()["containers"], *pod()["initContainers"])]
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?(-|$)|:RELEASE\.\d{4}-", image), image
        if image.startswith("maasflow-"):
            assert image.endswith(f":{VERSION}")
    for file in ("Dockerfile", "pipeline.Dockerfile"):
        assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-", (DEPLOY / file).read_text(), re.MULTILINE)


def test_every_secret_has_its_line_in_the_example() -> None:
    wanted = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    assert wanted == set(re.findall(r"^([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))


def test_nginx_keeps_to_the_servers_limits() -> None:
    settings = Settings()
    (body,) = re.findall(r"client_max_body_size (\d+)m;", NGINX)
    assert int(body) * 2**20 == settings.max_body_bytes
    kept = re.search(r"keepalive 64;.*?keepalive_timeout (\d+)s;", NGINX, re.DOTALL)
    assert kept
    assert int(kept[1]) < settings.keep_alive
    assert all(int(seconds) > settings.deadline for seconds in re.findall(r"proxy_read_timeout (\d+)s;", NGINX))


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models/writer/generate"])
def test_nginx_passes_streams_on_as_they_come(path: str) -> None:
    blocks = re.findall(r"location ~ (\S+) \{(.*?)\}", NGINX, re.DOTALL)
    (found,) = [text for pattern, text in blocks if re.search(pattern, path)]
    assert "proxy_buffering off;" in found
    assert "non_idempotent" not in found


@pytest.mark.parametrize("path", ["/v2/models/x/infer", "/v2/models/x/versions/1/infer", "/v1/models/x/predict"])
def test_nginx_asks_again_what_changes_nothing(path: str) -> None:
    blocks = re.findall(r"location ~ (\S+) \{(.*?)\}", NGINX, re.DOTALL)
    (found,) = [text for pattern, text in blocks if re.search(pattern, path)]
    assert "proxy_next_upstream error non_idempotent;" in found


@pytest.mark.parametrize(("runtime", "pinned"), [("onnxruntime", "onnxruntime=="), ("onnxruntime-gpu", "onnxruntime-gpu[cuda,cudnn]==")])
def test_an_image_has_one_build_of_onnx_runtime(runtime: str, pinned: str) -> None:
    found = [each for each in requirements(REPOSITORY, runtime) if each.startswith("onnxruntime")]
    assert len(found) == 1
    assert found[0].startswith(pinned)


def test_the_server_image_has_all_else_that_the_server_needs_and_nothing_that_trains() -> None:
    names = {re.split(r"[^\w-]", each)[0] for each in requirements(REPOSITORY, "onnxruntime")}
    assert {"numpy", "tokenizers", "pillow", "httptools", "uvloop", "orjson"} <= names
    assert not {"torch", "mlflow", "prefect", "dvc"} & names


def test_an_unknown_runtime_ends_the_build() -> None:
    command = [sys.executable, "deploy/requirements.py", "tensorrt"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "RUNTIME is 'tensorrt', expected one of onnxruntime, onnxruntime-gpu" in done.stderr


def test_the_wheel_can_be_built_from_what_is_sent_to_docker(tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    for pattern in re.findall(r"^!(.+)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE):
        for path in REPOSITORY.glob(pattern):
            target = sent / path.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", ".env", "keys.json"))
            else:
                shutil.copyfile(path, target)
    (built,) = WheelBuilder(str(sent)).build(directory=str(tmp_path / "sent-wheel"), versions=["standard"])
    (whole,) = WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path / "wheel"), versions=["standard"])
    assert sorted(ZipFile(built).namelist()) == sorted(ZipFile(whole).namelist())


@pytest.mark.slow
@pytest.mark.parametrize("file", ["Dockerfile", "pipeline.Dockerfile"])
def test_hadolint_has_nothing_to_say(file: str, tool: Tool) -> None:
    done = tool("hadolint", DEPLOY / file)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_compose_file_is_one(tool: Tool) -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda path: path.stem)
def test_kubernetes_knows_every_field(file: Path, tool: Tool) -> None:
    done = tool("kubernetes-validate", "--strict", "--quiet", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_nginx_knows_every_directive(tool: Tool) -> None:
    found = json.loads(tool("crossplane", "parse", DEPLOY / "nginx.conf").stdout)
    assert found["status"] == "ok", found["errors"]


def test_kustomize_finds_every_manifest() -> None:
    named = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == [path.name for path in MANIFESTS]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kustomize_builds_them() -> None:
    done = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {each["kind"] for each in yaml.safe_load_all(done.stdout)} >= {"ConfigMap", "Deployment", "NetworkPolicy"}
