"""Files that are written for users: the page, the model card, the script."""

from typing import Any

import jinja2


def fill(name: str, /, html: bool = False, **facts: Any) -> str:
    """A template with its gaps filled; of html what is put in is escaped. A fact that is not there is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeper.results.templates", "."),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name).render(facts)
