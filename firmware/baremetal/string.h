/* What the driver uses of <string.h>, for a program without a C library. */
#ifndef STRING_H
#define STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int value, size_t size);
int strcmp(const char *first, const char *second);

#endif
