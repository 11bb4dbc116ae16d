"""Clusters: Ray accepts cluster.yaml, and a sweep runs on an existing cluster."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.conftest import TINY, Done

ROOT = Path(__file__).parents[2]


def test_ray_accepts_cluster_yaml() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    head, worker = (config["available_node_types"][name] for name in ("head", "gpu_worker"))
    assert config["head_node_type"] == "head"
    assert "GPU" not in head["resources"]
    assert worker["resources"]["GPU"] == 1
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert worker["max_workers"] > worker["min_workers"]


def test_a_sweep_runs_on_logical_gpus_of_an_existing_cluster(sweeper: Callable[..., Done], fresh: Path) -> None:
    """Ray has two logical GPUs. The trials find no real ones, and train on the CPU. Starts a Ray cluster."""
    code = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
    host = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    try:
        assert host.stdout is not None
        address = next(line.strip() for line in host.stdout if line.startswith(("1", "loc")))
        space = ["--set", "d=1,2", "--set", "lr=0.004", "--set", "lr_discriminator=0.001", "--wandb", "disabled"]
        done = sweeper("run", "teachers", "--dataset", "mnist5k", *TINY, *space, "--address", address, cwd=fresh)
        assert done.code == 0, done.err
        assert len(list(fresh.glob("runs/trials/*/generator-24.safetensors"))) == 2
    finally:
        host.communicate(timeout=60)


def test_a_missing_cluster_is_an_error_of_one_line(sweeper: Callable[..., Done], fresh: Path) -> None:
    command = ["run", "teachers", "--dataset", "mnist5k", *TINY, "--set", "d=1", "--address", "127.0.0.1:1"]
    done = sweeper(*command, cwd=fresh)
    assert done.code == 5
    assert "no Ray cluster at 127.0.0.1:1" in done.err.splitlines()[-1]
