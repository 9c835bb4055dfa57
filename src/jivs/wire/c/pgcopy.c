/* PostgreSQL: COPY ... TO STDOUT (FORMAT binary), as messages of the frontend/backend protocol, into columns.
   Sources: PostgreSQL manual, "COPY: Binary Format" and "Message Formats"; the layouts of the values are those of the *_send
   functions in src/backend/utils/adt. A CopyData message holds whole rows (manual, "COPY Operations"). */
#include "jivs.h"

#include <stdio.h>

static const uint8_t SIGNATURE[11] = "PGCOPY\n\377\r\n";
#define HEADER 19

typedef unsigned __int128 wide;

enum { NUMERIC_NEGATIVE = 0x4000, NUMERIC_NAN = 0xc000, NUMERIC_INFINITY = 0xd000, NUMERIC_MINUS_INFINITY = 0xf000 };

static wide tens(int n) { return n < 20 ? (wide)TENS[n] : (wide)TENS[19] * TENS[n - 19]; }

static inline int digits_fit(const uint8_t *p, int64_t length, int count) {
    if (length != 8 + 2 * (int64_t)count) return 0;
    for (int i = 0; i < count; i++)
        if (be16(p + 8 + 2 * i) > 9999) return 0;
    return 1;
}

/* numeric(p,s) as an integer of s implied digits. 0: the type has no such value. The digits have been checked. */
static int decimal(column *c, int64_t row, const uint8_t *p) {
    int count = be16(p), weight = (int16_t)be16(p + 2);
    if (count) { /* the digits that the number has with this scale: none beyond the type's, so nothing below overflows */
        uint32_t first = be16(p + 8);
        int leading = first > 999 ? 4 : first > 99 ? 3 : first > 9 ? 2 : 1;
        if (leading + 4 * weight + c->spec.scale > c->spec.precision) return 0;
    }
    wide value = 0;
    int exponent = 4 * weight + c->spec.scale; /* of the digit that comes next */
    for (int i = 0; i < count; i++, exponent -= 4) {
        uint32_t digit = be16(p + 8 + 2 * i);
        if (exponent >= 0) {
            value = value * 10000 + digit;
        } else if (exponent > -4) {
            uint32_t part = (uint32_t)TENS[-exponent];
            if (digit % part) return 0;
            value = value * TENS[4 + exponent] + digit / part;
        } else {
            return 0; /* digits behind the last that the type has */
        }
    }
    if (count && exponent + 4 > 0) value *= tens(exponent + 4); /* zeros that the wire leaves out */
    __int128 out = be16(p + 4) ? -(__int128)value : (__int128)value;
    memcpy(c->values + 16 * row, &out, 16);
    return 1;
}

static int put_digits(uint8_t *out, uint32_t digit) {
    out[0] = (uint8_t)('0' + digit / 1000);
    out[1] = (uint8_t)('0' + digit / 100 % 10);
    out[2] = (uint8_t)('0' + digit / 10 % 10);
    out[3] = (uint8_t)('0' + digit % 10);
    return 4;
}

/* numeric of any size as numeric_out prints it, in memory to be freed. NULL: no memory. The digits have been checked. */
static uint8_t *numeric_out(const uint8_t *p, int64_t *length) {
    int count = be16(p), weight = (int16_t)be16(p + 2), scale = be16(p + 6);
    int64_t size = 0;
    uint8_t *text = malloc(4 * ((size_t)(weight > 0 ? weight : 0) + 1) + (size_t)scale + 8);
    if (text == NULL) return NULL;
    if (be16(p + 4)) text[size++] = '-';
    if (weight < 0) {
        text[size++] = '0';
    } else {
        for (int i = 0; i <= weight; i++) {
            uint8_t four[4];
            int skip = 0;
            put_digits(four, i < count ? be16(p + 8 + 2 * i) : 0);
            while (i == 0 && skip < 3 && four[skip] == '0') skip++;
            memcpy(text + size, four + skip, (size_t)(4 - skip));
            size += 4 - skip;
        }
    }
    if (scale) {
        int64_t end = size + 1 + scale;
        text[size++] = '.';
        for (int i = weight + 1; size < end; i++) {
            uint8_t four[4];
            int64_t part = end - size < 4 ? end - size : 4;
            put_digits(four, i >= 0 && i < count ? be16(p + 8 + 2 * i) : 0);
            memcpy(text + size, four, (size_t)part);
            size += part;
        }
    }
    *length = size;
    return text;
}

/* The common case: a positive number of up to four digits of base 10000, up to 18 decimal ones. 0: it is another. */
static inline int small_decimal(column *c, int64_t row, const uint8_t *p, int64_t length) {
    int count = be16(p), weight = (int16_t)be16(p + 2);
    if (count > 4 || count < 1 || length != 8 + 2 * count || weight < 0 || weight > 3 || be16(p + 4) != 0) return 0;
    if (be16(p + 8) == 0 || be16(p + 6) > 0x3fff) return 0;
    uint64_t value = 0;
    int exponent = 4 * weight + c->spec.scale;
    for (int i = 0; i < count; i++, exponent -= 4) {
        uint32_t digit = be16(p + 8 + 2 * i);
        if (digit > 9999) return 0;
        if (exponent >= 0) {
            value = value * 10000 + digit;
        } else {
            if (exponent == -2) { /* constants, for the compiler turns divisions by those into multiplications */
                if (digit % 100) return 0;
                value = value * 100 + digit / 100;
            } else if (exponent == -1) {
                if (digit % 10) return 0;
                value = value * 1000 + digit / 10;
            } else if (exponent == -3) {
                if (digit % 1000) return 0;
                value = value * 10 + digit / 1000;
            } else {
                return 0;
            }
        }
    }
    exponent += 4;
    if (exponent > 0) {
        if (exponent > 19 || value > UINT64_MAX / TENS[exponent]) return 0;
        value *= TENS[exponent];
    }
    int precision = c->spec.precision < 18 ? c->spec.precision : 18;
    if (value >= TENS[precision]) return 0;
    uint64_t out[2] = {value, 0};
    memcpy(c->values + 16 * row, out, 16);
    return 1;
}

static int numeric(builder *b, int32_t index, const uint8_t *p, int64_t length) {
    int text_form = b->columns[index].spec.kind == TEXT;
    if (length < 8) return STRANGE;
    if (!text_form && small_decimal(&b->columns[index], b->rows, p, length)) return MORE;
    int count = be16(p), sign = be16(p + 4);
    const char *special = sign == NUMERIC_NAN              ? "NaN"
                          : sign == NUMERIC_INFINITY       ? "Infinity"
                          : sign == NUMERIC_MINUS_INFINITY ? "-Infinity"
                                                           : NULL;
    if (special != NULL) {
        const uint8_t *name = (const uint8_t *)special;
        int64_t size = (int64_t)strlen(special);
        return (text_form ? put_bytes(b, index, name, size) : put_misfit(b, index, NO_SUCH_VALUE, name, size)) ? MORE : NO_MEMORY;
    }
    if ((sign != 0 && sign != NUMERIC_NEGATIVE) || be16(p + 6) > 0x3fff || !digits_fit(p, length, count)) return STRANGE;
    if (count ? be16(p + 8) == 0 : be16(p + 2) != 0) return STRANGE; /* a server sends no leading zeros */
    if (!text_form && decimal(&b->columns[index], b->rows, p)) return MORE;
    int64_t size;
    uint8_t *text = numeric_out(p, &size);
    if (text == NULL) return NO_MEMORY;
    int done = text_form ? put_bytes(b, index, text, size) : put_misfit(b, index, NO_SUCH_VALUE, text, size);
    free(text);
    return done ? MORE : NO_MEMORY;
}

#define EPOCH_US 946684800000000          /* from 1970-01-01 to 2000-01-01 */
#define FIRST_US (-211813488000000000)    /* 4714-11-24 BC, the first timestamp of PostgreSQL */
#define BEYOND_US 9223371244800000000     /* 294247-01-01 since 1970 */
#define LAST_US 9223371331200000000       /* the end of PostgreSQL's timestamps since 2000 */
#define DAY_US 86400000000
#define FIRST_DAY (-2451545)
#define LAST_DAY 2145031949               /* behind 5874897-12-31, since 2000 */

static int beyond(builder *b, int32_t index, const char *text) {
    return put_beyond(b, index, text, (int64_t)strlen(text)) ? MORE : NO_MEMORY;
}

static int timestamp(builder *b, int32_t index, int64_t value) {
    column *c = &b->columns[index];
    if (value == INT64_MAX) return beyond(b, index, "infinity");
    if (value == INT64_MIN) return beyond(b, index, "-infinity");
    if (value < FIRST_US || value >= LAST_US) return STRANGE;
    if (value < BEYOND_US - EPOCH_US) {
        put8(c, b->rows, (uint64_t)(value + EPOCH_US));
        return MORE;
    }
    int64_t days = value / DAY_US, clock = value % DAY_US, year;
    int month, day;
    char text[64];
    civil_from_days(days + UNIX_EPOCH_DAYS, &year, &month, &day);
    int size = snprintf(text, sizeof text, "%lld-%02d-%02d %02d:%02d:%02d", (long long)year, month, day,
                        (int)(clock / 3600000000), (int)(clock / 60000000 % 60), (int)(clock / 1000000 % 60));
    if (clock % 1000000) {
        size += snprintf(text + size, sizeof text - (size_t)size, ".%06d", (int)(clock % 1000000));
        while (text[size - 1] == '0') size--;
    }
    if (c->spec.zoned) size += snprintf(text + size, sizeof text - (size_t)size, "+00");
    return put_beyond(b, index, text, size) ? MORE : NO_MEMORY;
}

static int date(builder *b, int32_t index, int32_t value) {
    if (value == INT32_MAX) return beyond(b, index, "infinity");
    if (value == INT32_MIN) return beyond(b, index, "-infinity");
    if (value < FIRST_DAY || value >= LAST_DAY) return STRANGE;
    put4(&b->columns[index], b->rows, (uint32_t)(value + UNIX_EPOCH_DAYS));
    return MORE;
}

static int structure(builder *b, column *c, const uint8_t *p) {
    uint64_t microseconds = be64(p);
    uint32_t second = be32(p + 8);
    if (c->spec.kind == TIMETZ) { /* microseconds, seconds west of UTC */
        int32_t west = (int32_t)second;
        if (microseconds > DAY_US || west < -86400 * 7 || west > 86400 * 7) return STRANGE;
        int32_t east = -west;
        memcpy(c->values + 8 * b->rows, &microseconds, 8);
        memcpy(c->second + 4 * b->rows, &east, 4);
        return MORE;
    }
    uint32_t months = be32(p + 12);
    memcpy(c->values + 4 * b->rows, &months, 4);
    memcpy(c->second + 4 * b->rows, &second, 4);
    memcpy(c->third + 8 * b->rows, &microseconds, 8);
    return MORE;
}

static const int8_t SIZES[KINDS] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, -1, -1, -1, 16, 4, 8, 8, 12, 16};

static int value(builder *b, int32_t index, const uint8_t *p, int64_t length) {
    column *c = &b->columns[index];
    int64_t row = b->rows;
    int kind = c->spec.kind;
    if (SIZES[kind] >= 0 && SIZES[kind] != length) return STRANGE;
    switch (kind) {
    case BOOL:
        if (*p > 1) return STRANGE;
        if (*p) c->values[row / 8] |= (uint8_t)(1u << (row % 8));
        return MORE;
    case INT8:
    case UINT8:
        c->values[row] = *p;
        return MORE;
    case INT16:
    case UINT16: {
        uint16_t v = be16(p);
        memcpy(c->values + 2 * row, &v, 2);
        return MORE;
    }
    case INT32:
    case UINT32:
    case FLOAT:
        put4(c, row, be32(p));
        return MORE;
    case INT64:
    case UINT64:
    case DOUBLE:
        put8(c, row, be64(p));
        return MORE;
    case DECIMAL:
        return numeric(b, index, p, length);
    case UUID:
        memcpy(c->values + 16 * row, p, 16);
        return MORE;
    case DATE:
        return date(b, index, (int32_t)be32(p));
    case TIME: {
        uint64_t v = be64(p);
        if (v == DAY_US) return beyond(b, index, "24:00:00");
        if (v > DAY_US) return STRANGE;
        put8(c, row, v);
        return MORE;
    }
    case TIMESTAMP:
        return timestamp(b, index, (int64_t)be64(p));
    case TIMETZ:
    case INTERVAL:
        return structure(b, c, p);
    case BINARY:
        return put_bytes(b, index, p, length) ? MORE : NO_MEMORY;
    default:
        if (c->spec.form == NUMERIC_TEXT) return numeric(b, index, p, length);
        if (c->spec.form == JSONB) { /* a version, then the text */
            if (length < 1 || *p != 1) return STRANGE;
            p++;
            length--;
        }
        return put_text(b, index, p, length) ? MORE : NO_MEMORY;
    }
}

/* The rows of one message. */
static int rows(builder *b, const uint8_t *p, const uint8_t *end) {
    if (!b->started) {
        if (end - p < HEADER || memcmp(p, SIGNATURE, sizeof SIGNATURE) != 0) return BROKEN;
        int64_t extension = be32(p + 15);
        if (be32(p + 11) & 0xffff0000u || extension > end - p - HEADER) return BROKEN;
        p += HEADER + extension;
        b->started = 1;
    }
    while (p < end) {
        if (end - p < 2) return BROKEN;
        int fields = (int16_t)be16(p);
        p += 2;
        if (fields == -1) return p == end ? MORE : BROKEN; /* the trailer */
        if (fields != b->count) return BROKEN;
        if (!reserve_row(b)) return NO_MEMORY;
        for (int32_t i = 0; i < b->count; i++) {
            b->at = i;
            if (end - p < 4) return BROKEN;
            int64_t length = (int32_t)be32(p);
            p += 4;
            if (length == -1) {
                if (!set_null(b, i)) return NO_MEMORY;
                continue;
            }
            if (length < 0 || length > end - p) return BROKEN;
            int state = value(b, i, p, length);
            if (state != MORE) return state;
            p += length;
        }
        end_row(b);
    }
    return MORE;
}

/* Rows of a message without its head, as PQgetCopyData gives them. */
int jivs_pgcopy_rows(builder *b, const uint8_t *data, int64_t length) { return rows(b, data, data + length); }

/* Decode messages from the stream until the batch is full or something else comes. See enum state. */
int jivs_pgcopy_read(stream *s, builder *b, const batch_limits *limits) {
    for (;;) {
        while (s->end - s->start >= 5) {
            const uint8_t *p = s->buffer + s->start;
            int64_t length = be32(p + 1);
            if (*p != 'd') {
                if (*p != 'c') return ASIDE;
                if (length != 4) return BROKEN;
                s->start += 5;
                return END;
            }
            if (length < 4 || length > INT32_MAX) return BROKEN;
            if (length > limits->heavy) {
                s->need = length;
                return HEAVY;
            }
            if (b->rows >= limits->rows || b->bytes >= limits->bytes || (b->rows && length > limits->bytes)) return FULL;
            if (s->end - s->start < length + 1) {
                s->need = length + 1;
                break;
            }
            int state = rows(b, p + 5, p + 1 + length);
            if (state != MORE) return state;
            s->start += length + 1;
        }
        if (s->end - s->start < 5) s->need = 5;
        int state = jivs_stream_fill(s, s->need);
        if (state != MORE) return state;
        if (s->fd < 0) return MORE;
    }
}

typedef int (*get_copy_data)(void *connection, char **row, int async);
typedef void (*free_memory)(void *row);

/* A row that was received and not decoded yet, or NULL. */
typedef struct {
    char *row;
    int64_t length;
} held_row;

/* The same through libpq, where the socket is not ours to read (TLS). CLOSED: libpq has an error. */
int jivs_pgcopy_pull(void *connection, get_copy_data get, free_memory discard, held_row *held, builder *b,
                     const batch_limits *limits) {
    for (;;) {
        if (held->row == NULL) {
            char *row = NULL;
            int length = get(connection, &row, 0);
            if (length == -1) return END;
            if (length < 0 || row == NULL) return CLOSED;
            held->row = row;
            held->length = length;
        }
        if (held->length > limits->heavy) return HEAVY;
        if (b->rows >= limits->rows || b->bytes >= limits->bytes || (b->rows && held->length > limits->bytes)) return FULL;
        int state = rows(b, (const uint8_t *)held->row, (const uint8_t *)held->row + held->length);
        discard(held->row);
        held->row = NULL;
        if (state != MORE) return state;
    }
}
