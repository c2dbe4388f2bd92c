// Clock loop around a verilated design with ports s_axil__* (AXI4-Lite slave, 32-bit data), m_axi__* (AXI4 master,
// 64-bit data), irq, clk, rst and gated clocks (gating.py; GATES is GATE(n) for each). The C functions at the end are
// called from Python (boards/sim/simulator.py).
#include <exception>
#include <memory>
#include <string>

#include "Vdesign.h"
#include "dram.h"
#include "gates.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif
#if VM_COVERAGE
#include "verilated_cov.h"
#endif

// Verilator writes "__" of a name as "___05F".
#define LITE(name) design_->s_axil___05F##name
#define AXI(name) design_->m_axi___05F##name

namespace {
std::string assertion;
}

// Called by a failing assertion of the design. The default ends the process, and Python with it.
void vl_stop(const char *file, int line, const char *) {
    if (assertion.empty()) assertion = std::string("an assertion of the design failed: ") + file + ":" + std::to_string(line);
}
void vl_finish(const char *, int, const char *) {}
void vl_fatal(const char *file, int line, const char *, const char *message) {
    assertion = std::string(message) + ": " + file + ":" + std::to_string(line);
}

class Board {
public:
    enum Reason { LIMIT, INTERRUPT, FAULT };
    static constexpr int NO_ANSWER = -1;
    static constexpr uint32_t ANSWER_CYCLES = 10000;

    Board(const DramSettings &settings, const char *trace) : dram_(settings) {
        design_ = std::make_unique<Vdesign>(&context_);
#if VM_TRACE
        context_.traceEverOn(true);
        if (trace) {
            trace_ = std::make_unique<VerilatedVcdC>();
            design_->trace(trace_.get(), 99);
            trace_->open(trace);
        }
#endif
        assertion.clear();
    }

    ~Board() {
#if VM_TRACE
        if (trace_) trace_->close();
#endif
        design_->final();
    }

    void reset(uint32_t num_cycles) {
        design_->rst = 1;
        LITE(awvalid) = LITE(wvalid) = LITE(arvalid) = LITE(bready) = LITE(rready) = 0;
        AxiPins idle{};
        drive(idle);
        for (uint32_t n = 0; n < num_cycles; ++n) tick();
        design_->rst = 0;
        dram_.reset(pins_);
        assertion.clear();
        settle();
    }

    // The response code, or NO_ANSWER.
    int write(uint32_t offset, uint32_t value) {
        LITE(awaddr) = offset;
        LITE(wdata) = value;
        LITE(wstrb) = 0xF;
        LITE(awvalid) = LITE(wvalid) = LITE(bready) = 1;
        settle();
        int answer = NO_ANSWER;
        for (uint32_t n = 0; n < ANSWER_CYCLES && answer == NO_ANSWER; ++n) {
            const bool address = LITE(awvalid) && LITE(awready), data = LITE(wvalid) && LITE(wready);
            if (LITE(bvalid)) answer = LITE(bresp);
            cycle_with([&] {
                if (address) LITE(awvalid) = 0;
                if (data) LITE(wvalid) = 0;
                if (answer != NO_ANSWER) LITE(bready) = 0;
            });
        }
        return answer;
    }

    int read(uint32_t offset, uint32_t *value) {
        LITE(araddr) = offset;
        LITE(arvalid) = LITE(rready) = 1;
        settle();
        int answer = NO_ANSWER;
        for (uint32_t n = 0; n < ANSWER_CYCLES && answer == NO_ANSWER; ++n) {
            const bool address = LITE(arvalid) && LITE(arready);
            if (LITE(rvalid)) {
                answer = LITE(rresp);
                *value = LITE(rdata);
            }
            cycle_with([&] {
                if (address) LITE(arvalid) = 0;
                if (answer != NO_ANSWER) LITE(rready) = 0;
            });
        }
        return answer;
    }

    Reason run(uint64_t max_cycles) {
        for (uint64_t n = 0; n < max_cycles; ++n) {
            if (design_->irq) return INTERRUPT;
            cycle_with([] {});
            if (*error()) return FAULT;
        }
        return design_->irq ? INTERRUPT : LIMIT;
    }

    bool write_coverage(const char *path) {
#if VM_COVERAGE
        context_.coveragep()->write(path);
        return true;
#else
        return false;
#endif
    }

    const char *error() const { return assertion.empty() ? dram_.error().c_str() : assertion.c_str(); }
    uint64_t cycles() const { return cycles_; }
    void every_edge() { every_edge_ = true; }
    Dram &dram() { return dram_; }

private:
    // Inputs change after the rising edge; combinational outputs follow them while the clock is low.
    template <class Drive> void cycle_with(Drive drive_lite) {
        sample(pins_);
        dram_.edge(pins_);
        rise();
        drive(pins_);
        drive_lite();
        settle();
        ++cycles_;
    }

    void tick() {
        rise();
        settle();
    }

    void rise() {
        [[maybe_unused]] const bool all = every_edge_ || design_->rst;
#define GATE(n) design_->gate##n##_clk = all || design_->gate##n##_active;
        GATES
#undef GATE
        design_->clk = 1;
        design_->eval();
        dump();
    }

    void settle() {
#define GATE(n) design_->gate##n##_clk = 0;
        GATES
#undef GATE
        design_->clk = 0;
        design_->eval();
        dump();
    }

    void dump() {
#if VM_TRACE
        if (trace_) trace_->dump(time_ += 5);
#endif
    }

    void sample(AxiPins &pins) const {
        pins.arvalid = AXI(arvalid);
        pins.araddr = AXI(araddr);
        pins.arid = AXI(arid);
        pins.arlen = AXI(arlen);
        pins.arsize = AXI(arsize);
        pins.arburst = AXI(arburst);
        pins.rready = AXI(rready);
        pins.awvalid = AXI(awvalid);
        pins.awaddr = AXI(awaddr);
        pins.awid = AXI(awid);
        pins.awlen = AXI(awlen);
        pins.awsize = AXI(awsize);
        pins.awburst = AXI(awburst);
        pins.wvalid = AXI(wvalid);
        pins.wdata = AXI(wdata);
        pins.wstrb = AXI(wstrb);
        pins.wlast = AXI(wlast);
        pins.bready = AXI(bready);
    }

    void drive(const AxiPins &pins) {
        AXI(arready) = pins.arready;
        AXI(rvalid) = pins.rvalid;
        AXI(rid) = pins.rid;
        AXI(rdata) = pins.rdata;
        AXI(rresp) = pins.rresp;
        AXI(rlast) = pins.rlast;
        AXI(awready) = pins.awready;
        AXI(wready) = pins.wready;
        AXI(bvalid) = pins.bvalid;
        AXI(bid) = pins.bid;
        AXI(bresp) = pins.bresp;
    }

    VerilatedContext context_;
    std::unique_ptr<Vdesign> design_;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> trace_;
    uint64_t time_ = 0;
#endif
    Dram dram_;
    AxiPins pins_{};
    uint64_t cycles_ = 0;
    bool every_edge_ = false;
};

extern "C" {

Board *board_open(const DramSettings *settings, const char *trace) { return new Board(*settings, trace); }
void board_close(Board *board) { delete board; }
void board_reset(Board *board, uint32_t num_cycles) { board->reset(num_cycles); }
int board_write(Board *board, uint32_t offset, uint32_t value) { return board->write(offset, value); }
int board_read(Board *board, uint32_t offset, uint32_t *value) { return board->read(offset, value); }
int board_run(Board *board, uint64_t max_cycles) { return board->run(max_cycles); }
const char *board_error(Board *board) { return board->error(); }
void board_every_edge(Board *board) { board->every_edge(); }
uint64_t board_cycles(Board *board) { return board->cycles(); }
uint64_t board_read_beats(Board *board) { return board->dram().read_beats(); }
uint64_t board_write_beats(Board *board) { return board->dram().write_beats(); }
void board_inject_error(Board *board, uint64_t low, uint64_t high) { board->dram().inject_error(low, high); }
void board_clear_errors(Board *board) { board->dram().clear_errors(); }
int board_write_coverage(Board *board, const char *path) { return board->write_coverage(path); }

}
