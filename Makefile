# make run   makes the virtual environment, installs, and runs the main job
# make test  the same, and runs formatting, lint, types and tests
# make page  brings the third-party scripts of the search page's map and plot; needs npm
#
# PYTHON chooses the interpreter (3.11 or newer), VENV where the environment goes,
# CONFIG and WORKDIR what is run and where its results go, EXTRAS what is installed besides:
# make install EXTRAS=serve,geo

PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/optical_sar.py
WORKDIR ?= runs/optical_sar

BIN := $(VENV)/bin
CONSTRAINTS := $(shell $(PYTHON) -c 'import sys; print("constraints-py311.txt" if sys.version_info < (3, 12) else "constraints.txt")')

VENDOR := xjepa_jax/serve/page/vendor

.PHONY: run test check page install install-dev clean

# The linear encoder first: its table is there within two minutes, and the main job's head is fitted
# in the same way before its first step.
run: install
	$(if $(filter configs/optical_sar.py,$(CONFIG)),$(BIN)/python -m xjepa_jax.main --config=configs/linear.py --workdir=runs/linear)
	$(BIN)/python -m xjepa_jax.main --config=$(CONFIG) --workdir=$(WORKDIR)

# By files, for what the tests of a file share is made once; and in order, for the long ones are
# not at the end.
test: install-dev check
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

page: $(VENDOR)/LICENSES.txt

# No package's own scripts are run.
$(VENDOR)/LICENSES.txt: page/package.json page/package-lock.json page/build.mjs
	npm --prefix page ci --ignore-scripts --no-audit --no-fund --loglevel=error
	node page/build.mjs

install: $(VENV)/.installed
	$(if $(EXTRAS),$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[$(EXTRAS)]')
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "xjepa_jax needs Python 3.11 or newer, found " + sys.version.split()[0] + "; name one with PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .[dev]
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info page/node_modules $(VENDOR)
