/* Pieces of the canonical text of a row (rowhash.c), for whoever hashes values that are not in Arrow arrays. */
#ifndef JIVS_CANONICAL_H
#define JIVS_CANONICAL_H

#include <stdint.h>

#define LANES 8

/* A row's text, growing. */
typedef struct {
    uint8_t *text;
    int64_t used, capacity;
} line;

int line_room(line *l, int64_t more);
int line_null(line *l);
int line_integer(line *l, int64_t value);
int line_double(line *l, double value);
int line_bytes(line *l, const uint8_t *data, int64_t length);
int line_hex(line *l, const uint8_t *data, int64_t length);
int line_end(line *l);
void hash_lines(const line *lines, uint64_t *out);

#endif
