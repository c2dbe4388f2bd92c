#include "string.h"

#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    uint8_t *target = to;
    const uint8_t *source = from;
    if (((uintptr_t)target | (uintptr_t)source) % 4 == 0)
        for (; size >= 4; size -= 4, target += 4, source += 4)
            *(uint32_t *)(void *)target = *(const uint32_t *)(const void *)source;
    while (size--)
        *target++ = *source++;
    return to;
}

void *memset(void *to, int value, size_t size)
{
    uint8_t *target = to;
    while (size--)
        *target++ = (uint8_t)value;
    return to;
}

int strcmp(const char *first, const char *second)
{
    while (*first && *first == *second)
        ++first, ++second;
    return (unsigned char)*first - (unsigned char)*second;
}
