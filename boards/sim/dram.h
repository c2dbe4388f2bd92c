// AXI4 memory for simulation: 64-bit data, INCR bursts, 4-bit ids.
//
// Reads: a burst accepted in cycle t has its first beat in cycle t + read_latency or later; bursts of one id come in
// order, those of other ids may be mixed in beat by beat (stall "interleave"); one beat a cycle at most.
// Writes: data are taken once their address is. They reach the memory when the response is shown, write_latency cycles
// after the last beat: a master that reads back before the response sees old data, as on a real bus.
// Addresses outside of the memory answer DECERR, injected ranges SLVERR; neither is read nor written.
// The first breach of the protocol by the master is kept as a sentence in error().
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

// The pins as they stand before a rising clock edge.
struct AxiPins {
    // From the master.
    uint64_t wdata;
    uint32_t araddr, awaddr;
    uint8_t arvalid, arid, arlen, arsize, arburst, rready;
    uint8_t awvalid, awid, awlen, awsize, awburst;
    uint8_t wvalid, wlast, wstrb, bready;
    // From the memory.
    uint64_t rdata;
    uint8_t arready, rvalid, rid, rresp, rlast;
    uint8_t awready, wready, bvalid, bid, bresp;
};

struct DramSettings {
    uint8_t *memory;
    uint64_t base, size;
    uint64_t seed;
    uint32_t read_latency, write_latency;
    // Probability * 2**32, in the order of Dram::Channel.
    uint32_t stall[6];
};

class Dram {
public:
    enum Channel { AR, R, AW, W, B, INTERLEAVE };
    static constexpr size_t BURSTS_IN_FLIGHT = 16;
    static constexpr uint64_t UNREADABLE = 0xDEADBEEFDEADBEEFull;

    explicit Dram(const DramSettings &settings) : settings_(settings), random_(settings.seed * 2 + 1) {}

    // One rising clock edge: takes the transfers of this cycle and sets the memory's pins for the next.
    void edge(AxiPins &pins) {
        ++cycle_;
        check_held(pins);
        if (pins.arvalid && pins.arready) accept_read(pins);
        if (pins.rvalid && pins.rready) ++read_beats_, pins.rvalid = 0;
        if (pins.awvalid && pins.awready) accept_write(pins);
        if (pins.wvalid && pins.wready) accept_data(pins);
        if (pins.bvalid && pins.bready) pins.bvalid = 0;
        remember_held(pins);
        if (!pins.rvalid) show_beat(pins);
        if (!pins.bvalid) show_response(pins);
        pins.arready = reads_.size() < BURSTS_IN_FLIGHT && !stalls(AR);
        pins.awready = writes_.size() < BURSTS_IN_FLIGHT && !stalls(AW);
        pins.wready = num_complete_ < writes_.size() && !stalls(W);
    }

    // Forget all bursts; the memory, the counts and the injected ranges stay.
    void reset(AxiPins &pins) {
        reads_.clear();
        writes_.clear();
        num_complete_ = chosen_ = 0;
        held_ = AxiPins{};
        pins = AxiPins{};
        error_.clear();
    }

    void inject_error(uint64_t low, uint64_t high) { injected_.emplace_back(low, high); }
    void clear_errors() { injected_.clear(); }
    uint64_t read_beats() const { return read_beats_; }
    uint64_t write_beats() const { return write_beats_; }
    const std::string &error() const { return error_; }

private:
    enum Response : uint8_t { OKAY = 0, SLVERR = 2, DECERR = 3 };
    struct Beat {
        uint64_t data;
        uint8_t strobe;
    };
    struct Burst {
        uint64_t due;
        uint32_t address;
        uint8_t id, last, beat;
        std::vector<Beat> data;
    };

    bool stalls(Channel channel) {
        if (!settings_.stall[channel]) return false;
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return static_cast<uint32_t>(random_ >> 32) < settings_.stall[channel];
    }

    Response response(uint64_t address) const {
        if (address < settings_.base || address + 8 > settings_.base + settings_.size) return DECERR;
        for (const auto &range : injected_)
            if (address >= range.first && address < range.second) return SLVERR;
        return OKAY;
    }

    void fail(const char *what, uint32_t address) {
        if (!error_.empty()) return;
        char text[160];
        std::snprintf(text, sizeof text, "%s (address 0x%08x, memory cycle %llu)", what, address,
                      static_cast<unsigned long long>(cycle_));
        error_ = text;
    }

    void check_burst(uint32_t address, uint8_t last, uint8_t size, uint8_t kind) {
        if (kind != 1) fail("a burst is not INCR", address);
        if (size != 3) fail("a burst is not of 8-byte beats", address);
        if (address & 7) fail("a burst does not start at a multiple of 8", address);
        if ((address & 0xFFF) + (last + 1u) * 8 > 0x1000) fail("a burst crosses a 4 KiB boundary", address);
    }

    void accept_read(const AxiPins &pins) {
        check_burst(pins.araddr, pins.arlen, pins.arsize, pins.arburst);
        reads_.push_back({cycle_ + settings_.read_latency, pins.araddr, pins.arid, pins.arlen, 0, {}});
    }

    void accept_write(const AxiPins &pins) {
        check_burst(pins.awaddr, pins.awlen, pins.awsize, pins.awburst);
        writes_.push_back({0, pins.awaddr, pins.awid, pins.awlen, 0, {}});
    }

    void accept_data(const AxiPins &pins) {
        Burst &burst = writes_[num_complete_];
        ++write_beats_;
        burst.data.push_back({pins.wdata, pins.wstrb});
        const bool last = burst.beat++ == burst.last;
        if (last != static_cast<bool>(pins.wlast))
            fail(last ? "WLAST is missing at the last beat of a burst" : "WLAST comes before the last beat of a burst",
                 burst.address);
        if (last) {
            burst.due = cycle_ + settings_.write_latency;
            ++num_complete_;
        }
    }

    // The oldest burst of any id, drawn at random.
    size_t draw_read() {
        std::vector<size_t> oldest;
        uint32_t seen = 0;
        for (size_t index = 0; index < reads_.size(); ++index) {
            const uint32_t bit = 1u << (reads_[index].id & 15);
            if (!(seen & bit) && reads_[index].due <= cycle_ + 1) oldest.push_back(index);
            seen |= bit;
        }
        return oldest.empty() ? 0 : oldest[(random_ >> 16) % oldest.size()];
    }

    void show_beat(AxiPins &pins) {
        if (reads_.empty() || stalls(R)) return;
        if (stalls(INTERLEAVE)) chosen_ = draw_read();
        Burst &burst = reads_[chosen_];
        if (burst.due > cycle_ + 1) return;
        const uint64_t address = burst.address + 8ull * burst.beat;
        pins.rvalid = 1;
        pins.rid = burst.id;
        pins.rresp = response(address);
        pins.rlast = burst.beat == burst.last;
        pins.rdata = UNREADABLE;
        if (pins.rresp == OKAY) std::memcpy(&pins.rdata, settings_.memory + (address - settings_.base), 8);
        ++burst.beat;
        if (pins.rlast) {
            reads_.erase(reads_.begin() + static_cast<std::ptrdiff_t>(chosen_));
            chosen_ = 0;
        }
    }

    void show_response(AxiPins &pins) {
        if (!num_complete_ || writes_.front().due > cycle_ + 1 || stalls(B)) return;
        const Burst &burst = writes_.front();
        pins.bvalid = 1;
        pins.bid = burst.id;
        pins.bresp = OKAY;
        uint64_t address = burst.address;
        for (const Beat &beat : burst.data) {
            const Response answer = response(address);
            if (answer > pins.bresp) pins.bresp = answer;
            if (answer == OKAY) store(settings_.memory + (address - settings_.base), beat);
            address += 8;
        }
        writes_.pop_front();
        --num_complete_;
    }

    static void store(uint8_t *place, const Beat &beat) {
        if (beat.strobe == 0xFF) {
            std::memcpy(place, &beat.data, 8);
            return;
        }
        for (int byte = 0; byte < 8; ++byte)
            if (beat.strobe >> byte & 1) place[byte] = static_cast<uint8_t>(beat.data >> 8 * byte);
    }

    // What was valid and not ready in the last cycle must stand unchanged.
    void check_held(const AxiPins &pins) {
        if (held_.arvalid && !(pins.arvalid && pins.araddr == held_.araddr && pins.arid == held_.arid &&
                               pins.arlen == held_.arlen && pins.arsize == held_.arsize &&
                               pins.arburst == held_.arburst))
            fail("AR changed or fell before ARREADY", held_.araddr);
        if (held_.awvalid && !(pins.awvalid && pins.awaddr == held_.awaddr && pins.awid == held_.awid &&
                               pins.awlen == held_.awlen && pins.awsize == held_.awsize &&
                               pins.awburst == held_.awburst))
            fail("AW changed or fell before AWREADY", held_.awaddr);
        if (held_.wvalid && !(pins.wvalid && pins.wdata == held_.wdata && pins.wstrb == held_.wstrb &&
                              pins.wlast == held_.wlast))
            fail("W changed or fell before WREADY", held_.awaddr);
    }

    void remember_held(const AxiPins &pins) {
        const bool ar = pins.arvalid && !pins.arready, aw = pins.awvalid && !pins.awready;
        const bool w = pins.wvalid && !pins.wready;
        if (ar | aw | w) held_ = pins;
        held_.arvalid = ar;
        held_.awvalid = aw;
        held_.wvalid = w;
    }

    DramSettings settings_;
    uint64_t random_;
    uint64_t cycle_ = 0, read_beats_ = 0, write_beats_ = 0;
    std::deque<Burst> reads_, writes_;
    // Index into reads_ of the burst whose beats are shown; 0, the oldest, unless "interleave" chose another.
    size_t chosen_ = 0;
    // The first writes_ have all their data.
    size_t num_complete_ = 0;
    AxiPins held_{};
    std::vector<std::pair<uint64_t, uint64_t>> injected_;
    std::string error_;
};
