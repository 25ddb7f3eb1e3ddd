# Each target sets up all it needs: a virtual environment in .venv, the project in it, the tools. Running it again is quick.
#
#   make demo    a 30 s video from an example image, on this machine's CPU
#   make studio  the page that makes videos, in the browser
#   make test    the whole suite, with its coverage gates
#   make check   ruff, basedpyright, import-linter, and the suite
#   make bench   the benchmarks; each prints a table and writes JSON into out/
#   make gallery the pictures of examples/ and, with chromium, of the studio, into docs/gallery/
#   make docs    the documentation as a site, into site/
#   make format  ruff's fixes and formatting
#   make clean   removes what the other targets made

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo studio test lint check bench gallery docs serve-docs format clean

demo: $(VENV)/user.stamp
	$(BIN)/longtake demo

studio: $(VENV)/user.stamp
	$(BIN)/longtake serve --open

# One thread is quickest for tensors as small as the tests', and gives the same bits on any number of cores; two
# processes share the tests, and each may take 6 GB. Compiled code cannot be type-checked while it is traced: those tests
# run by themselves, without the import hook.
test: export OMP_NUM_THREADS = 1
test: $(VENV)/developer.stamp
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --cov --cov-report=
	JAXTYPING_DISABLE=1 $(BIN)/python -m pytest -m compile tests
	$(BIN)/coverage report --skip-covered --skip-empty --fail-under=85
	$(BIN)/coverage report --include='src/longtake/schedule/*,src/longtake/plan/*' --fail-under=100

lint: $(VENV)/developer.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo

check: lint test

bench: $(VENV)/developer.stamp out/clips/train out/clips/held-out
	$(BIN)/python benchmarks/constant_cost.py
	$(BIN)/python benchmarks/embedded.py --clips out/clips/held-out --train-clips out/clips/train
	$(BIN)/python benchmarks/codebooks.py --clips out/clips/held-out

out/clips/train out/clips/held-out: | $(VENV)/developer.stamp
	$(BIN)/python -m longtake.toybox --output $@ --clips 32 --first-seed $(if $(findstring held,$@),1000000,200000)

gallery: $(VENV)/developer.stamp
	@for example in examples/*.py; do $(BIN)/python $$example || exit 1; done
	cp $(patsubst examples/%.py,out/%.*,$(wildcard examples/*.py)) docs/gallery/
	$(BIN)/python docs/gallery/studio.py

docs: $(VENV)/docs.stamp
	$(BIN)/zensical build --clean

serve-docs: $(VENV)/docs.stamp
	$(BIN)/zensical serve

format: $(VENV)/developer.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) out site .coverage .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# pip comes last into a new environment: when it is there, the environment is whole.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "longtake needs Python 3.11 or newer; name one with PYTHON=, as in: make demo PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/user.stamp: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/developer.stamp: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable '.[toybox,eval,dev]'
	@touch $@ $(VENV)/user.stamp

$(VENV)/docs.stamp: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@ $(VENV)/user.stamp
