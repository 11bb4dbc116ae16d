"""What Ray reads from the environment when it is imported. Imported before Ray, by sweeper.execution.tune."""

import os
import secrets
import sys

# No output, no usage reports, no snapshots, and under `uv run` no copy of the working directory to the workers, which
# have the environment of the command.
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_GLOBAL_CHECKPOINT_S="3600",
    TUNE_MAX_PENDING_TRIALS_PG="10000",  # the searcher suggests what fits, and Tune starts it at once
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    PYTHONWARNINGS="ignore",
)
# A local session accepts processes with this token alone, and listens on loopback. A cluster has its own settings, and
# a worker, where Ray comes first, inherits them.
IS_CLOSED = not os.environ.get("RAY_ADDRESS") and "ray" not in sys.modules
if IS_CLOSED:
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux, too, this makes every socket a loopback one
