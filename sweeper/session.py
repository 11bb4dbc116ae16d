"""The connection of `sweeper run` to Ray, and what is prepared through it before the first trial."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, cast

from rich.progress import Progress as Bar

from sweeper.request import Request, ResolvedRequest, choose_cluster, console, say
from sweeper.store import Store
from trainables import plugins
from trainables.images import prepare
from trainables.scores.loading import known_name

if TYPE_CHECKING:
    from sweeper.execution.cluster import RayCluster
    from sweeper.execution.nodes import Cluster

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(dataset: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback that shows a bar on a terminal, else prints a line every ten seconds.

    It takes what is done (decoded, or scored), the number of images that are, and of all.
    """
    if console.is_terminal:
        with Bar(transient=True, console=console) as bar:
            task = bar.add_task("", visible=False)
            yield lambda what, done, total: bar.update(
                task, description=f"{dataset}: images {what}", completed=done, total=total, visible=True
            )
        return
    printed = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed > SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            say(f"{dataset}: {done:,} of {total:,} images are {what}")

    yield report


class Session:
    """The connection to Ray. It begins when it is needed: a finished sweep needs none."""

    def __init__(self, request: Request, store: Store, stack: ExitStack) -> None:
        """stack: ends the connection to a cluster. A local session ends with the training."""
        self.request, self.store, self.stack = request, store, stack
        choose_cluster(request.address)
        self.is_shared = bool(os.environ.get("RAY_ADDRESS"))
        self._joined: RayCluster | None = None

    def join(self) -> "RayCluster":
        """Join the cluster, examine its nodes, and return it. Raises EnvironmentUserError that names a bad node."""
        if self._joined is None:
            from sweeper.doctor.nodes import NodeCheck

            cluster = self._open(self.stack)
            check = self.stack.enter_context(closing(NodeCheck(self.store.root, self.request.data_root)))
            check.check_all()
            cluster.examine = check
            cluster.look()
            self._joined = cast("RayCluster", cluster)
        return self._joined

    @contextmanager
    def nodes(self) -> Iterator["Cluster"]:
        """Yield the nodes of the cluster, or a local one for the block."""
        with ExitStack() as stack:
            yield self.join() if self.is_shared else self._open(stack)

    def _open(self, stack: ExitStack) -> Any:
        from sweeper.execution import tune  # isort: split
        from sweeper.execution import mps
        from sweeper.forecast.cards import with_throughput

        if not self.is_shared:
            stack.enter_context(mps.shared_gpus())
        return stack.enter_context(tune.session(self.request.slots, with_throughput))


def is_prepared(resolved: ResolvedRequest) -> bool:
    """Return whether the store has the data set and statistics of its images, so that no worker has to make them."""
    folder, size = resolved.store.datasets, resolved.image_size
    if not (folder / f"{resolved.dataset}-{size}.json").exists():
        return False
    images = prepare(resolved.dataset, size, folder)
    name = known_name(resolved.features(images.features), images, resolved.store.scores)
    return any(resolved.store.scores.glob(f"real-{images.hash}-{name or '*'}.safetensors"))


def prepare_on_worker(resolved: ResolvedRequest, session: Session, tell: Callable[[str, int, int], None]) -> None:
    """Have a worker decode the data set, train its classifier and compute the statistics of its images."""
    cluster = session.join()
    from sweeper.execution import preparation

    store, request = resolved.store, resolved.request
    task = preparation.Task(
        dataset=resolved.dataset,
        size=resolved.image_size,
        features=resolved.features(""),
        store=store.root,
        folder=resolved.folder.absolute() if resolved.folder else None,
        data_root=request.data_root.absolute(),
        download=request.download,
        plugins=[(store.save_plugin(plugin), plugin.id) for plugin in plugins.LOADED.values()],
    )
    preparation.prepare_on_worker(cluster, task, tell, say)
