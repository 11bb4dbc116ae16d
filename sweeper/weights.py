"""The weights of finished trials, checked against the hashes in their records. Needs no torch."""

from sweeper.records import FinalRecord
from sweeper.store import Store
from trainables.errors import SpoiledError, UserError
from trainables.tensors import read_file


def check(store: Store, signature: str, final: FinalRecord) -> None:
    """Raise SpoiledError if a weights file of a finished trial is missing, or is not the recorded one."""
    hashes = {"generator": final.weights, "discriminator": final.discriminator}
    for network, recorded in hashes.items():
        if recorded is not None:
            read_file(store.weights(signature, network, final.updates), recorded)


def with_advice(store: Store, signature: str, error: SpoiledError) -> UserError:
    """Return the error of a weights file with the command that trains its trial again."""
    commands = [manifest.command for manifest in store.sweeps() if signature in manifest.members]
    command = f", or train the trial again with `{commands[0]}`" if commands else ""
    return UserError(f"{error}; restore it from a backup{command}")
