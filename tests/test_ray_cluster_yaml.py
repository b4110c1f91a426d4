"""Tests of `ray_cluster.yaml`, against Ray's schema, EC2's request model, and rules of network access."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parent.parent
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


def test_nodes_run_the_pinned_ray(config: dict[str, Any]) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    images = [config["docker"]["head_image"], config["docker"]["worker_image"]]
    assert all(image.split(":")[1].startswith(f"{pinned['ray']}-") for image in images)
    assert any("constraints.txt" in command for command in config["setup_commands"])
