"""Typer commands of `sweeper store`."""

from pathlib import Path
from typing import Annotated

import typer

from sweeper import options
from sweeper.panels import PanelCommand, PanelGroup

store_app = typer.Typer(
    cls=PanelGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Copy a store to an object store or another folder, and back.",
)
UrlArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="s3://BUCKET/PATH, gs://BUCKET/PATH, file:///PATH or a folder.", rich_help_panel="Where"
    ),
]


@store_app.command("push", cls=PanelCommand)
def push_command(
    url: UrlArgument,
    store: options.OfStoreOption = Path("runs"),
    as_json: options.JsonOption = False,
) -> None:
    """Copy what is new in a store to a URL. A sweep may be running."""
    from sweeper.transfer.moving import push

    push(store, url, as_json)


@store_app.command("pull", cls=PanelCommand)
def pull_command(
    url: UrlArgument,
    store: options.StoreOption = Path("runs"),
    as_json: options.JsonOption = False,
) -> None:
    """Copy what is new at a URL into a store."""
    from sweeper.transfer.moving import pull

    pull(store, url, as_json)
