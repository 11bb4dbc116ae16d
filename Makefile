# The environment is made once, in .venv, and made again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-long lint reference bench clean

demo: $(READY)  ## teachers, then students, on 5,000 real digits; prints the table
	$(BIN)/sweeper run teachers --dataset mnist5k
	$(BIN)/sweeper run students --teacher best
	$(BIN)/sweeper table

test: $(READY)  ## what CI runs
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not long"

test-long: $(READY)  ## all of it
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

reference: $(READY)  ## docs/reference.md, from the commands
	$(BIN)/python docs/reference.py

bench: $(READY)  ## everything that docs/performance.md quotes; hours. make bench ONLY="step driver" does a part
	$(BIN)/python benchmarks/report.py $(ONLY)

clean:  ## the environment and caches; stores stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(READY)
