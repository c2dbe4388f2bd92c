# zeroskip: `make help` lists what there is to do.
CONFIG ?= default
BOARD  ?= arty_z7_20
MHZ    ?=
SEED   ?= 1
NET    ?= hed
IMAGE  ?=
SIZE   ?=

VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
JOB    := $(if $(IMAGE),--image "$(IMAGE)") $(if $(SIZE),--size $(SIZE))
# Inputs of an ONNX file; COUNT is also that of digits.
ONNX   := $(if $(CALIB),--calib "$(CALIB)") $(if $(INPUT),--input "$(INPUT)") $(if $(SHAPE),--shape $(SHAPE)) \
          $(if $(MEAN),--mean=$(MEAN)) $(if $(STD),--std=$(STD)) $(if $(COUNT),--count $(COUNT))
# CONFIG may be a file.
NAME   := $(basename $(notdir $(CONFIG)))
# Two workers, one thread each.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q

# One thing at a time: the parts use the cores themselves.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup sim sim-photos image test test-firmware test-netlist test-all test-digits firmware-tools lint \
        registers verilog resources resource-points fuzz coverage tools bitstream bench-synth bench-networks \
        bench-early clean

help:  ## This list
	@echo "zeroskip: generator of a CNN accelerator that does no work for zeros"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables:  NET=hed|digits|file.onnx  CONFIG=tiny|small|default|nullhop|snapea|file.json"
	@echo "              BOARD=arty_z7_20|pynq_z2|arty_z7_10|ebaz4205"
	@echo "              IMAGE=photo.jpg or astronaut, chelsea, coffee ...  SIZE=96 or 320x240 (width x height)"
	@echo "              EARLY=none|exact|file of zeroskip predict  (CONFIG=snapea)"
	@echo "              CALIB=folder or .npz  INPUT=.npz or picture  SHAPE=3x224x224  MEAN=  STD=  COUNT=  (file.onnx)"

setup: $(READY)  ## Virtual environment, packages, trained networks (the other targets call it)
	@echo "$(VENV) is ready"

$(READY): pyproject.toml requirements.txt requirements-lock.txt requirements-photos.txt requirements-networks.txt \
          boards/sim/setup.sh
	@boards/sim/setup.sh
	@touch $@

sim: $(READY)  ## Run a trained network in the RTL, compare with golden: NET= CONFIG= IMAGE= SIZE= or CALIB= INPUT=
	@$(PY) -m boards.sim.main --net "$(NET)" --config "$(CONFIG)" $(if $(EARLY),--early "$(EARLY)") $(JOB) $(ONNX)

sim-photos: $(READY)  ## `make sim` on five photographs of 64x64 to 320x240 with CONFIG=
	@for photo in rocket=64 chelsea=96x64 china=160x128 flower=128x224 coffee=320x240; do \
		$(PY) -m boards.sim.main --net hed --config $(CONFIG) --image $${photo%=*} --size $${photo#*=} || exit 1; \
	done

image: $(READY)  ## Network image for a board, and the maps that golden expects of it: NET= CONFIG= IMAGE= SIZE=
	@$(PY) -m boards.image --net $(NET) --config "$(CONFIG)" $(JOB) \
		--output build/images/$(NET)-$(NAME).zsn --check build/images/$(NET)-$(NAME)

test: $(READY) firmware-tools  ## Lint, unit, golden, formal and driver tests, then NET=digits in the RTL (minutes)
	@start=$$(date +%s); \
	$(MAKE) --no-print-directory lint && \
	$(PYTEST) -m "not slow" sim_tests && \
	$(MAKE) --no-print-directory test-digits && \
	echo "make test: passed in $$(( $$(date +%s) - start )) s"

test-digits: $(READY)
	@$(PY) -m boards.sim.main --net digits --config tiny
	@$(PY) -m boards.sim.main --net digits --config tiny_snapea --count 2 --output build/sim/early

test-firmware: $(READY) firmware-tools  ## Drivers: sanitizers, the RTL, ARM code in QEMU, bare metal
	@$(PYTEST) sim_tests/firmware

test-netlist: $(READY)  ## The cells that synthesis makes of CONFIG=tiny, run against golden and the RTL (minutes)
	@$(PYTEST) sim_tests/cosim/test_post_synthesis.py

# Compilers and emulators that the driver tests need and nothing else does; looked for each time, which takes no time.
firmware-tools:
	@boards/sim/setup.sh firmware

test-all: $(READY) firmware-tools  ## All tests, slow ones too, and digits in the RTL with every configuration
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

registers: $(READY)  ## C header, Python constants and docs/registers.md from hw/registers.py
	@$(PY) -m hw.generate_registers

verilog: $(READY)  ## Verilog of CONFIG= into build/verilog/
	@mkdir -p build/verilog
	@$(PY) -m hw.generate --config "$(CONFIG)" -o build/verilog/zeroskip_$(NAME).v
	@echo "build/verilog/zeroskip_$(NAME).v"

resources: $(READY)  ## LUTs, DSPs and block RAMs of CONFIG= after synthesis (minutes)
	@$(PY) -m boards.resources --config "$(CONFIG)"

resource-points: $(READY)  ## Synthesis runs that `zeroskip explore` predicts from: those missing (minutes each)
	@$(PY) -m boards.resource_points

fuzz: $(READY)  ## Damaged files and random networks through compiler, golden and RTL: MINUTES=60 SEED= REPLAY=
	@PYTHONPATH=firmware/python $(PY) -m sim_tests.fuzz.run --minutes $(or $(MINUTES),60) --seed $(SEED) \
		$(if $(REPLAY),--replay $(REPLAY))

coverage: $(READY)  ## Lines and branches of the RTL that whole-network runs reach
	@$(PY) -m boards.sim.coverage --config tiny

tools: $(READY)  ## Open tools for Xilinx chips (nextpnr, Project X-Ray) into build/tools
	@$(PY) -m boards.tools

# The configuration is the board's own unless CONFIG is given on the command line.
bitstream: $(READY)  ## Bitstream for BOARD= with open tools: CONFIG= MHZ= SEED= (minutes to an hour)
	@$(PY) -m boards.build --board $(BOARD) --seed $(SEED) $(if $(MHZ),--megahertz $(MHZ)) \
		$(if $(filter command line environment,$(origin CONFIG)),--config "$(CONFIG)")

# Networks and data that no package brings are read from the folder ZEROSKIP_DATA.
bench-networks: $(READY)  ## Accuracy and cycles of whole networks, docs/results/networks.md: ONLY= IMAGES= (hours)
	@$(PY) -m boards.bench_networks --config "$(CONFIG)" $(if $(ONLY),--only $(ONLY)) $(if $(IMAGES),--images $(IMAGES))

bench-early: $(READY)  ## Zero skip and early activation on both arrays, docs/results/early-activation.md: ONLY= IMAGES=
	@$(PY) -m boards.bench_early $(if $(ONLY),--only $(ONLY)) $(if $(IMAGES),--images $(IMAGES))

bench-synth: $(READY)  ## Bitstreams of all boards, and docs/results/synthesis.md (hours)
	@$(PY) -m boards.bench

clean:  ## Remove what was built; the virtual environment stays
	rm -rf build .pytest_cache .hypothesis .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
