"""Several Ray nodes on this machine, in a process of their own: `python -m tests.faults.nodes`, driven by lines.

Their GPUs are logical. Nothing of other Ray sessions is touched: each cluster has its own port and folder.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests import faults

# The tests import sweeper.execution.tune, which sets variables of a local session: a token, and loopback.
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}


def serve() -> None:
    """Start a head without CPUs. Obey lines of stdin: add JSON, kill NUMBER; print a line for each."""
    from ray._common.utils import get_default_ray_temp_dir
    from ray.cluster_utils import Cluster

    os.makedirs(get_default_ray_temp_dir(), exist_ok=True)  # Cluster writes its address there
    head = json.loads(sys.argv[1])
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
    print(cluster.address, flush=True)
    nodes: list[Any] = []
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "add":
            nodes.append(cluster.add_node(**json.loads(rest)))
            print(nodes[-1].node_id, flush=True)
        else:  # everything of the node at once, as when a machine is cut off
            node = nodes[int(rest)]
            raylets = [one.process.pid for one in node.all_processes["raylet"]]
            family = [process for raylet in raylets for process in faults.family(raylet)]
            for process in family:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            print(len(family), flush=True)


class Nodes:
    """A cluster, at `address`. Close it by leaving the block."""

    def __init__(self, environment: Mapping[str, str] = ENVIRONMENT, **head: Any) -> None:
        """environment: variables of its processes. head: arguments of Ray for the head's node."""
        self.environment = {**os.environ, **environment}
        self.folder = tempfile.TemporaryDirectory(prefix="nodes-")
        words = json.dumps({"num_cpus": 0, "temp_dir": self.folder.name, **head})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nodes", words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )
        assert self.process.stdout is not None
        self.ids: list[str] = []
        self.address = next(line.strip() for line in self.process.stdout if line.startswith("1"))

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, kind: object, error: object, trace: TracebackType | None) -> None:
        self.process.communicate(timeout=60)
        self.folder.cleanup()

    def add(self, **node: Any) -> str:
        """Start a node. Return its id."""
        self.ids.append(self._do(f"add {json.dumps(node)}"))
        return self.ids[-1]

    @contextmanager
    def without(self, folder: Path) -> Iterator[None]:
        """Start a node, for the block, on which another, empty folder is in the place of one. Needs root."""
        ray = Path(sys.executable).with_name("ray")
        words = f"mount -t tmpfs none {folder} && exec {ray} start --address {self.address} --block --num-cpus 1"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        node = subprocess.Popen(["unshare", "--mount", "sh", "-c", words], env=self.environment, **quiet)
        try:
            time.sleep(20)  # it has no other sign of life
            yield
        finally:
            for process in faults.family(node.pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            node.wait()

    def kill(self, number: int) -> None:
        """End the processes of a node, the first that was added is 0."""
        self._do(f"kill {number}")

    def _do(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()


HEAD = "f" * 51 + "00000"  # the id that Ray's fake provider gives to the head


@contextmanager
def autoscaling(folder: Path, port: int, workers: int) -> Iterator[str]:
    """Start a head with one CPU whose autoscaler starts up to `workers` nodes, each with a logical GPU.

    Yield its address. Ray's own AutoscalingCluster would stop every Ray of this machine, and its package lacks a file.
    """
    from ray._private.services import node_ip_address_from_perspective

    host = node_ip_address_from_perspective()
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    config = {
        "cluster_name": "fake",
        "max_workers": workers,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",
            "module": provider,
            "use_node_id_as_ip": True,
            "disable_launch_config_check": True,
            "disable_node_updaters": True,
            "launch_multiple": True,
            "head_node_id": HEAD,
            "gcs_address": f"{host}:{port}",
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 80 * 2**20},
                "node_config": {},
                "max_workers": workers,
            },
        },
        "head_node_type": "ray.head.default",
        **{f"{word}setup_commands": list[str]() for word in ("", "head_", "worker_")},
        **{f"{word}_start_ray_commands": list[str]() for word in ("head", "worker")},
        **{"initialization_commands": [], "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": []},
    }
    (folder / "autoscaling.json").write_text(json.dumps(config))
    variables = {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_FAKE_CLUSTER": "1"}
    variables |= {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
    with tempfile.TemporaryDirectory(prefix="nodes-") as temporary:
        words = ["start", "--head", "--block", f"--port={port}", f"--node-ip-address={host}", f"--temp-dir={temporary}"]
        words += ["--num-cpus=1", "--num-gpus=0", f"--autoscaling-config={folder / 'autoscaling.json'}"]
        words += ["--include-dashboard=false", f"--object-store-memory={80 * 2**20}"]
        words += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        head = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), *words],
            env={**os.environ, **ENVIRONMENT, **variables},
            stdout=(folder / "head.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            faults.wait_for_port(host, port)
            yield f"{host}:{port}"
        finally:
            for process in faults.family(head.pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            head.wait()


if __name__ == "__main__":
    serve()
