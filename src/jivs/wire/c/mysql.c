/* MySQL and MariaDB: a result set of the text protocol into columns.
   Sources: MySQL Internals, "Text Resultset", "Packets", "Length-Encoded Integer"; MariaDB, "Result Set Packets". */
#include "jivs.h"

#define LARGEST_PACKET 0xffffff

enum phase { COUNT, DEFINITIONS, DEFINITIONS_END, ROWS, OVER };

typedef struct {
    int32_t phase;
    int32_t fields;   /* columns on the wire */
    int32_t left;     /* definitions to come */
    int32_t sequence; /* of the next packet */
} result_set;

static uint32_t le24(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16; }

/* A length; 0xfb stands for NULL and gives -1. Returns where it ends, or NULL. */
static inline const uint8_t *length_of(const uint8_t *p, const uint8_t *end, int64_t *length) {
    if (p >= end) return NULL;
    if (*p < 0xfb) {
        *length = *p;
        return p + 1;
    }
    int bytes = *p == 0xfc ? 2 : *p == 0xfd ? 3 : *p == 0xfe ? 8 : 0;
    if (*p == 0xfb) {
        *length = -1;
        return p + 1;
    }
    if (bytes == 0 || end - p <= bytes) return NULL;
    uint64_t value = 0;
    for (int i = bytes; i > 0; i--) value = value << 8 | p[i];
    if (value > (uint64_t)(end - p)) return NULL;
    *length = (int64_t)value;
    return p + 1 + bytes;
}

/* Digits only, at most 19 of them. 0: no. */
static inline int unsigned_of(const uint8_t *p, int64_t length, uint64_t *out) {
    uint64_t value = 0;
    if (length < 1 || length > 20) return 0;
    for (int64_t i = 0; i < length; i++) {
        unsigned digit = (unsigned)p[i] - '0';
        if (digit > 9) return 0;
        if (i == 19 && (value > UINT64_MAX / 10 || (value == UINT64_MAX / 10 && digit > UINT64_MAX % 10))) return 0;
        value = value * 10 + digit;
    }
    *out = value;
    return 1;
}

static inline int signed_of(const uint8_t *p, int64_t length, int64_t *out) {
    uint64_t value;
    int negative = length > 0 && *p == '-';
    if (!unsigned_of(p + negative, length - negative, &value) || value > (uint64_t)INT64_MAX + (uint64_t)negative) return 0;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return 1;
}

/* decimal(p,s) as an integer of s implied digits. */
static inline int decimal_of(column *c, int64_t row, const uint8_t *p, int64_t length) {
    int negative = length > 0 && *p == '-', digits = 0, behind = -1;
    unsigned __int128 value = 0;
    uint64_t low = 0, unit = 1; /* the last digits, not yet in value */
    for (int64_t i = negative; i < length; i++) {
        if (p[i] == '.') {
            if (behind >= 0 || i == negative) return 0;
            behind = 0;
            continue;
        }
        unsigned digit = (unsigned)p[i] - '0';
        if (digit > 9) return 0;
        if (digits || digit) digits++;
        if (digits > 38) return 0;
        if (behind >= 0) behind++;
        low = low * 10 + digit;
        unit *= 10;
        if (unit == 1000000000000000000u) {
            value = value * unit + low;
            low = 0;
            unit = 1;
        }
    }
    if (length == negative || behind == 0 || (behind < 0 ? 0 : behind) > c->spec.scale) return 0;
    value = value * unit + low;
    for (int i = behind < 0 ? 0 : behind; i < c->spec.scale; i++, digits += digits > 0) {
        if (digits >= 38) return 0;
        value *= 10;
    }
    if (digits > c->spec.precision) return 0;
    __int128 out = negative ? -(__int128)value : (__int128)value;
    memcpy(c->values + 16 * row, &out, 16);
    return 1;
}

static int two(const uint8_t *p) {
    unsigned tens = (unsigned)p[0] - '0', ones = (unsigned)p[1] - '0';
    return tens > 9 || ones > 9 ? -1 : (int)(tens * 10 + ones);
}

/* ``YYYY-MM-DD`` of a day that exists, year 1 or later. 0: no. */
static inline int day_of(const uint8_t *p, int32_t *out) {
    static const int lengths[12] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int century = two(p), year = two(p + 2), month = two(p + 5), day = two(p + 8);
    if (century < 0 || year < 0 || p[4] != '-' || p[7] != '-' || month < 1 || month > 12 || day < 1) return 0;
    year += century * 100;
    if (year == 0 || day > lengths[month - 1]) return 0;
    if (month == 2 && day == 29 && (year % 4 || (year % 100 == 0 && year % 400))) return 0;
    *out = days_from_civil(year, month, day);
    return 1;
}

/* ``HH:MM:SS`` with up to six digits behind a point. -1: no. */
static inline int64_t clock_of(const uint8_t *p, int64_t length) {
    if (length < 8 || length == 9 || length > 15) return -1;
    int hour = two(p), minute = two(p + 3), second = two(p + 6);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 || p[2] != ':' || p[5] != ':') return -1;
    int64_t value = ((int64_t)hour * 60 + minute) * 60 + second;
    if (length > 8 && p[8] != '.') return -1;
    for (int64_t i = 9; i < 15; i++) {
        unsigned digit = i < length ? (unsigned)p[i] - '0' : 0;
        if (digit > 9) return -1;
        value = value * 10 + digit;
    }
    return value;
}

static inline int moment_of(const column *c, const uint8_t *p, int64_t length, int64_t *out) {
    int32_t day;
    if (c->spec.zoned) {
        if (length < 3 || memcmp(p + length - 3, "+00", 3) != 0) return 0;
        length -= 3;
    }
    if (length < 19 || p[10] != ' ' || !day_of(p, &day)) return 0;
    int64_t clock = clock_of(p + 11, length - 11);
    if (clock < 0) return 0;
    *out = (int64_t)day * 86400000000 + clock;
    return 1;
}

static int nibble(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 32 hex digits with dashes anywhere between bytes. */
static int uuid_of(uint8_t *out, const uint8_t *p, int64_t length) {
    int count = 0;
    for (int64_t i = 0; i < length;) {
        if (p[i] == '-') {
            i++;
            continue;
        }
        if (i + 1 >= length || count == 16) return 0;
        int high = nibble(p[i]), low = nibble(p[i + 1]);
        if (high < 0 || low < 0) return 0;
        out[count++] = (uint8_t)(high << 4 | low);
        i += 2;
    }
    return count == 16;
}

/* Within the range of a signed integer of that many bytes. */
static inline int fits(int64_t value, int bytes) { return value >= -((int64_t)1 << (8 * bytes - 1)) && value < (int64_t)1 << (8 * bytes - 1); }

static int beyond(builder *b, int32_t index, const uint8_t *p, int64_t length) {
    if (!utf8_valid(p, length)) return 0;
    return put_beyond(b, index, (const char *)p, length) ? 1 : -1;
}

/* A value that fits its column. 0: the type has no such value, 1: done, -1: no memory. */
static inline int value(builder *b, int32_t index, const uint8_t *p, int64_t length) {
    column *c = &b->columns[index];
    int64_t row = b->rows, number;
    uint64_t natural;
    switch (c->spec.kind) {
    case INT8:
    case INT16:
    case INT32:
        if (!signed_of(p, length, &number) || !fits(number, c->width)) return 0;
        memcpy(c->values + c->width * row, &number, (size_t)c->width); /* the low bytes: see jivs_mysql_read */
        return 1;
    case INT64:
        if (!signed_of(p, length, &number)) return 0;
        put8(c, row, (uint64_t)number);
        return 1;
    case UINT8:
    case UINT16:
    case UINT32:
        if (!unsigned_of(p, length, &natural) || natural >> (8 * c->width)) return 0;
        memcpy(c->values + c->width * row, &natural, (size_t)c->width);
        return 1;
    case UINT64:
        if (!unsigned_of(p, length, &natural)) return 0;
        put8(c, row, natural);
        return 1;
    case DOUBLE: /* its bits, see BITS */
        if (!signed_of(p, length, &number)) return 0;
        put8(c, row, (uint64_t)number);
        return 1;
    case FLOAT: {
        double wide;
        if (!signed_of(p, length, &number)) return 0;
        memcpy(&wide, &number, 8);
        float narrow = (float)wide;
        memcpy(c->values + 4 * row, &narrow, 4);
        return 1;
    }
    case DECIMAL:
        return decimal_of(c, row, p, length);
    case DATE: {
        int32_t day;
        if (length != 10 || !day_of(p, &day)) return beyond(b, index, p, length);
        put4(c, row, (uint32_t)day);
        return 1;
    }
    case TIMESTAMP:
        if (!moment_of(c, p, length, &number)) return beyond(b, index, p, length);
        put8(c, row, (uint64_t)number);
        return 1;
    case UUID:
        return uuid_of(c->values + 16 * row, p, length);
    case BINARY:
        return put_bytes(b, index, p, length) ? 1 : -1;
    case TEXT:
        return put_text(b, index, p, length) ? 1 : -1;
    default:
        return 0;
    }
}

static int row(builder *b, const uint8_t *p, const uint8_t *end) {
    if (!reserve_row(b)) return NO_MEMORY;
    for (int32_t i = 0; i < b->count; i++) {
        int64_t length, stored = -1;
        b->at = i;
        const uint8_t *text = length_of(p, end, &length);
        if (text == NULL || (length > 0 && length > end - text)) return BROKEN;
        p = text + (length > 0 ? length : 0);
        if (b->columns[i].spec.form == STORED) { /* behind it, the bytes of text that has no UTF-8 form */
            const uint8_t *raw = length_of(p, end, &stored);
            if (raw == NULL || (stored > 0 && stored > end - raw)) return BROKEN;
            p = raw + (stored > 0 ? stored : 0);
            if (stored >= 0) {
                if (!put_misfit(b, i, NO_UTF8_FORM, raw, stored)) return NO_MEMORY;
                continue;
            }
        }
        if (length < 0) {
            if (!set_null(b, i)) return NO_MEMORY;
            continue;
        }
        int done = value(b, i, text, length);
        if (done < 0) return NO_MEMORY;
        if (!done && !put_misfit(b, i, NO_SUCH_VALUE, text, length)) return NO_MEMORY;
    }
    if (p != end) return BROKEN;
    end_row(b);
    return MORE;
}

result_set *jivs_mysql_new(int32_t fields) {
    result_set *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->fields = fields;
    r->sequence = 1;
    return r;
}

void jivs_mysql_free(result_set *r) { free(r); }

/* The payload that the stream begins with, joined if it came in several packets. *size is 0 if it is not all there yet;
   *framed counts its bytes with the heads. MORE or BROKEN. */
static int payload(stream *s, int64_t *size, int64_t *framed, int32_t *packets) {
    int64_t at = s->start, joined = 0;
    *size = *framed = 0;
    for (*packets = 0;;) {
        if (s->end - at < 4) {
            s->need = at - s->start + 4;
            return MORE;
        }
        int64_t length = le24(s->buffer + at);
        joined += length;
        at += 4 + length;
        ++*packets;
        if (s->end < at) {
            s->need = at - s->start;
            return MORE;
        }
        if (length < LARGEST_PACKET) break;
    }
    *framed = at - s->start;
    *size = joined;
    return MORE;
}

/* Close the gaps that the heads of further packets leave. */
static void join(stream *s, int32_t packets) {
    uint8_t *to = s->buffer + s->start + 4, *from = to;
    for (int32_t i = 0; i < packets; i++) {
        int64_t length = le24(from - 4);
        uint8_t *next = from + length + 4;
        if (to != from) memmove(to, from, (size_t)length); /* ends before the next head */
        to += length;
        from = next;
    }
}

static int in_sequence(stream *s, result_set *r, int32_t packets) {
    int64_t at = s->start;
    for (int32_t i = 0; i < packets; i++) {
        if (s->buffer[at + 3] != (uint8_t)r->sequence) return 0;
        r->sequence = (r->sequence + 1) & 0xff;
        at += 4 + (int64_t)le24(s->buffer + at);
    }
    return 1;
}

/* Decode from the stream until the batch is full or something else comes. ASIDE: the payload behind the first four bytes is
   the server's error. See enum state. */
int jivs_mysql_read(stream *s, result_set *r, builder *b, const batch_limits *limits) {
    const uint16_t one = 1;
    if (*(const uint8_t *)&one != 1) return BROKEN; /* little-endian machines only */
    for (;;) {
        int64_t size, framed;
        int32_t packets;
        if (r->phase == OVER) return END;
        if (b->rows >= limits->rows || b->bytes >= limits->bytes) return FULL;
        payload(s, &size, &framed, &packets);
        if (framed == 0 || framed > limits->heavy) {
            int64_t known = framed ? framed : s->need;
            if (known > limits->heavy) {
                if (b->rows) return FULL;
                s->need = known;
                return HEAVY;
            }
            int state = jivs_stream_fill(s, s->need);
            if (state != MORE) return state;
            if (s->fd < 0) return MORE;
            continue;
        }
        uint8_t *p = s->buffer + s->start + 4;
        if (size == 0) return BROKEN;
        if (*p == 0xff) return ASIDE;
        if (!in_sequence(s, r, packets)) return BROKEN;
        int state = MORE;
        if (r->phase == COUNT) {
            int64_t count;
            const uint8_t *end = length_of(p, p + size, &count);
            if (end != p + size || count != r->fields) return BROKEN;
            r->left = r->fields;
            r->phase = r->fields ? DEFINITIONS : DEFINITIONS_END;
        } else if (r->phase == DEFINITIONS) {
            if (--r->left == 0) r->phase = DEFINITIONS_END;
        } else if (*p == 0xfe && size < 9) {
            r->phase = r->phase == ROWS ? OVER : ROWS;
        } else if (r->phase == DEFINITIONS_END) {
            return BROKEN;
        } else {
            if (packets > 1) join(s, packets);
            state = row(b, p, p + size);
            if (state != MORE) return state;
        }
        s->start += framed;
    }
}
