"""`sweeper doctor`."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from sweeper.doctor.findings import Level, Node, of_cluster, of_machine
from sweeper.doctor.machine import examine
from sweeper.request import choose_cluster
from sweeper.store import dump
from trainables.errors import EnvironmentUserError


def doctor(store: Path, data_root: Path, address: str | None, as_json: bool) -> int:
    """Print what is here and, with an address, what is wrong on the nodes of a cluster. Return the exit code.

    Raises EnvironmentUserError if there is no cluster at the address.
    """
    store, data_root = store.resolve(), data_root.resolve()
    nodes: list[Node] = []
    if address is None:
        facts = examine(store, data_root)
        findings = of_machine(facts)
    else:
        with _connected(address):
            from sweeper.doctor.nodes import examine_nodes

            facts, nodes = examine_nodes(store, data_root)
        findings = [*of_machine(facts), *of_cluster(facts, nodes)]
    code = EnvironmentUserError.exit_code if any(one.level is Level.STOP for one in findings) else 0
    if as_json:
        machines = {"machine": asdict(facts)} | ({"nodes": [asdict(node) for node in nodes]} if nodes else {})
        print(dump({"schema": 1, "ok": code == 0, "findings": [asdict(one) for one in findings], **machines}))
    else:
        print(*findings, sep="\n")
    return code


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a Ray cluster. Raises EnvironmentUserError if there is none."""
    choose_cluster(address)
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # as in sweeper.execution.tune
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray would try for minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EnvironmentUserError(
            f"no Ray cluster at {address}: {reason}; start one, or set RAY_AUTH_TOKEN if it has a token"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
