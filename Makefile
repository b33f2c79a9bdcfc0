# Every target works in a fresh clone: the virtual environment is created when a target needs it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# That index has only PyTorch; its dependencies are installed with the project.
FROM_TORCH_INDEX := $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all cluster-test reproduce soak check format gallery docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## create .venv with the tested versions; TORCH_INDEX= is PyTorch's CPU-only index (docs/installation.md)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(FROM_TORCH_INDEX) torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## train the report's CNN on synthetic images (1 to 2 minutes); print the accuracy, a figure and the next command
	$(BIN)/python -m cifar_lab.train data=synthetic data.num_train=4500 data.num_test=1000 epochs=3 name=demo
	@echo "picture        $$(ls -td outputs/demo/*/ | head -1)figures/curves.png"
	@echo "next           source .venv/bin/activate; python -m cifar_lab.train experiment=fast_91   # real CIFAR-10, 92 %"

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
# A hang in native code cannot be interrupted: after two minutes the worker is killed and replaced.
test: $(READY) ## run the default tests (some minutes), with real images if CIFAR_LAB_DATA is set; ONLY= selects a marker
	$(PYTEST) -o faulthandler_timeout=120 \
		-m '$(if $(ONLY),$(ONLY) and )not slow and not gpu and not cluster$(if $(CIFAR_LAB_DATA),, and not data)'

test-all: $(READY) ## run the slow tests too, and the GPU tests if there is a GPU
	$(PYTEST) -m '$(if $(CIFAR_LAB_DATA),not cluster,not data and not cluster)'

DEBIAN_PACKAGES := slurmctld slurmd slurm-client munge
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo -n)
cluster-test: $(READY) ## run the tests on real engines (some minutes); install their extras, and Slurm if apt-get is permitted
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster]'
	-command -v slurmctld munged >/dev/null || DEBIAN_FRONTEND=noninteractive $(AS_ROOT) apt-get install -y -qq --no-install-recommends $(DEBIAN_PACKAGES)
	$(BIN)/python -m pytest -m cluster tests/cluster

SCALE ?= full
reproduce: $(READY) ## reproduce the published report; SCALE=full, quick or smoke; ONLY= a table or an experiment
	$(BIN)/python -m cifar_lab.reproduce --scale $(SCALE) $(if $(ONLY),--only $(ONLY))

KILLS ?= 100
EVERY ?= 1
soak: $(READY) ## kill a sweep at random KILLS=100 times, then kill commands and fill their disk at every (EVERY=1) file change; takes hours
	$(BIN)/python -m tests.soak --kills $(KILLS)
	$(BIN)/python -m tests.chaos --every $(EVERY)

check: $(READY) ## check lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## fix lint and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gallery: $(READY) ## redraw the figures of docs/results, on the page docs/results/figures/README.md
	$(BIN)/python -m cifar_lab.report docs/results --keep
docs: $(READY) ## regenerate docs/configuration.md from conf/
	$(BIN)/python -m cifar_lab.config.reference > docs/configuration.md

clean: ## remove the virtual environment and the tools' caches; keep outputs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
