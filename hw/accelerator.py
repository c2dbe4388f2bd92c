"""The accelerator without its bus protocol: this file is the block diagram.

    read clients --> DescriptorReader --> Sequencer --jobs--> TileLoader, array, Collector
                 --> TileLoader  --map words, values--> array (BroadcastArray or IntersectArray)
                 --> WeightLoader --weights--> array, --scales--> Requantise
    array --sums--> Collector --> Requantise --+--> Encoder (full map)   --> write clients
                                               +--> Pool --> Encoder     -->
    Counters --> LogWriter                                               -->
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from . import payloads
from .array.broadcast.array import BroadcastArray
from .array.intersect.array import IntersectArray
from .array.intersect.weight_loader import IntersectWeightLoader
from .buffer.double_buffer import DoubleBufferControl
from .buffer.weight_loader import WeightLoader
from .config import AcceleratorConfig
from .control.counters import Counters
from .control.descriptor_reader import DescriptorReader, checked_layer
from .control.log_writer import LogWriter
from .control.sequencer import Sequencer
from .decode.tile_loader import TileLoader
from .encode.encoder import Encoder
from .postprocess.collector import Collector
from .postprocess.pool import Pool
from .postprocess.requantise import Requantise
from .registers import LOG_BYTES
from .stream.fifo import StreamFifo
from .stream.fork import StreamFork

#: Read clients of the bus, by number.
READ_CLIENTS = ("descriptor", "map", "value", "weight")
#: Write clients of the bus, by number.
WRITE_CLIENTS = ("full", "pool", "log")
#: Jobs that the sequencer may be ahead of each block outside of the array.
JOB_DEPTH = 4


class Accelerator(wiring.Component):
    """Run a list of layer descriptors.

    For every layer and output: ``out = clamp(round((conv(in, weights) + bias) * scale / 2**shift))``, then the pooled
    map: golden/README.md.

    Members
    -------
    i_start : In(1)
        Pulse: run ``i_layer_count`` descriptors from ``i_descriptor_address`` on; only after reset or ``o_done``.
    i_log_address : In(32)
        Where the counters of the layers go, ``LOG_BYTES`` a layer; 0: nowhere.
    o_done : Out(1)
        Pulse: the list is finished and everything is in DRAM.
    o_error, o_error_code, o_error_address : Out
        A descriptor was refused. The accelerator then stops by itself and needs a reset.
    o_layers_done : Out(16)
        Layers finished since ``i_start``.
    o_progress : Out(1)
        Something moves in this cycle (for a watchdog).
    o_read_request, i_read_data : arrays of streams over ``READ_CLIENTS``
    o_write_request, o_write_data : arrays of streams over ``WRITE_CLIENTS``
    i_write_idle : In(1)
        Every write has been answered.
    i_read_beat, i_write_beat : In(1)
        A beat moves on the bus in this cycle.
    o_descriptor_address : Out(32)
        Descriptor of the layer that runs.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        request, beat = stream.Signature(payloads.request()), stream.Signature(64)
        super().__init__({
            "i_start": In(1), "i_descriptor_address": In(32), "i_layer_count": In(16), "i_log_address": In(32),
            "o_done": Out(1), "o_error": Out(1), "o_error_code": Out(8), "o_error_address": Out(32),
            "o_layers_done": Out(16), "o_progress": Out(1), "o_descriptor_address": Out(32),
            "o_read_request": Out(request).array(len(READ_CLIENTS)),
            "i_read_data": In(beat).array(len(READ_CLIENTS)),
            "o_write_request": Out(request).array(len(WRITE_CLIENTS)),
            "o_write_data": Out(beat).array(len(WRITE_CLIENTS)),
            "i_write_idle": In(1), "i_read_beat": In(1), "i_write_beat": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._idles = []
        m.submodules.scales = self._scales = DoubleBufferControl(consumers=1)
        self._build_control(m)
        self._build_array(m)
        self._build_loaders(m)
        self._build_postprocess(m)
        self._build_counters(m)
        m.d.comb += self._sequencer.i_idle.eq(Cat(self._idles).all() & self.i_write_idle)
        return m

    def _read_client(self, m, name, request, beats):
        index = READ_CLIENTS.index(name)
        wiring.connect(m, request, wiring.flipped(self.o_read_request[index]))
        wiring.connect(m, wiring.flipped(self.i_read_data[index]), beats)

    def _write_client(self, m, name, part):
        index = WRITE_CLIENTS.index(name)
        wiring.connect(m, part.o_request, wiring.flipped(self.o_write_request[index]))
        wiring.connect(m, part.o_data, wiring.flipped(self.o_write_data[index]))

    def _job_fifo(self, m, name, source):
        """A FIFO of jobs behind ``source``; the accelerator is not idle while it holds one."""
        m.submodules[name] = fifo = StreamFifo(source.payload.shape(), depth=JOB_DEPTH)
        wiring.connect(m, source, fifo.i)
        self._idles.append(fifo.level == 0)
        return fifo.o

    def _build_control(self, m):
        """Descriptor list to jobs. The weight loader gets each layer as soon as it is read: it runs ahead."""
        m.submodules.descriptors = reader = DescriptorReader(self.config)
        m.submodules.sequencer = self._sequencer = sequencer = Sequencer(self.config)
        m.submodules.layers = self._layers = fork = StreamFork(checked_layer(), count=2)
        self._read_client(m, "descriptor", reader.o_request, reader.i_data)
        wiring.connect(m, reader.o, fork.i)
        wiring.connect(m, fork.o[0], sequencer.i)
        running = Signal()
        m.d.comb += [
            reader.i_start.eq(self.i_start), reader.i_address.eq(self.i_descriptor_address),
            reader.i_count.eq(self.i_layer_count),
            # A bad descriptor ends the run only after the layers before it and their log records.
            self.o_error.eq(sequencer.o_error | reader.o_error & ~sequencer.o_busy & sequencer.i_idle & running),
            self.o_error_code.eq(Mux(sequencer.o_error, sequencer.o_error_code, reader.o_error_code)),
            self.o_error_address.eq(Mux(sequencer.o_error, sequencer.o_error_address, reader.o_error_address)),
            self.o_descriptor_address.eq(sequencer.o_error_address),
            self.o_done.eq(running & (self.o_layers_done == self.i_layer_count) & sequencer.i_idle),
        ]
        with m.If(self.i_start):
            m.d.sync += [running.eq(1), self.o_layers_done.eq(0)]
        with m.Elif(self.o_done):
            m.d.sync += running.eq(0)
        with m.If(sequencer.o_end):
            m.d.sync += self.o_layers_done.eq(self.o_layers_done + 1)

    def _build_array(self, m):
        """The array of the configuration, with the weight loader that serves it."""
        if self.config.intersect:
            m.submodules.array = self._array = array = IntersectArray(self.config)
            m.submodules.weight_loader = self._weight_loader = weights = IntersectWeightLoader(config=self.config)
            ports = [*zip(weights.o_starts, array.i_starts, strict=True),
                     *zip(weights.o_maps, array.i_phase_map, strict=True),
                     *zip(weights.o_values, array.i_phase_values, strict=True)]
        else:
            m.submodules.array = self._array = array = BroadcastArray(self.config)
            m.submodules.weight_loader = self._weight_loader = weights = WeightLoader(config=self.config)
            ports = ((weights.o_weights, array.i_weights),)
        m.d.comb += [port.valid.eq(source.valid) for source, port in ports]
        m.d.comb += [port.payload.eq(source.payload) for source, port in ports]
        wiring.connect(m, self._sequencer.o_group, array.i_job)
        self._idles.append(array.o_idle)

    def _build_loaders(self, m):
        """DRAM to the buffers of the array."""
        array, weights = self._array, self._weight_loader
        m.submodules.tile_loader = loader = TileLoader(config=self.config)
        wiring.connect(m, self._job_fifo(m, "load_jobs", self._sequencer.o_load), loader.i_job)
        self._read_client(m, "map", loader.o_map_request, loader.i_map_data)
        self._read_client(m, "value", loader.o_value_request, loader.i_value_data)
        self._read_client(m, "weight", weights.o_request, weights.i_data)
        layers = self._layers.o[1]
        m.d.comb += [
            loader.i_layer.eq(self._sequencer.o_layer),
            weights.i_layer.valid.eq(layers.valid), weights.i_layer.payload.eq(layers.p.layer),
            layers.ready.eq(weights.i_layer.ready),
            array.i_map.valid.eq(loader.o_map_write.valid), array.i_map.payload.eq(loader.o_map_write.payload),
            array.i_values.valid.eq(loader.o_value_write.valid),
            array.i_values.payload.eq(loader.o_value_write.payload),
            loader.i_free.eq(array.o_tile_free), loader.i_half.eq(array.o_tile_half),
            array.i_tile_filled.eq(loader.o_filled),
            weights.i_free.eq(array.o_weights_free), weights.i_half.eq(array.o_weights_half),
            array.i_weights_filled.eq(weights.o_filled),
            weights.i_scales_free.eq(self._scales.o_free), weights.i_scales_half.eq(self._scales.o_fill_half),
            self._scales.i_filled.eq(weights.o_scales_filled),
        ]
        self._idles.append(loader.o_idle)

    def _build_postprocess(self, m):
        """Finished sums to compressed maps in DRAM."""
        layer = self._sequencer.o_layer
        m.submodules.collector = collector = Collector(self.config)
        m.submodules.requantise = requantise = Requantise(self.config)
        m.submodules.fork = fork = StreamFork(payloads.value_word(self.config), count=2)
        m.submodules.full_encoder = full = Encoder(self.config)
        m.submodules.pool = pool = Pool(self.config)
        m.submodules.pool_encoder = pooled = Encoder(self.config)
        wiring.connect(m, self._job_fifo(m, "collect_jobs", self._sequencer.o_collect), collector.i_job)
        for n in range(self.config.groups):
            wiring.connect(m, self._array.o_sums[n], collector.i_sums[n])
        wiring.connect(m, collector.o, requantise.i)
        wiring.connect(m, requantise.o, fork.i)
        wiring.connect(m, pool.o, pooled.i)
        # A map that the descriptor does not ask for is dropped in front of its encoder.
        for branch, wanted, part in ((fork.o[0], layer.write_full, full), (fork.o[1], layer.pool != 0, pool)):
            m.d.comb += [part.i.valid.eq(branch.valid & wanted), part.i.payload.eq(branch.payload),
                         branch.ready.eq(part.i.ready | ~wanted)]
        m.d.comb += [
            collector.i_scales_full.eq(self._scales.o_full), collector.i_scales_half.eq(self._scales.o_half),
            self._scales.i_take.eq(collector.o_scales_take), self._scales.i_release.eq(collector.o_scales_release),
            requantise.i_scales.valid.eq(self._weight_loader.o_scales.valid),
            requantise.i_scales.payload.eq(self._weight_loader.o_scales.payload),
            requantise.i_clamp.low.eq(layer.clamp_low), requantise.i_clamp.high.eq(layer.clamp_high),
            pool.i_kernel.eq(layer.pool), pool.i_signed.eq(layer.clamp_low < 0),
        ]
        for name, part in (("full", full), ("pool", pooled)):
            m.d.comb += [part.i_target[key].eq(layer[f"{name}_{key}"])
                         for key in ("address", "row_bytes", "segment_bytes")]
            self._write_client(m, name, part)
        self._idles += [part.o_idle for part in (collector, requantise, pool, full, pooled)]

    def _build_counters(self, m):
        """Count each layer, and write its record when it has ended."""
        sequencer = self._sequencer
        m.submodules.counters = counters = Counters(self.config)
        m.submodules.log = log = LogWriter(counters.o.shape())
        self._write_client(m, "log", log)
        self._idles.append(log.o_idle)
        log_address = Signal(32)
        with m.If(sequencer.o_begin):
            m.d.sync += log_address.eq(self.i_log_address + self.o_layers_done * LOG_BYTES)
        m.d.comb += [
            counters.i_clear.eq(sequencer.o_begin), counters.i_run.eq(sequencer.o_busy),
            counters.i_read_beat.eq(self.i_read_beat), counters.i_write_beat.eq(self.i_write_beat),
            log.i_counters.eq(counters.o), log.i_address.eq(log_address),
            log.i_write.eq(sequencer.o_end & (self.i_log_address != 0)),
            self.o_progress.eq(self.i_read_beat | self.i_write_beat
                               | Cat(activity.busy for activity in self._array.o_activity).any()),
        ]
        for n in range(self.config.groups):
            m.d.comb += [counters.i_activity[n].eq(self._array.o_activity[n]),
                         counters.i_lane_work[n].eq(self._array.o_lane_work[n])]
