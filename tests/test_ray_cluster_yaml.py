"""Tests of `ray_cluster.yaml` and `deploy/aws`: Ray's schema, EC2's request model, network access, IAM and pins."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy/aws"
VALUES = {
    "ACCOUNT": "123456789012",
    "AMI": "ami-0123456789abcdef0",
    "INPUT": "photos/2026/in",
    "OUTPUT": "results/out",
}
# Ray's schema accepts any key below `provider`; these are the ones that its AWS provider documents.
PROVIDER_KEYS = {
    *("type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group"),
    "use_internal_ips_for_head",
}


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return loaded


def problems(config: dict[str, Any]) -> list[str]:
    """Return the errors that EC2 would report, and provider keys that Ray ignores."""
    found = [f"provider: {key}" for key in config["provider"].keys() - PROVIDER_KEYS]
    service = botocore.session.get_session().get_service_model("ec2")
    shape = service.operation_model("RunInstances").input_shape
    for name, node in config["available_node_types"].items():
        # botocore checks types but accepts some unknown names; walking the model finds those.
        request = {"MinCount": 1, "MaxCount": 1, **node["node_config"]}
        report = botocore.validate.ParamValidator().validate(request, shape)
        found += [f"{name}: {report.generate_report()}"] if report.has_errors() else []
        found += [f"{name}: {path}" for path in unknown_names(request, shape)]
    return found


def unknown_names(value: Any, shape: Any, path: str = "") -> list[str]:
    if shape.type_name == "list":
        return [name for item in value for name in unknown_names(item, shape.member, path)]
    if shape.type_name != "structure":
        return []
    unknown = [f"{path}.{key}" for key in value.keys() - shape.members.keys()]
    known = [(key, value[key]) for key in value.keys() & shape.members.keys()]
    return unknown + [name for key, item in known for name in unknown_names(item, shape.members[key], f"{path}.{key}")]


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]
    assert prepared["available_node_types"]["gpu_worker"]["max_workers"] <= prepared["max_workers"]


def test_ray_refuses_an_unknown_key(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config({**config, "max_worker": 3}))


def test_the_cloud_accepts_it(config: dict[str, Any]) -> None:
    assert problems(config) == []


@pytest.mark.parametrize(
    ("path", "typo"),
    [
        (("provider",), "availability_zones"),
        (("available_node_types", "gpu_worker", "node_config"), "InstanceTypo"),
        (("available_node_types", "gpu_worker", "node_config", "InstanceMarketOptions"), "MarketTyp"),
    ],
)
def test_typos_that_ray_lets_through_are_found(config: dict[str, Any], path: tuple[str, ...], typo: str) -> None:
    place = config
    for key in path:
        place = place[key]
    place[typo] = "x"
    validate_config(prepare_config(copy.deepcopy(config)))
    assert any(typo in problem for problem in problems(config))


def test_workers_are_spot_gpus_and_the_head_works_for_nobody(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu_worker"]["resources"]["GPU"] >= 1
    assert types["gpu_worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert 1 <= types["gpu_worker"]["min_workers"] <= types["gpu_worker"]["max_workers"]


def test_nobody_from_outside_can_run_code(config: dict[str, Any]) -> None:
    for role in ("head", "worker"):
        starts = [line for line in config[f"{role}_start_ray_commands"] if "ray start" in line]
        assert len(starts) == 1 and starts[0].startswith("export RAY_AUTH_MODE=token;")
    head = next(line for line in config["head_start_ray_commands"] if "--head" in line)
    assert "--dashboard-host=127.0.0.1" in head
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]


def test_nodes_run_the_pinned_dependencies(config: dict[str, Any]) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (ray,) = (need for need in map(Requirement, project["dependencies"]) if need.name == "ray")
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    (base,) = re.findall(r"^FROM rayproject/ray:(\S+)$", dockerfile, re.MULTILINE)
    version, python, _ = base.split("-")
    assert version == pinned["ray"]
    assert version in ray.specifier
    assert f">=3.{python.removeprefix('py3')}" == project["requires-python"]
    assert "--constraint /home/ray/pinned/constraints.txt" in dockerfile
    tag = f"dilated-context:ray-{version}"
    assert [config["docker"]["head_image"], config["docker"]["worker_image"]] == [tag, tag]
    assert f"--tag {tag} " in dockerfile
    assert f"--tag {tag} " in (ROOT / "docs/aws.md").read_text()


def test_a_spot_start_downloads_no_packages(config: dict[str, Any]) -> None:
    assert config["docker"]["pull_before_run"] is False
    compare, install = config["setup_commands"]
    assert compare.startswith("cmp ~/pinned/constraints.txt ~/dilated-context/constraints.txt || ")
    assert "exit 1" in compare
    assert {"--no-deps", "--no-build-isolation"} <= set(install.split())


def test_every_node_type_has_a_profile_and_an_image_of_ours(config: dict[str, Any]) -> None:
    nodes = {name: node["node_config"] for name, node in config["available_node_types"].items()}
    profiles = [node["IamInstanceProfile"]["Name"] for node in nodes.values()]
    assert len(set(profiles)) == len(profiles)
    # Ray's default profile has no right to pass a role.
    assert not any(profile.startswith("ray-autoscaler") for profile in profiles)
    # Ray replaces a missing ImageId by an image of Ubuntu 18.04. No id of an account belongs into the repository.
    assert {node.get("ImageId") for node in nodes.values()} == {"REPLACE-AMI"}


def statements(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / name).read_text())["Statement"]
    return found


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def grants(name: str) -> set[tuple[str, str]]:
    """Return each action that a policy allows, with each resource that it allows it on."""
    assert all(statement["Effect"] == "Allow" for statement in statements(name))
    return {
        (action, resource)
        for statement in statements(name)
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    }


@pytest.mark.parametrize("name", ["head-policy.json", "storage-policy.json"])
def test_policies_have_no_bare_wildcards(name: str) -> None:
    for action, resource in grants(name):
        assert "*" not in action
        # AWS knows no resource for these calls.
        assert resource.startswith("arn:aws:") != action.startswith("ec2:Describe"), (action, resource)


def test_nodes_read_the_input_and_write_the_output_only() -> None:
    bucket = {kind: f"arn:aws:s3:::REPLACE-{kind}-BUCKET" for kind in ("INPUT", "OUTPUT")}
    objects = {kind: f"{bucket[kind]}/REPLACE-{kind}-PREFIX/*" for kind in bucket}
    assert grants("storage-policy.json") == {
        ("s3:ListBucket", bucket["INPUT"]),
        ("s3:GetObject", objects["INPUT"]),
        ("s3:ListBucket", bucket["OUTPUT"]),
        *((f"s3:{verb}Object", objects["OUTPUT"]) for verb in ("Get", "Put", "Delete")),
    }
    for statement in statements("storage-policy.json"):
        if statement["Action"] == "s3:ListBucket":
            prefix = f"REPLACE-{'INPUT' if 'INPUT' in statement['Resource'] else 'OUTPUT'}-PREFIX"
            assert statement["Condition"] == {"StringLikeIfExists": {"s3:prefix": [prefix, f"{prefix}/*"]}}


def test_the_head_manages_its_cluster_and_passes_the_worker_role_only(config: dict[str, Any]) -> None:
    allowed = grants("head-policy.json")
    assert {action for action, _ in allowed} == {
        *(f"ec2:Describe{what}" for what in ("Instances", "InstanceTypes", "SecurityGroups", "Subnets")),
        *("ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances", "iam:PassRole"),
    }
    worker = config["available_node_types"]["gpu_worker"]["node_config"]["IamInstanceProfile"]["Name"]
    passed = {resource for action, resource in allowed if action == "iam:PassRole"}
    assert passed == {f"arn:aws:iam::REPLACE-ACCOUNT:role/{worker}"}
    regions = {resource.split(":")[3] for action, resource in allowed if action == "ec2:RunInstances"}
    assert regions == {config["provider"]["region"]}
    assert ("ec2:RunInstances", "arn:aws:ec2:us-west-2::image/REPLACE-AMI") in allowed


def test_the_head_touches_no_instance_of_another_cluster(config: dict[str, Any]) -> None:
    tag = TAG_RAY_CLUSTER_NAME
    accepted = [
        {"StringEquals": {f"aws:RequestTag/{tag}": config["cluster_name"]}},
        {"StringEquals": {f"aws:ResourceTag/{tag}": config["cluster_name"]}},
        {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
    ]
    changing = [item for item in statements("head-policy.json") if str(item["Resource"]).endswith(":instance/*")]
    assert [accepted.index(item["Condition"]) for item in changing] == [0, 2, 1]


def test_only_machines_can_take_the_roles() -> None:
    (statement,) = statements("trust-policy.json")
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert statement["Action"] == "sts:AssumeRole"


def test_the_page_creates_both_roles(config: dict[str, Any]) -> None:
    page = (ROOT / "docs/aws.md").read_text()
    profiles = [node["node_config"]["IamInstanceProfile"]["Name"] for node in config["available_node_types"].values()]
    assert f"for role in {' '.join(profiles)}; do" in page
    assert all(path.name in page for path in DEPLOY.glob("*.json"))


def fill(folder: Path, **values: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "TARGET": str(folder), **VALUES, **values}
    return subprocess.run(["sh", DEPLOY / "fill.sh"], env=environment, capture_output=True, text=True, check=False)


def test_filling_leaves_no_placeholder(tmp_path: Path) -> None:
    assert fill(tmp_path).returncode == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(written) == {"ray_cluster.yaml", *(path.name for path in DEPLOY.glob("*.json"))}
    assert not [name for name, text in written.items() if "REPLACE" in text]
    config = yaml.safe_load(written["ray_cluster.yaml"])
    validate_config(prepare_config(copy.deepcopy(config)))
    images = {node["node_config"]["ImageId"] for node in config["available_node_types"].values()}
    assert images == {VALUES["AMI"]}
    assert '"arn:aws:s3:::photos/2026/in/*"' in written["storage-policy.json"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("AMI", "REPLACE-AMI"), ("AMI", ""), ("ACCOUNT", "12"), ("INPUT", "photos"), ("OUTPUT", "s3://results/out")],
)
def test_filling_refuses_other_values(tmp_path: Path, name: str, value: str) -> None:
    refused = fill(tmp_path, **{name: value})
    assert refused.returncode == 2
    assert name in refused.stderr
    assert list(tmp_path.iterdir()) == []
