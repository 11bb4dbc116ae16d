"""Templates of the files that users get: the page, the model card, the script that loads an ONNX file."""

from typing import Any

import jinja2


def fill(name: str, /, html: bool = False, **values: Any) -> str:
    """Render a template. html: escape the values. Raises jinja2.UndefinedError for a missing value."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeper.results.templates", "."),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name).render(values)
