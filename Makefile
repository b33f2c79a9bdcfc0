# Everything here works from a fresh clone: the virtual environment is made and filled when something needs it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# That index holds PyTorch alone, and what PyTorch needs comes with the project.
FROM_TORCH_INDEX := $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all cluster-test reproduce soak check format gallery docs clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv with the tested versions; TORCH_INDEX= names PyTorch's CPU-only index (docs/installation.md)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(FROM_TORCH_INDEX) torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## train the report's CNN on synthetic images, a minute or two; ends with accuracy, a picture and the next command
	$(BIN)/python -m cifar_lab.train data=synthetic data.num_train=4500 data.num_test=1000 epochs=3 name=demo
	@echo "picture        $$(ls -td outputs/demo/*/ | head -1)figures/curves.png"
	@echo "next           source .venv/bin/activate; python -m cifar_lab.train experiment=fast_91   # real CIFAR-10, 92 %"

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
# A hang in native code cannot be interrupted: after two minutes it ends the worker, which is replaced.
test: $(READY) ## the default tests, some minutes; real images too where CIFAR_LAB_DATA is set; ONLY= a marker
	$(PYTEST) -o faulthandler_timeout=120 \
		-m '$(if $(ONLY),$(ONLY) and )not slow and not gpu and not cluster$(if $(CIFAR_LAB_DATA),, and not data)'

test-all: $(READY) ## the slow tests too, and those of a GPU where there is one
	$(PYTEST) -m '$(if $(CIFAR_LAB_DATA),not cluster,not data and not cluster)'

DEBIAN_PACKAGES := slurmctld slurmd slurm-client munge
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo -n)
cluster-test: $(READY) ## the tests on real engines; installs their extras, and Slurm where apt-get may; some minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster]'
	-command -v slurmctld munged >/dev/null || DEBIAN_FRONTEND=noninteractive $(AS_ROOT) apt-get install -y -qq --no-install-recommends $(DEBIAN_PACKAGES)
	$(BIN)/python -m pytest -m cluster tests/cluster

SCALE ?= full
reproduce: $(READY) ## run the published report; SCALE=full, quick or smoke, ONLY= a table or an experiment
	$(BIN)/python -m cifar_lab.reproduce --scale $(SCALE) $(if $(ONLY),--only $(ONLY))

KILLS ?= 100
EVERY ?= 1
soak: $(READY) ## kill a sweep KILLS=100 times at random; then kill commands and fill their disk at every (EVERY=1) change of a file; hours
	$(BIN)/python -m tests.soak --kills $(KILLS)
	$(BIN)/python -m tests.chaos --every $(EVERY)

check: $(READY) ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gallery: $(READY) ## draw the figures of docs/results again, on one page, docs/results/figures/README.md
	$(BIN)/python -m cifar_lab.report docs/results --keep
docs: $(READY) ## write docs/configuration.md again, from conf/
	$(BIN)/python -m cifar_lab.config.reference > docs/configuration.md

clean: ## remove the virtual environment and the tools' caches; outputs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
