"""The cluster file against Ray's own schema, and against what the schema does not look at."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parent.parent / "ray_cluster.yaml"
# Keys that Ray's AWS provider and EC2's RunInstances know; the schema lets any through.
PROVIDER_KEYS = {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group"}
NODE_KEYS = {
    *("InstanceType", "ImageId", "BlockDeviceMappings", "IamInstanceProfile", "InstanceMarketOptions"),
    *("KeyName", "SubnetIds", "SecurityGroupIds"),
}


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def test_rays_schema_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(config)))


def test_rays_schema_would_refuse_a_typo(config: dict[str, Any]) -> None:
    config["availabel_node_types"] = config.pop("available_node_types")
    with pytest.raises(Exception, match="availabel_node_types"):
        validate_config(prepare_config(config))


def test_keys_that_the_schema_does_not_check(config: dict[str, Any]) -> None:
    assert config["provider"].keys() <= PROVIDER_KEYS
    for node in config["available_node_types"].values():
        assert node["node_config"].keys() <= NODE_KEYS


def test_a_head_without_gpus_and_spot_workers_with(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]
    assert nodes[config["head_node_type"]]["resources"] == {"CPU": 0}
    worker = nodes["gpu_worker"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert worker["node_config"]["InstanceType"].startswith(("g", "p"))
    assert worker["max_workers"] <= config["max_workers"]


def test_jobs_need_a_token_and_the_dashboard_is_on_loopback(config: dict[str, Any]) -> None:
    starts = [line for key in ("head_start_ray_commands", "worker_start_ray_commands") for line in config[key]]
    for line in (line for line in starts if "ray start" in line):
        assert "RAY_AUTH_MODE=token" in line
    head = next(line for line in config["head_start_ray_commands"] if "--head" in line)
    assert "--dashboard-host=127.0.0.1" in head
    assert any(target.endswith(".ray/auth_token") for target in config["file_mounts"])


def test_the_options_exist_in_this_ray(config: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for line in config[key]:
            used = {word.split("=")[0] for word in line.split() if word.startswith("--")}
            assert used <= known, inspect.cleandoc(line)
