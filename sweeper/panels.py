"""Help of the command line: commands and options under headings."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

# Typer draws boxes around panels. At 80 columns they leave 30 to the help of an option, so panels are headings here.
# The types of context and formatter are private to Typer: Any.


def _write_panels(command: Any, context: Any, formatter: Any) -> None:
    """Write commands and options under the headings of their panels, in two columns of equal width in every panel."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for below in getattr(command, "commands", {}).values():
        text = below.get_short_help_str(limit=1000)  # the whole first sentence
        panels.setdefault(below.rich_help_panel or "Commands", []).append((below.name, text))
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            name, text = record
            if parameter.param_type_name == "argument":
                name = parameter.metavar or name
            panels.setdefault(parameter.rich_help_panel or "Options", []).append((name, text))
    width = max(len(name) for rows in panels.values() for name, _ in rows)
    for heading, rows in panels.items():
        with formatter.section(heading):
            formatter.write_dl([(name.ljust(width), text) for name, text in rows], col_max=width)


class PanelCommand(TyperCommand):
    """A command whose help is grouped by panel."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_panels(self, ctx, formatter)


class PanelGroup(TyperGroup):
    """A group of commands whose help is grouped by panel."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_panels(self, ctx, formatter)
