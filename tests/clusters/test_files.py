"""The files that start clusters: Ray accepts its own, and all agree with the project. None was run in its cloud."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
import typer
import yaml

from sweeper import __version__
from sweeper.cli import app

ROOT = Path(__file__).parents[2]
RAY_FILES = ["cluster.yaml", "clusters/local.yaml"]
YAML_FILES = [*RAY_FILES, "clusters/kubernetes.yaml", "clusters/skypilot.yaml"]
FILES = [*YAML_FILES, "clusters/slurm.sh", "clusters/Containerfile"]
MOUNT = "/mnt/sweeper"


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((ROOT / name).read_text()))


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_the_version_of_the_project(name: str) -> None:
    named = re.findall(r"sweeper:(\d[\w.]*)|sweeper (\d[\w.]*)\"", (ROOT / name).read_text())
    assert {one or other for one, other in named} <= {__version__}
    assert named or name == "clusters/slurm.sh"  # an environment of the user's


def test_every_file_of_the_folder_is_tested() -> None:
    tested = {Path(name).name for name in FILES if "/" in name} | {"aws-policy.json"}
    assert {path.name for path in (ROOT / "clusters").iterdir()} == tested


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each `sweeper …` that a file runs or suggests."""
    text = re.sub(r"\\\n", " ", text)
    for line in re.findall(r"\bsweeper ((?:run|store|doctor)\b[^'\n|;&]*)", text):
        if "…" not in line:
            yield shlex.split(re.sub(r"\$store|#.*", "", line))


@pytest.mark.parametrize("name", FILES)
def test_commands_are_valid(name: str) -> None:
    for words in commands((ROOT / name).read_text()):
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        if words:
            command.make_context("sweeper", list(words))


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_accepts_the_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(documents(name)[0]))


def test_aws_has_a_head_without_gpu_and_two_sizes_of_spot_workers_from_zero() -> None:
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(documents("cluster.yaml")[0])
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert len(types) == 2
    for worker in types.values():
        assert worker["resources"]["GPU"] == 1
        assert worker["min_workers"] == 0
        assert 0 < worker["max_workers"] <= config["max_workers"]
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]
    for node in (head, *types.values()):
        (disk,) = node["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["DeleteOnTermination"]
        assert node["node_config"]["SecurityGroupIds"]  # else Ray opens port 22 to the world
        assert node["node_config"]["IamInstanceProfile"]  # else Ray makes a role with all rights on EC2 and S3
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("name", RAY_FILES)
def test_the_dashboard_listens_on_loopback_alone(name: str) -> None:
    commands = documents(name)[0]["head_start_ray_commands"]
    assert any("--dashboard-host=127.0.0.1" in command for command in commands)


@pytest.mark.parametrize("name", ["cluster.yaml", "clusters/slurm.sh", "clusters/skypilot.yaml"])
def test_nothing_listens_on_all_addresses(name: str) -> None:
    assert "0.0.0.0" not in (ROOT / name).read_text()


def test_shell_commands_of_ray_files_parse() -> None:
    for name in RAY_FILES:
        config = documents(name)[0]
        for key in (key for key in config if key.endswith("_commands")):
            for command in config[key]:
                subprocess.run(["bash", "-n", "-c", command], check=True)


def test_aws_mounts_the_file_system_before_the_container_starts() -> None:
    config = documents("cluster.yaml")[0]
    words = "\n".join(config["initialization_commands"])
    assert words.index("install -qq -y nfs-common") < words.index("mount -t nfs4")
    assert "lookupcache=positive" in words
    assert f"--volume {MOUNT}:{MOUNT}" in config["docker"]["run_options"]
    assert config["setup_commands"] == []  # nothing is installed when a machine starts


def test_the_policy_of_aws_allows_what_the_head_does_and_nothing_on_all_of_iam_or_s3() -> None:
    statements = json.loads((ROOT / "clusters" / "aws-policy.json").read_text())["Statement"]
    actions = {
        action
        for one in statements
        for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    }
    assert actions >= {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "iam:PassRole", "s3:PutObject"}
    assert actions >= {"ssm:GetParameters", "ecr:BatchGetImage"}
    assert not any("*" in action for action in actions)
    for statement in statements:
        if any(str(statement["Action"]).count(service) for service in ("iam:", "s3:")):
            assert statement["Resource"] != "*"


def test_ray_makes_a_head_and_a_worker_on_a_simulated_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own code for AWS runs against moto, which knows no image by the name of a parameter."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with moto.mock_aws():
        from ray.autoscaler._private.aws.config import bootstrap_aws
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
        from ray.autoscaler._private.util import prepare_config, validate_config

        region = documents("cluster.yaml")[0]["provider"]["region"]
        ec2 = boto3.resource("ec2", region_name=region)
        vpc = next(iter(ec2.vpcs.all()))
        group = ec2.create_security_group(GroupName="sweeper", Description="nodes", VpcId=vpc.id)
        boto3.client("iam").create_instance_profile(InstanceProfileName="sweeper-REPLACE")
        text = (ROOT / "cluster.yaml").read_text().replace("sg-REPLACE", group.id)
        text = re.sub(r"resolve:ssm:\S+", next(iter(ec2.images.all())).id, text)
        config = prepare_config(yaml.safe_load(text))
        validate_config(config)
        config = bootstrap_aws(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for kind in config["available_node_types"]:
            node = config["available_node_types"][kind]["node_config"]
            provider.create_node(node, {"ray-node-type": "worker", "ray-user-node-type": kind}, 1)
        instances = list(ec2.instances.all())
        assert {one.instance_type for one in instances} == {"m7i.xlarge", "g6.2xlarge", "g6e.2xlarge"}
        assert all([one["GroupId"] for one in instance.security_groups] == [group.id] for instance in instances)
        provider.terminate_nodes([one.id for one in instances])
        assert {one.state["Name"] for one in ec2.instances.all()} == {"terminated"}
        assert not list(ec2.volumes.all())
        assert {one.group_name for one in ec2.security_groups.all()} == {"default", "sweeper"}
        assert not boto3.client("iam").list_roles()["Roles"]


def test_kubernetes_has_a_ray_job_with_a_shared_volume() -> None:
    claim, job = documents("clusters/kubernetes.yaml")
    assert (claim["kind"], claim["spec"]["accessModes"]) == ("PersistentVolumeClaim", ["ReadWriteMany"])
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == 0 < workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        volumes = {one["name"]: one for one in pod["volumes"]}
        assert volumes[claim["metadata"]["name"]]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert mounts[MOUNT] == claim["metadata"]["name"]
        assert set(mounts.values()) == set(volumes)
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert f"--store {MOUNT}/" in job["spec"]["entrypoint"]


def test_skypilot_has_the_fields_of_its_schema() -> None:
    (task,) = documents("clusters/skypilot.yaml")
    assert set(task) == {"name", "num_nodes", "resources", "envs", "setup", "run"}
    assert set(task["resources"]) == {"accelerators", "cpus", "disk_size", "use_spot", "autostop"}
    assert task["resources"]["autostop"]["down"]
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n", "-c", task[part]], check=True)
    assert set(re.findall(r"\$([A-Z_]+)", task["setup"] + task["run"])) <= {
        *task["envs"],
        "HOME",
        "SKYPILOT_NODE_IPS",
        "SKYPILOT_NODE_RANK",
    }


def test_the_container_file_installs_the_extras_of_the_project() -> None:
    text = (ROOT / "clusters" / "Containerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (code,) = re.findall(r'python -c "(.+?)"', text.replace("\\\n", ""), re.DOTALL)
    code = code.replace("/tmp/sweeper/pyproject.toml", str(ROOT / "pyproject.toml"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = {line for name, lines in extras.items() if name not in ("all", "dev") for line in lines}
    assert wanted < set(done.stdout.splitlines())
    assert "sweeper" not in done.stdout
    assert (ROOT / ".dockerignore").exists()


SLURM = {
    "SLURM_JOB_NODELIST": "n1,n2",
    "SLURM_JOB_ID": "123456",
    "SLURM_CPUS_PER_TASK": "16",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_ON_NODE": "4",
}


def test_slurm_starts_ray_on_every_node_and_the_command_on_the_first(tmp_path: Path) -> None:
    """Slurm is a stand-in that writes down how it was called."""
    (tmp_path / "bin").mkdir()
    log = tmp_path / "log"
    fakes = {
        "scontrol": "printf 'n1\\nn2\\n'",
        "srun": f'echo "$@" "rank=${{PMI_SIZE-unset}} token=${{#RAY_AUTH_TOKEN}}" > {log}',
        "activate": "",
    }
    for name, body in fakes.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, **SLURM, "PATH": path, "SWEEPER_VENV": str(tmp_path), "PMI_SIZE": "2"}
    command = ["bash", str(ROOT / "clusters" / "slurm.sh"), "sweeper", "run", "teachers", "--dataset", "celeba"]
    subprocess.run(command, env=environment, check=True, timeout=120)
    call = log.read_text()
    assert (
        "ray symmetric-run --address n1:23456 --min-nodes 2 --num-cpus=16 --num-gpus=4 -- sweeper run teachers" in call
    )
    assert call.endswith("--dataset celeba --address n1:23456 rank=unset token=64\n")


def test_this_ray_has_the_command_that_slurm_needs() -> None:
    command = Path(sys.executable).with_name("ray")
    assert subprocess.run([command, "symmetric-run", "--help"], capture_output=True).returncode == 0


def test_shell_files_are_clean() -> None:
    script = str(ROOT / "clusters" / "slurm.sh")
    subprocess.run(["bash", "-n", script], check=True)
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck")
    subprocess.run(["shellcheck", script], check=True)
