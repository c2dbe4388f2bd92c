"""A slow accelerator in plain Python: runs the DRAM image of a program by golden/README.md, one window at a time.

It shares no code with the golden model or the compiler but the unpacking of descriptors: what agrees with both was
written down in the same way twice. Limits of the configuration are asserted where the hardware has them.
"""
import numpy as np

from hw.descriptor import DESCRIPTOR_BYTES, unpack

S = 4


class Walk:
    """Runs the descriptors of a region ``dram`` (uint8) that starts at address ``base`` with the broadcast array.

    ``lane_work`` counts multiplications.
    """
    #: Whether the sums of a pass are kept even if there is a single round.
    always_keeps = False

    def __init__(self, config, dram, base):
        self.c, self.dram, self.base = config, dram, base
        self.lane_work = 0

    def read(self, address, count):
        assert address % 8 == 0, hex(address)
        assert 0 <= address - self.base and address - self.base + count <= len(self.dram), hex(address)
        return bytes(self.dram[address - self.base:address - self.base + count])

    def write(self, address, data):
        assert address % 8 == 0 and len(data) % 8 == 0
        first = address - self.base
        assert 0 <= first and first + len(data) <= len(self.dram), hex(address)
        self.dram[first:first + len(data)] = list(data)

    def run(self, address, count):
        for index in range(count):
            self.run_layer(unpack(self.read(address + index * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)))

    def run_layer(self, d):
        c = self.c
        self.d, self.weight_at, self.writers = d, d["weight_address"], {"full": {}, "pool": {}}
        tiles = self.tiles()
        assert d["passes"] == -(-len(tiles) // d["tiles_per_pass"])
        channel_chunks = self.cut(d["in_channels"], d["chunk_channels"])
        assert len(channel_chunks) == 1 or d["chunk_channels"] % c.block == 0
        chunks = [(channels, rows) for channels in channel_chunks
                  for rows in self.cut(d["kernel_rows"], d["chunk_rows"])]
        self.check_phases(len(chunks))
        alone = d["phases"] - d["joined"] - 1
        groups = [*([phase] for phase in range(alone)), [*range(alone, d["phases"])]]
        rounds = [(phases, channels, rows) for phases in groups for channels, rows in chunks]
        for m in range(-(-d["out_channels"] // c.lanes)):
            lanes = min(c.lanes, d["out_channels"] - m * c.lanes)
            scales = self.take_scales(lanes)
            chunk_start = self.weight_at
            for first in range(0, len(tiles), d["tiles_per_pass"]):
                self.weight_at = chunk_start
                self.run_pass(m, lanes, tiles[first:first + d["tiles_per_pass"]], rounds, scales)
            self.end_kernel_block()

    def check_phases(self, chunks):
        assert [self.d[name] for name in ("phases", "joined", "stop_phase", "predict")] == [1, 0, 0, 0]

    def end_kernel_block(self):
        """``weight_at`` is behind the weights that the last pass has read: nothing is left to check."""

    @staticmethod
    def cut(total, step):
        return [range(first, min(first + step, total)) for first in range(0, total, step)]

    def tiles(self):
        """(rows, columns) of windows of every tile."""
        d, sides = self.d, []
        pooled = d["pool"] != 0
        assert d["tile_overlap"] == (d["pool"] == 3)
        for step, length in ((d["tile_rows"], d["out_height"]), (d["tile_columns"], d["out_width"])):
            side, origin = [], 0
            while not side or origin < length - d["tile_overlap"]:
                side.append(range(origin, min(origin + step + d["tile_overlap"], length)))
                origin += step
            sides.append(side)
        assert len(sides[1]) == 1 or d["tile_columns"] % (8 if pooled else 4) == 0
        assert not pooled or d["tile_rows"] % 2 == 0
        return [(rows, columns) for rows in sides[0] for columns in sides[1]]

    def take_scales(self, lanes):
        """(bias, scale, shift) of each lane, those of unused lanes of the last block included."""
        scales = []
        for lane in range(-(-lanes // self.c.block) * self.c.block):
            data = self.read(self.weight_at, 16)
            self.weight_at += 16
            scales.append((int.from_bytes(data[:8], "little", signed=True), int.from_bytes(data[8:10], "little"),
                           data[12] & 63))
            assert lane < lanes or scales[-1] == (0, 0, 0)
        return scales

    def take_weights(self, lanes, taps, channels):
        """[tap][channel][lane] of the next chunk."""
        size = self.c.value_width // 8
        assert taps * channels <= self.c.weight_depth
        beats = -(-lanes * size // 8)
        data = np.frombuffer(self.read(self.weight_at, taps * channels * beats * 8), f"<i{size}")
        self.weight_at += taps * channels * beats * 8
        weights = data.reshape(taps, channels, -1)
        assert not weights[:, :, lanes:].any()
        return weights[:, :, :lanes].astype(np.int64)

    def run_pass(self, m, lanes, tiles, rounds, scales):
        c, d = self.c, self.d
        windows = sum(len(rows) * len(columns) for rows, columns in tiles)
        assert len(rounds) == 1 and not self.always_keeps or -(-windows // c.groups) <= c.sum_windows
        sums = {}
        for number, (phases, channels, kernel_rows) in enumerate(rounds):
            self.phases, self.first_round = phases, number == 0
            self.last_chunk = number + 1 == len(rounds) or rounds[number + 1][0] != phases
            weights = self.take_weights(lanes, len(kernel_rows) * d["kernel_columns"], len(channels))
            turn = 0
            for tile, (rows, columns) in enumerate(tiles):
                x = self.load_tile(rows, columns, channels, kernel_rows)
                for row in rows:
                    for column in columns:
                        # The partial sum's home: the group whose turn it is, and its place there.
                        key = divmod(turn, c.groups)
                        turn += 1
                        before = sums.get(key, (tile, row, column, np.zeros(lanes, object)))
                        assert before[:3] == (tile, row, column)
                        sums[key] = (tile, row, column, self.window(before[3], x, row, column, kernel_rows, weights))
        for tile, (rows, columns) in enumerate(tiles):
            values = {(row, column): self.finish(total, scales)
                      for owner, row, column, total in sums.values() if owner == tile}
            self.store_tile(m, rows, columns, values)

    def load_tile(self, rows, columns, channels, kernel_rows):
        """{(row, column): {channel of the chunk: value}} of the non-zero input of a tile and chunk."""
        d, c = self.d, self.c
        y0 = rows[0] * d["stride"] - d["pad_top"] + kernel_rows[0]
        y1 = y0 + (len(rows) - 1) * d["stride"] + len(kernel_rows) - 1
        x0 = columns[0] * d["stride"] - d["pad_left"]
        x1 = x0 + (len(columns) - 1) * d["stride"] + d["kernel_columns"] - 1
        y0, x0, y1, x1 = max(0, y0), max(0, x0), min(d["in_height"] - 1, y1), min(d["in_width"] - 1, x1)
        if y1 < y0 or x1 < x0:
            return {}
        blocks = range(channels[0] // c.block, channels[-1] // c.block + 1)
        segments = range(x0 // S, x1 // S + 1)
        assert len(blocks) * (y1 - y0 + 1) * len(segments) <= c.tile_slots
        assert y1 - y0 + 1 < 256 and len(segments) < 256
        pixels = {}
        for block in blocks:
            for y in range(y0, y1 + 1):
                for segment in segments:
                    for pixel, found in enumerate(self.load_slot(y, segment, block)):
                        if segment * S + pixel < d["in_width"]:
                            inside = {channel - channels[0]: value for channel, value in found.items()}
                            assert all(0 <= channel < len(channels) for channel in inside)
                            pixels.setdefault((y, segment * S + pixel), {}).update(inside)
                        else:
                            assert not found
        return pixels

    def load_slot(self, y, segment, block):
        """{channel: value} of the non-zero values of each of the 4 pixels."""
        d, c = self.d, self.c
        size, address = c.value_width // 8, d["in_address"] + y * d["in_row_bytes"] + segment * d["in_segment_bytes"]
        sign = bool(d["signed_in"])
        if d["dense_in"]:
            count = 1 << d["dense_shift"]
            data = self.read(address, d["in_segment_bytes"])
            pixels = []
            for pixel in range(S):
                values = [int.from_bytes(data[(pixel * count + n) * size:(pixel * count + n + 1) * size], "little",
                                         signed=sign) for n in range(count)]
                pixels.append({channel: value for channel, value in enumerate(values) if value})
            return pixels
        address += block * d["in_block_bytes"]
        map_bytes = c.block // 8
        words = self.read(address, S * map_bytes)
        at, pixels = address + S * map_bytes, []
        count = sum(bin(byte).count("1") for byte in words)
        data = self.read(at, -(-count * size // 8) * 8)
        for pixel in range(S):
            word = int.from_bytes(words[pixel * map_bytes:(pixel + 1) * map_bytes], "little")
            found = {}
            for bit in range(c.block):
                if word >> bit & 1:
                    found[block * c.block + bit] = int.from_bytes(data[:size], "little", signed=sign)
                    data = data[size:]
            pixels.append(found)
        assert not any(data)
        return pixels

    def pixels_under(self, x, row, column, kernel_rows):
        """{channel: value} under each tap of a window, tap by tap."""
        d = self.d
        y, left = row * d["stride"] - d["pad_top"], column * d["stride"] - d["pad_left"]
        return [x.get((y + kernel_row, left + tap_column), {})
                for kernel_row in kernel_rows for tap_column in range(d["kernel_columns"])]

    def window(self, total, x, row, column, kernel_rows, weights):
        """The sums (one for each lane) of a window after a round, from those before it."""
        for tap, pixel in enumerate(self.pixels_under(x, row, column, kernel_rows)):
            for channel, value in pixel.items():
                total = total + value * weights[tap][channel].astype(object)
                self.lane_work += len(total)
        return total

    def finish(self, sums, scales):
        """Output values of a window, those of unused lanes of the last block included."""
        width, sum_width = self.c.value_width, 32 if self.c.value_width == 8 else 48
        low, high = self.d["clamp_low"], self.d["clamp_high"]
        assert -2 ** (width - 1) <= low <= 0 <= high < 2 ** (width if low == 0 else width - 1)
        values = []
        for lane, (bias, scale, shift) in enumerate(scales):
            total = (sums[lane] if lane < len(sums) else 0) + bias
            total = (total + 2 ** (sum_width - 1)) % 2 ** sum_width - 2 ** (sum_width - 1)
            product = total * scale
            if shift:
                product = product + 2 ** (shift - 1) - 1 + (product >> shift & 1) >> shift
            values.append(min(max(product, low), high))
        return values

    def store_tile(self, m, rows, columns, values):
        d = self.d
        if d["write_full"]:
            self.store("full", m, rows, columns, values)
        if d["pool"]:
            k = d["pool"]

            def outputs(span, length):
                # Window j belongs to the tile that has all of it, or all that the map has.
                return [j for j in range(max(1, -(-(length - k) // 2) + 1))
                        if span[0] <= 2 * j and min(2 * j + k, length) - 1 <= span[-1]]
            pooled_rows, pooled_columns = outputs(rows, d["out_height"]), outputs(columns, d["out_width"])
            assert len(pooled_columns) <= self.c.pool_columns
            pooled = {}
            for y in pooled_rows:
                for x in pooled_columns:
                    under = [values[2 * y + i, 2 * x + j] for i in range(k) for j in range(k)
                             if (2 * y + i, 2 * x + j) in values]
                    pooled[y, x] = [max(column) for column in zip(*under, strict=True)]
            self.store("pool", m, pooled_rows, pooled_columns, pooled)

    def store(self, kind, m, rows, columns, values):
        """Write the slots of a tile as the encoder does: whole slots, absent pixels as zeros."""
        d, c = self.d, self.c
        size = c.value_width // 8
        assert columns[0] % S == 0
        for y in rows:
            for segment in range(columns[0] // S, columns[-1] // S + 1):
                pixels = [values.get((y, segment * S + pixel), None) for pixel in range(S)]
                for block in range(len(values[rows[0], columns[0]]) // c.block):
                    words, data = b"", b""
                    for pixel in pixels:
                        part = pixel[block * c.block:(block + 1) * c.block] if pixel else [0] * c.block
                        word = sum(1 << bit for bit, value in enumerate(part) if value)
                        words += word.to_bytes(c.block // 8, "little")
                        data += b"".join((value % 2 ** c.value_width).to_bytes(size, "little")
                                         for value in part if value)
                    address = (d[f"{kind}_address"] + y * d[f"{kind}_row_bytes"] + segment * d[f"{kind}_segment_bytes"]
                               + (m * c.lanes // c.block + block) * c.slot_bytes)
                    self.write(address, words + data + bytes(-len(data) % 8))


class IntersectWalk(Walk):
    """The same with the intersect array. A sum that is final is kept as a ``Final``."""
    always_keeps = True

    def check_phases(self, chunks):
        d = self.d
        assert 1 <= d["phases"] <= 7 and d["stop_phase"] < d["phases"] and d["joined"] < min(d["phases"], 4)
        assert d["phases"] - d["joined"] > 1 or not d["predict"]
        assert chunks == 1 or d["joined"] == 0 or d["stop_phase"] <= d["phases"] - d["joined"] - 1
        assert d["clamp_low"] == 0 or not (d["stop_phase"] or d["predict"])
        assert not d["signed_in"] or not d["stop_phase"]

    def take_beat(self):
        self.weight_at += 8
        return self.read(self.weight_at - 8, 8)

    def take_scales(self, lanes):
        """Header, then scales: the requantiser adds what start values are less than the bias."""
        header = self.take_beat()
        assert not any(header[4:])
        scales = super().take_scales(lanes)
        assert all(bias >= 0 for bias, _, _ in scales)
        self.weights_end = self.weight_at + 8 * int.from_bytes(header[:4], "little")
        return scales

    def end_kernel_block(self):
        assert self.weight_at == self.weights_end

    def take_weights(self, lanes, taps, channels):
        """(start, threshold, {channel: weight} of each tap in the order of the words for each phase) of each lane of a
        round."""
        block, stop = self.c.block, self.d["stop_phase"]
        blocks = -(-channels // block)
        bits, found = taps * blocks * block, []
        assert bits <= self.c.weight_depth
        for _ in range(lanes):
            start = self.take_beat()
            map_beats = -(-len(self.phases) * bits // 64)
            maps = int.from_bytes(b"".join(self.take_beat() for _ in range(map_beats)), "little")
            assert maps >> len(self.phases) * bits == 0
            maps = [maps >> number * bits & (1 << bits) - 1 for number in range(len(self.phases))]
            count = sum(bin(part).count("1") for part in maps)
            values = b"".join(self.take_beat() for _ in range(-(-count // 8)))
            assert not any(values[count:])
            words, at = [[{} for _ in range(taps)] for _ in maps], 0
            for tap in range(taps):
                for channel in range(blocks * block):
                    numbers = [number for number, part in enumerate(maps) if part >> tap * blocks * block + channel & 1]
                    assert len(numbers) <= 1, "a weight has two phases of a round"
                    for number in numbers:
                        assert channel < channels and values[at] != 0
                        weight = values[at] - 256 * (values[at] >> 7)
                        assert not stop or self.phases[number] < stop or weight < 0
                        words[number][tap][channel] = weight
                        at += 1
            assert at == count
            found.append((int.from_bytes(start[:4], "little", signed=True),
                          int.from_bytes(start[4:], "little", signed=True), words))
            assert self.first_round or found[-1][0] == 0
        return found

    def window(self, total, x, row, column, kernel_rows, weights):
        d, sums = self.d, []
        pixels = self.pixels_under(x, row, column, kernel_rows)
        stops = [d["stop_phase"] and phase >= d["stop_phase"] for phase in self.phases]
        for before, (start, threshold, words) in zip(total, weights, strict=True):
            sums.append(before)
            if isinstance(before, Final):
                continue
            sums[-1] = self.task(start if self.first_round else before, pixels, words, stops)
            if d["predict"] and self.phases == [0] and self.last_chunk and sums[-1] < threshold:
                sums[-1] = Final(-1)
        return np.array(sums, object)

    def task(self, value, pixels, words, stops):
        """The sum of a lane after a round that it begins with ``value``; in a phase that stops it is looked at after
        each product, and before the first one where the round begins with such a phase."""
        if stops[0] and value < 0:
            return Final(value)
        for stop, phase_words in zip(stops, words, strict=True):
            for pixel, word in zip(pixels, phase_words, strict=True):
                for channel, weight in word.items():
                    if channel in pixel:
                        value += pixel[channel] * weight
                        self.lane_work += 1
                        if stop and value < 0:
                            return Final(value)
        return value


class Final(int):
    """A sum that stays as it is."""
