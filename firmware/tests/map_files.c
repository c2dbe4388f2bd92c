/* Maps between files and memory, for comparison with golden: map_files IMAGE INPUT WRITTEN MEMORY FOLDER.
 *
 * Loads IMAGE, writes the values of INPUT (channel, row, column, in the type of the map) and the whole memory, as the
 * accelerator sees it, to the file WRITTEN. Then takes the file MEMORY for what the accelerator left, and writes
 * every map to FOLDER/<map>.bin, in the type of the map.
 */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(enum zs_error error, const char *what)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", what, zs_error_text(error));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: map_files IMAGE INPUT WRITTEN MEMORY FOLDER\n");
        return 2;
    }
    size_t image_size, input_size, memory_size;
    uint8_t *image_bytes = read_file(argv[1], &image_size), *input = read_file(argv[2], &input_size);
    uint8_t *memory = read_file(argv[4], &memory_size);
    struct zs_image image;
    struct zs_map map;
    must(zs_image_check(&image, image_bytes, image_size), argv[1]);
    struct fake fake;
    struct zs_device device;
    fake_open(&fake, &image, image.region_bytes, 1);
    const struct zs_platform platform = fake_platform(&fake, false);
    const struct zs_region region = fake_region(&fake);
    must(zs_init(&device, &platform, &region), "zs_init");
    must(zs_load(&device, &image), "zs_load");
    must(zs_map_entry(&image, image.input_map, &map), "input");
    const enum zs_type input_type = zs_map_type(&image, &map);
    must(zs_input(&device, input_type, input, input_size / zs_type_bytes(input_type)), "zs_input");
    write_file(argv[3], fake.memory, fake.bytes);
    if (memory_size != fake.bytes) {
        fprintf(stderr, "%s has %zu bytes, not %u\n", argv[4], memory_size, fake.bytes);
        return 2;
    }
    memcpy(fake.memory, memory, memory_size);
    for (uint32_t n = 0; n < image.map_count; ++n) {
        must(zs_map_entry(&image, n, &map), "map");
        const enum zs_type type = zs_map_type(&image, &map);
        const size_t count = (size_t)map.channels * map.height * map.width;
        void *values = malloc(count * zs_type_bytes(type));
        char path[4096];
        must(zs_map_read(&device, n, type, values, count), map.name);
        snprintf(path, sizeof path, "%s/%s.bin", argv[5], map.name);
        write_file(path, values, count * zs_type_bytes(type));
        free(values);
    }
    fake_close(&fake);
    free(memory);
    free(input);
    free(image_bytes);
    return 0;
}
