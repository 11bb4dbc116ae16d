"""Time `sweeper plan teachers` on the paper's spaces, with an empty cache of timings.

python benchmarks/plan.py
"""

import json
import os
import subprocess
import sys
import tempfile
import time

SPACES = {
    "mnist, 64×64": ["--dataset", "mnist", "--set", "image_size=64"],
    "cifar10": ["--dataset", "cifar10"],
    "celeba": ["--dataset", "celeba"],
}


def main() -> None:
    print("| space | seconds | widest d | kinds of trials extrapolated |\n|---|--:|--:|--:|")
    for name, words in SPACES.items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            completed = subprocess.run(
                [sys.executable, "-m", "sweeper", "plan", "teachers", *words, "--json"],
                check=True,
                capture_output=True,
                cwd=folder,
                env={**os.environ, "XDG_CACHE_HOME": folder},
            )
            seconds = time.monotonic() - start
        plan = json.loads(completed.stdout)
        widest = max(row["d"] for row in plan["rows"])
        print(f"| {name} | {seconds:.0f} | {widest} | {plan['extrapolated']} of {len(plan['rows'])} |", flush=True)


if __name__ == "__main__":
    main()
