// A block RAM with one port that reads and one that writes, as RAMB18E1 and RAMB36E1 are in the modes that
// post_synthesis.py lets pass: the latches without registers behind them, READ_FIRST, one clock.
//
// Source: AMD UG473, "7 Series FPGAs Memory Resources", chapter 1, "Synchronous Dual-Port and Single-Port RAMs",
// "Byte-Wide Write Enable", "Block RAM Attributes".
module block_ram (clk, read, read_address, o, write, write_byte, write_address, i);
    // Bytes (8 bits of data and one of parity) of the memory, of a word read, of a word written.
    parameter BYTES = 4096, READ_BYTES = 8, WRITE_BYTES = 8;
    parameter [8*BYTES-1:0] INIT = 0;
    parameter [BYTES-1:0] INIT_PARITY = 0;

    // Addresses are those of bytes; the lowest bits, which are inside of a word, do not matter.
    input clk, read, write;
    input [$clog2(BYTES)-1:0] read_address, write_address;
    input [WRITE_BYTES-1:0] write_byte;
    input [9*WRITE_BYTES-1:0] i;
    output reg [9*READ_BYTES-1:0] o;

    reg [8:0] memory [0:BYTES-1];
    integer n;
    initial for (n = 0; n < BYTES; n = n + 1) memory[n] = {INIT_PARITY[n], INIT[8*n +: 8]};

    always @(posedge clk) begin
        if (read)
            for (n = 0; n < READ_BYTES; n = n + 1) o[9*n +: 9] <= memory[read_address / READ_BYTES * READ_BYTES + n];
        if (write)
            for (n = 0; n < WRITE_BYTES; n = n + 1)
                if (write_byte[n]) memory[write_address / WRITE_BYTES * WRITE_BYTES + n] <= i[9*n +: 9];
    end
endmodule
