# The environment is .venv. It is updated when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
READY := .venv/.ready

.PHONY: demo test test-long lint reference bench gpu clean

demo: $(INSTALLED)  ## train teachers and students on 5,000 real digits, and print the table
	$(BIN)/sweeper run teachers --dataset mnist5k
	$(BIN)/sweeper run students --teacher best
	$(BIN)/sweeper table

test: $(READY)  ## the tests of CI
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not long"

test-long: $(READY)  ## all tests, the slow ones included
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

reference: $(READY)  ## regenerate docs/reference.md from the help of the commands
	$(BIN)/python docs/reference.py

bench: $(READY)  ## all measurements of docs/performance.md (hours); make bench ONLY="step driver" runs some
	$(BIN)/python benchmarks/report.py $(ONLY)

gpu: $(READY)  ## the acceptance of a GPU, about ten minutes on it; make gpu ONLY="correctness speed" runs some
	$(BIN)/python benchmarks/gpu.py $(ONLY)

clean:  ## delete the environment and caches, not the stores
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $(INSTALLED)

$(READY): pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(INSTALLED) $(READY)
