"""Time commands that train nothing, as a user types them: --help, and commands on finished sweeps.

python benchmarks/commands.py
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
SHORT = ["--set", "updates=20", "--set", "n_selection=200", "--set", "n_report=200", "--set", "n_rung=200"]
SHORT += ["--no-pruning", "--wandb", "disabled", "--set", "first_rung=10"]
TEACHERS = ["run", "teachers", "--dataset", "mnist5k", "--set", "d=2,4", *SHORT]
STUDENTS = ["run", "students", "--set", "d=2,4", "--set", "warmup=5", *SHORT]


def main() -> None:
    sweeper = str(Path(sys.executable).with_name("sweeper"))
    with tempfile.TemporaryDirectory() as folder:
        for words in (TEACHERS, STUDENTS):
            subprocess.run([sweeper, *words], check=True, capture_output=True, cwd=folder)
        print("| command | seconds |\n|---|--:|")
        for name, words in (
            ("sweeper --help", ["--help"]),
            ("sweeper status", ["status"]),
            ("sweeper table", ["table"]),
            ("sweeper run teachers, finished", TEACHERS),
            ("sweeper run students, finished", STUDENTS),
        ):
            seconds = []
            for _ in range(REPEATS):
                begun = time.monotonic()
                subprocess.run([sweeper, *words], check=True, capture_output=True, cwd=folder)
                seconds.append(time.monotonic() - begun)
            print(f"| {name} | {statistics.median(seconds):.2f} |", flush=True)


if __name__ == "__main__":
    main()
