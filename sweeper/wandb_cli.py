"""Typer commands of `sweeper wandb`."""

from pathlib import Path

import typer

from sweeper import options
from sweeper.panels import PanelCommand, PanelGroup
from sweeper.typed_command import command

wandb_app = typer.Typer(
    cls=PanelGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Upload runs to Weights & Biases, and create reports there.",
)


@wandb_app.command("sync", cls=PanelCommand)
def wandb_sync_command(
    store: options.OfStoreOption = Path("runs"),
    name: options.OnlySweepOption = None,
    plugin: options.PluginOption = None,
) -> None:
    """Upload runs that are missing on W&B, and verify them."""
    from sweeper.store import Store
    from sweeper.tracking.watcher import sync

    sync(Store(store), name, command())


@wandb_app.command("report", cls=PanelCommand)
def wandb_report_command(
    dataset: options.OfDatasetOption = None,
    name: options.OfSweepOption = None,
    store: options.OfStoreOption = Path("runs"),
    plugin: options.PluginOption = None,
) -> None:
    """Create or update the report of a sweep on W&B."""
    from sweeper.tracking.report import run

    print(run(store, dataset, name))
