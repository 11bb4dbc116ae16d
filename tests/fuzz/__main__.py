"""Run cases of the fuzz: `python -m tests.fuzz` all, or `python -m tests.fuzz FAMILY [SEED]`."""

import sys

import tests.fuzz.families  # noqa: F401 (registers them)
from tests.fuzz.case import FAMILIES, check, import_all

chosen = sys.argv[1:2] or list(FAMILIES)
failing = 0
import_all()
for name in chosen:
    seeds = [int(sys.argv[2])] if sys.argv[2:] else range(FAMILIES[name][1])
    for seed in seeds:
        if broken := check(FAMILIES[name][0], name, seed):
            failing += 1
            print(broken, flush=True)
sys.exit(min(failing, 1))
