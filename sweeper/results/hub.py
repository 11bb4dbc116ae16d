"""Publish an export on Hugging Face."""

import re
from pathlib import Path
from typing import Any

from sweeper.results.export import LISTING
from trainables.errors import EnvironmentUserError, UserError, printable
from trainables.reading import read_record

_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
# Files of an earlier export that the new one does not have. Other files of the repository stay.
_OURS = ["generator*.onnx", "generator.safetensors", "load.py", "samples/*.png"]


def check(repository: str) -> None:
    """Raise UserError unless the name can be a repository's, EnvironmentUserError without a token."""
    from huggingface_hub import get_token

    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"--push-to-hub {repository}: not the name of a repository; try user/name")
    if not get_token():
        raise EnvironmentUserError("Hugging Face needs a token to publish; set HF_TOKEN, or run `hf auth login`")


def push(folder: Path, repository: str) -> str:
    """Upload the files of an export to a model's repository, which is created if needed. Return its address.

    Raises EnvironmentUserError if the server refuses or cannot be reached. The folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # Versions of huggingface_hub have different HTTP clients. The bases are errors of the client.
    errors: Any = (*HfHubHTTPError.__bases__, OSError, ValueError)  # ValueError: the server rejects the card
    names = list(read_record(folder / LISTING, dict[str, str]) or {})
    api = HfApi(library_name="sweeper")
    try:
        address = str(api.create_repo(repository, repo_type="model", exist_ok=True))
        api.upload_folder(
            repo_id=repository,
            repo_type="model",
            folder_path=folder,
            allow_patterns=names,
            delete_patterns=_OURS,
            commit_message="Export by sweeper",
        )
    except errors as error:
        reason = printable(" ".join(str(error).split()) or type(error).__name__)[:300]
        raise EnvironmentUserError(
            f"{repository} was not published ({reason}); {folder} is complete: "
            f"try again, or type `hf upload {repository} {folder}`"
        ) from None
    return address
