"""Accept a GPU: what it reaches, whether training is right on it, and how fast it is. Exit 1 if a check fails.

python benchmarks/gpu.py [--device cpu] [ceilings] [correctness] [speed] [scores] [processes] [out_of_memory] [demo]

With `--device cpu` every part runs in a small form without a GPU: that tests this program, and measures nothing.
On an H100 it takes about ten minutes (docs/gpu.md).
"""

import argparse
import os
import sys
import time
import traceback

PARTS = ("ceilings", "correctness", "speed", "scores", "processes", "out_of_memory", "demo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; a part is one of {', '.join(PARTS)}")
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported, here and in every process

    import gpu_common
    import gpu_machine
    import gpu_sweeps
    import gpu_training

    if options.device == "cuda" and not gpu_common.GPU:
        sys.exit("no GPU is visible; use --device cpu for the form without one")
    where = {"ceilings": gpu_machine, "scores": gpu_machine, "correctness": gpu_training, "speed": gpu_training}
    for part in options.parts or PARTS:
        begun = time.monotonic()
        try:
            getattr(where.get(part, gpu_sweeps), part)()
        except Exception as error:  # the other parts still run
            traceback.print_exc()
            gpu_common.check(False, f"{part}: {type(error).__name__}: {error}")
        print(f"{part}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    for failure in gpu_common.failures:
        print(f"failed: {failure}")
    print("all checks passed" if not gpu_common.failures else f"{len(gpu_common.failures)} checks failed")
    sys.exit(bool(gpu_common.failures))


if __name__ == "__main__":
    main()
