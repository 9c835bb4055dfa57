/* What the decoders share: columns that grow row by row and leave as Arrow arrays.
   No header of Python, libpq or Arrow is needed: the library is loaded with ctypes, and arrays leave through the Arrow C data
   interface (https://arrow.apache.org/docs/format/CDataInterface.html). Bytes come from strangers: every length is checked
   before it is used, and nothing here aborts. */
#ifndef JIVS_H
#define JIVS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* In the order of jivs.domain.schema.Kind. */
enum kind {
    BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT, DOUBLE, DECIMAL, TEXT, BINARY, UUID, DATE, TIME,
    TIMESTAMP, TIMETZ, INTERVAL, KINDS
};

/* How a value looks on the wire, where the kind alone does not tell. */
enum form { PLAIN = 0, NUMERIC_TEXT = 1, JSONB = 2, BITS = 3, STORED = 4, DASHED = 5, ANY_CLASS = 6, NUMERIC = 7 };

/* What reading ended with. Negative: the bytes are not what they should be. */
enum state {
    MORE = 0,     /* everything complete was decoded; more bytes are needed */
    FULL = 1,     /* the batch has reached its limits */
    HEAVY = 2,    /* the next row is larger than allowed for now; nothing of it was decoded */
    END = 3,      /* the rows are over */
    ASIDE = 4,    /* a message that is no row; not consumed */
    CLOSED = 5,   /* the peer is gone */
    LATE = 6,     /* nothing came for too long */
    BROKEN = -1,  /* no such framing: lengths that contradict each other */
    STRANGE = -2, /* a value that its type cannot have */
    NO_MEMORY = -3
};

/* Why a cell is NULL and stands in the list of misfits instead. */
enum reason { NO_SUCH_VALUE = 0, NOT_UTF8 = 1, NO_UTF8_FORM = 2, OTHER_CLASS = 3 };

typedef struct {
    int32_t kind;
    int32_t form;
    int32_t precision; /* digits of a decimal */
    int32_t scale;     /* digits behind its point */
    int32_t zoned;     /* a timestamp's text ends in +00 */
} column_spec;

/* Bytes of varying length, one value a row. */
typedef struct {
    int32_t *offsets;
    uint8_t *data;
    int64_t used, capacity;
} varying;

typedef struct {
    column_spec spec;
    int width;         /* bytes of a value; 0: a bitmap; -1: varying; -2: a structure */
    uint8_t *values;   /* fixed width, bitmap, or a structure's first child */
    uint8_t *second;   /* the structure's other children */
    uint8_t *third;
    varying bytes;
    uint8_t *validity; /* NULL until the first NULL */
    int64_t nulls;
    varying beyond;    /* texts of values beyond the type; offsets is NULL until the first */
    uint8_t *beyond_validity;
    int64_t beyond_nulls, beyond_row; /* beyond_row: the last row that has one */
    int64_t hint;      /* bytes of the last batch */
} column;

typedef struct {
    int64_t row;
    int32_t column;
    int32_t reason;
    int64_t offset; /* of its bytes in misfit_bytes */
    int64_t length;
} misfit;

typedef struct {
    int32_t count;
    column *columns;
    int64_t rows, room; /* room: rows for which buffers are there */
    int64_t bytes;      /* of the batch, about */
    int64_t fixed;      /* bytes a row takes at least */
    int32_t beyonds;    /* columns with texts beside them */
    int32_t started;    /* the head of the stream has been read */
    int64_t usual;      /* rows of the last batch */
    misfit *misfits;
    int64_t misfit_count, misfit_room;
    uint8_t *misfit_bytes;
    int64_t misfit_used, misfit_capacity;
    int32_t at;         /* the column being decoded, for errors */
} builder;

typedef struct {
    int64_t rows, bytes; /* a batch ends at either */
    int64_t heavy;       /* a row above this stops the reading */
} batch_limits;

/* Bytes on their way from a socket; fd -1: somebody else puts them there. */
typedef struct {
    int fd;
    uint8_t *buffer;
    int64_t capacity, start, end;
    int64_t need;    /* bytes of the row that was too heavy, or of the message that is incomplete */
    int64_t timeout; /* longest wait for bytes in ms; -1: none */
} stream;

builder *jivs_builder_new(int32_t count, const column_spec *specs);
void jivs_builder_free(builder *b);
int grow(uint8_t **memory, int64_t *capacity, int64_t wanted);
int more_rows(builder *b);
void end_beyond(builder *b);
void undo_row(builder *b, int32_t columns);
int set_null(builder *b, int32_t c);
int put_beyond(builder *b, int32_t c, const char *text, int64_t length);
int put_misfit(builder *b, int32_t c, int32_t reason, const uint8_t *data, int64_t length);
int utf8_valid(const uint8_t *data, int64_t length);
int jivs_stream_room(stream *s, int64_t need);
int jivs_stream_fill(stream *s, int64_t need);
int32_t days_from_civil(int64_t year, int month, int day);
void civil_from_days(int64_t days, int64_t *year, int *month, int *day);

static inline uint16_t be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t be32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }
static inline uint64_t be64(const uint8_t *p) { return (uint64_t)be32(p) << 32 | be32(p + 4); }

/* Room for one more row in every column. */
static inline int reserve_row(builder *b) { return b->rows < b->room || more_rows(b); }

/* The row is complete. */
static inline void end_row(builder *b) {
    if (b->beyonds) end_beyond(b);
    b->bytes += b->fixed;
    b->rows++;
}

/* Copy, and tell whether any byte is above 0x7f. */
static inline uint64_t copy_bytes(uint8_t *to, const uint8_t *from, int64_t length) {
    uint64_t word, high = 0;
    if (length >= 8) {
        int64_t i = 0;
        for (; i + 8 <= length; i += 8) {
            memcpy(&word, from + i, 8);
            memcpy(to + i, &word, 8);
            high |= word;
        }
        memcpy(&word, from + length - 8, 8);
        memcpy(to + length - 8, &word, 8);
        return (high | word) & 0x8080808080808080u;
    }
    for (int64_t i = 0; i < length; i++) high |= to[i] = from[i];
    return high & 0x80;
}

/* Room behind the values of a varying column. NULL: none. */
static inline uint8_t *varying_room(varying *v, int64_t length) {
    if (length > INT32_MAX - v->used) return NULL;
    if ((v->data == NULL || v->used + length > v->capacity) && !grow(&v->data, &v->capacity, v->used + length)) return NULL;
    return v->data + v->used;
}

static inline void varying_end(builder *b, varying *v, int64_t length) {
    v->used += length;
    v->offsets[b->rows + 1] = (int32_t)v->used;
    b->bytes += length;
}

static inline int put_bytes(builder *b, int32_t index, const uint8_t *data, int64_t length) {
    varying *v = &b->columns[index].bytes;
    uint8_t *to = varying_room(v, length);
    if (to == NULL) return 0;
    if (length <= 256)
        copy_bytes(to, data, length);
    else
        memcpy(to, data, (size_t)length);
    varying_end(b, v, length);
    return 1;
}

/* Text that has to be UTF-8; other bytes leave the cell NULL and go to the misfits. */
static inline int put_text(builder *b, int32_t index, const uint8_t *data, int64_t length) {
    varying *v = &b->columns[index].bytes;
    uint8_t *to = varying_room(v, length);
    if (to == NULL) return 0;
    if (copy_bytes(to, data, length) && !utf8_valid(data, length)) return put_misfit(b, index, NOT_UTF8, data, length);
    varying_end(b, v, length);
    return 1;
}

static inline void put8(column *c, int64_t row, uint64_t value) { memcpy(c->values + 8 * row, &value, 8); }
static inline void put4(column *c, int64_t row, uint32_t value) { memcpy(c->values + 4 * row, &value, 4); }

extern const uint64_t TENS[20]; /* powers of ten */

#define UNIX_EPOCH_DAYS 10957 /* from 1970-01-01 to 2000-01-01 */

#endif
