# zeroskip: `make help` lists what there is to do.
CONFIG ?= default
NET    ?= hed
IMAGE  ?=
SIZE   ?=

VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
# Two workers, one thread each.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q

# One thing at a time: the parts use the cores themselves.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup sim sim-photos test test-all test-digits lint registers verilog resources coverage clean

help:  ## This list
	@echo "zeroskip: generator of a CNN accelerator that does no work for zeros"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables of sim:  NET=hed|digits  CONFIG=tiny|small|default|nullhop"
	@echo "                     IMAGE=photo.jpg or astronaut, chelsea, coffee ...  SIZE=96 or 320x240 (width x height)"

setup: $(READY)  ## Virtual environment, packages, trained networks (the other targets call it)
	@echo "$(VENV) is ready"

$(READY): requirements.txt requirements-lock.txt requirements-photos.txt requirements-networks.txt boards/sim/setup.sh
	@boards/sim/setup.sh
	@touch $@

sim: $(READY)  ## Run a trained network in the RTL and compare with golden: NET= CONFIG= IMAGE= SIZE=
	@$(PY) -m boards.sim.main --net $(NET) --config $(CONFIG) \
		$(if $(IMAGE),--image "$(IMAGE)") $(if $(SIZE),--size $(SIZE))

sim-photos: $(READY)  ## `make sim` on five photographs of 64x64 to 320x240 with CONFIG=
	@for photo in rocket=64 chelsea=96x64 china=160x128 flower=128x224 coffee=320x240; do \
		$(PY) -m boards.sim.main --net hed --config $(CONFIG) --image $${photo%=*} --size $${photo#*=} || exit 1; \
	done

test: $(READY)  ## Lint, unit, golden and formal tests, then NET=digits in the RTL (minutes)
	@start=$$(date +%s); \
	$(MAKE) --no-print-directory lint && \
	$(PYTEST) -m "not slow" sim_tests && \
	$(MAKE) --no-print-directory test-digits && \
	echo "make test: passed in $$(( $$(date +%s) - start )) s"

test-digits: $(READY)
	@$(PY) -m boards.sim.main --net digits --config tiny

test-all: $(READY)  ## All tests, slow ones too, and digits in the RTL with every configuration
	@start=$$(date +%s); \
	$(MAKE) --no-print-directory lint && \
	$(PYTEST) sim_tests && \
	for config in tiny small default nullhop; do \
		$(PY) -m boards.sim.main --net digits --config $$config || exit 1; \
	done && \
	$(PY) -m boards.sim.main --net hed --config small --size 64 && \
	echo "make test-all: passed in $$(( $$(date +%s) - start )) s"

lint: $(READY)  ## Style of the Python sources
	@$(VENV)/bin/ruff check .

registers: $(READY)  ## Generate firmware/include/zeroskip_regs.h and docs/registers.md from hw/registers.py
	@$(PY) -m hw.generate_registers

verilog: $(READY)  ## Verilog of CONFIG= into build/verilog/
	@mkdir -p build/verilog
	@$(PY) -m hw.generate --config $(CONFIG) -o build/verilog/zeroskip_$(CONFIG).v
	@echo "build/verilog/zeroskip_$(CONFIG).v"

resources: $(READY)  ## LUTs, DSPs and block RAMs of CONFIG= after synthesis (minutes)
	@$(PY) -m boards.resources --config $(CONFIG)

coverage: $(READY)  ## Lines and branches of the RTL that whole-network runs reach
	@$(PY) -m boards.sim.coverage --config tiny

clean:  ## Remove what was built; the virtual environment stays
	rm -rf build .pytest_cache .hypothesis .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
