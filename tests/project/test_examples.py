"""Examples of deployment: valid, consistent with each other and with the server."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from embedpack.cli.parser import Parser
from embedpack.cli.serve import _settings, add_arguments
from embedpack.cli.serve_options import OPTIONS, PREFIX, option_values
from embedpack.server.middleware import OPEN_PATHS
from embedpack.server.settings import ServeSettings

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CONTAINERFILE = (EXAMPLES / "Containerfile").read_text("utf-8")
UNIT = (EXAMPLES / "embedpack.service").read_text("utf-8")
# Uncompressed size of python:3.13-slim, and the most of an image.
BASE_BYTES, IMAGE_BYTES = 125_000_000, 300_000_000


def settings_of(path: Path) -> ServeSettings:
    parser = Parser()
    add_arguments(parser)
    return _settings(option_values(parser.parse(["--config", str(path)]), {}))


def longest_request(settings: ServeSettings) -> float:
    return settings.deadline + 2 * settings.limits.receive_seconds


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """Objects of kubernetes.yaml by kind."""
    yaml: Any = pytest.importorskip("yaml")
    return {each["kind"]: each for each in yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text("utf-8"))}


def test_the_options_are_those_of_the_server() -> None:
    settings = settings_of(EXAMPLES / "server.toml")
    assert settings.api_keys is not None


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not here")
    unit = tmp_path / "embedpack.service"
    unit.write_text(UNIT.replace("/opt/embedpack/bin/embedpack", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_waits_for_the_longest_request() -> None:
    fields = dict(line.split("=", 1) for line in UNIT.splitlines() if re.match(r"\w+=", line))
    assert int(fields["TimeoutStopSec"]) > longest_request(settings_of(EXAMPLES / "server.toml"))
    assert fields["Restart"] == "on-failure"
    assert fields["NoNewPrivileges"] == "yes"


def test_the_image_runs_without_rights_and_from_files_that_exist() -> None:
    stages = re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE)
    assert all(re.search(r":[\w.-]*\d", image) for image in stages)
    last = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    for names in re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE):
        assert [name for name in names.split() if not (ROOT / name).exists()] == []
    known = {option.variable for option in OPTIONS.values()}
    assert set(re.findall(rf"{PREFIX}\w+", CONTAINERFILE)) <= known
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(re.findall(r"'\.\[(\w+)\]'", CONTAINERFILE)) <= project["optional-dependencies"].keys()
    assert 'ENTRYPOINT ["/opt/embedpack/bin/embedpack", "serve"]' in last
    assert "embedpack" in project["scripts"]


def test_the_packages_of_the_image_are_small() -> None:
    names = [*_requirements("embedpack", "server")]
    sizes: dict[str, int] = {}
    while names:
        name = names.pop()
        if name in sizes:
            continue
        files = importlib.metadata.files(name) or []
        paths = [Path(str(file.locate())) for file in files if file.suffix != ".pyc"]
        sizes[name] = sum(path.stat().st_size for path in paths if path.exists())
        names += _requirements(name, None)
    assert sizes["onnxruntime"] > 10_000_000
    own = sum(path.stat().st_size for folder in ("runtime", "export") for path in (ROOT / folder).rglob("*.*"))
    assert BASE_BYTES + own + sum(sizes.values()) < IMAGE_BYTES


def _requirements(name: str, extra: str | None) -> list[str]:
    """Packages that are installed and needed by one of them, without extras, or with one."""
    if name == "embedpack":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        lines = [*project["dependencies"], *project["optional-dependencies"][extra]]
    else:
        lines = [line for line in importlib.metadata.requires(name) or [] if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line)[0].lower() for line in lines]
    return [name for name in names if any(importlib.metadata.Distribution.discover(name=name))]


def test_probes_and_ports_are_those_of_the_server(manifest: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(manifest["ConfigMap"]["data"]["server.toml"])
    settings = settings_of(tmp_path / "server.toml")
    pod = manifest["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == settings.port
    assert settings.host == "0.0.0.0"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
        assert container[probe]["httpGet"]["path"] in OPEN_PATHS
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > longest_request(settings) + pause
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert settings.api_keys is not None
    assert settings.api_keys.is_relative_to(mounts["keys"])
    assert all(pack.folder.is_relative_to(mounts["packs"]) for pack in settings.packs)


def test_the_pod_has_no_rights(manifest: dict[str, Any]) -> None:
    pod = manifest["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    security = pod["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    labels = manifest["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifest["Service"]["spec"]["selector"] == labels
