"""Cycle model: what the hardware's counters will say of a run, without simulating its RTL.

    maps, results = run_network(program.network, x)         # golden.network; phase_weights is of compiler.phases
    run = model_network(program.network, maps, results, program.segments[0][1], program.config, split=phase_weights,
                        descriptor_address=program.descriptor_address, log_address=program.log_address)
    run.layers[0]["cycles"], run.layers[0]["stall_tile"], run.cycles      # as boards.sim.run.RunResult
    run.accesses[0]["weight_reads"], energy(run.accesses[0], program.config)["total"]

Every control register of the hardware that decides when something happens is followed clock by clock; of the data only
what time depends on is kept, the number of non-zero values of each map word. So the counters equal those of the RTL.
``golden.cycles`` is something else: the closed-form estimate that the compiler minimises when it chooses tilings, from
densities alone.

Source: docs/cycle-model.md.
"""
from .energy import ACCESSES, ENERGY, energy
from .run import LayerWork, MemoryTiming, ModelledRun, descriptor_fields, layer_work, model_network, model_run

__all__ = ["ACCESSES", "ENERGY", "LayerWork", "MemoryTiming", "ModelledRun", "descriptor_fields", "energy",
           "layer_work", "model_network", "model_run"]
