/* The row hash of the archive format: canonical text of every value of a row, MD5 of the row's text, the last 60 bits.
   Sources: docs/verification.md; RFC 1321 for MD5. Eight rows are hashed at a time, one in each lane of a vector. */
#include "canonical.h"
#include "jivs.h"

#define LONG 1024 /* a longer value enters as its MD5 */
#define MARGIN (LONG + 64)

/* A column of a batch in archive form, as Arrow lays it out; offsets in rows. */
typedef struct {
    int32_t kind;
    int32_t scale;
    int64_t offset;          /* of values and validity */
    const uint8_t *validity; /* or NULL: no NULLs */
    const uint8_t *values;   /* fixed width, or bytes */
    const int32_t *offsets;  /* of bytes */
    const uint8_t *second, *third;           /* a structure's other children; values is the first */
    int64_t first_offset, second_offset, third_offset;
    const uint8_t *beyond_validity, *beyond; /* texts beside the column, or NULL */
    const int32_t *beyond_offsets;
    int64_t beyond_offset;
} hash_column;

static const uint32_t K[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af,
    0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa,
    0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8,
    0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244, 0x432aff97,
    0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1,
    0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define F(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define G(x, y, z) ((y) ^ ((z) & ((x) ^ (y))))
#define H(x, y, z) ((x) ^ (y) ^ (z))
#define I(x, y, z) ((y) ^ ((x) | ~(z)))
#define STEP(f, a, b, c, d, w, i, s) a = b + ROTATE(a + f(b, c, d) + (w) + K[i], s)
#define FOUR(f, i, w0, w1, w2, w3, s0, s1, s2, s3) \
    STEP(f, a, b, c, d, w[w0], i, s0);             \
    STEP(f, d, a, b, c, w[w1], i + 1, s1);         \
    STEP(f, c, d, a, b, w[w2], i + 2, s2);         \
    STEP(f, b, c, d, a, w[w3], i + 3, s3)
#define ROUNDS                                                                                               \
    FOUR(F, 0, 0, 1, 2, 3, 7, 12, 17, 22);    FOUR(F, 4, 4, 5, 6, 7, 7, 12, 17, 22);                         \
    FOUR(F, 8, 8, 9, 10, 11, 7, 12, 17, 22);  FOUR(F, 12, 12, 13, 14, 15, 7, 12, 17, 22);                    \
    FOUR(G, 16, 1, 6, 11, 0, 5, 9, 14, 20);   FOUR(G, 20, 5, 10, 15, 4, 5, 9, 14, 20);                       \
    FOUR(G, 24, 9, 14, 3, 8, 5, 9, 14, 20);   FOUR(G, 28, 13, 2, 7, 12, 5, 9, 14, 20);                       \
    FOUR(H, 32, 5, 8, 11, 14, 4, 11, 16, 23); FOUR(H, 36, 1, 4, 7, 10, 4, 11, 16, 23);                       \
    FOUR(H, 40, 13, 0, 3, 6, 4, 11, 16, 23);  FOUR(H, 44, 9, 12, 15, 2, 4, 11, 16, 23);                      \
    FOUR(I, 48, 0, 7, 14, 5, 6, 10, 15, 21);  FOUR(I, 52, 12, 3, 10, 1, 6, 10, 15, 21);                      \
    FOUR(I, 56, 8, 15, 6, 13, 6, 10, 15, 21); FOUR(I, 60, 4, 11, 2, 9, 6, 10, 15, 21)

/* -- one value ------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t a, b, c, d;
    uint64_t length;
    uint8_t block[64];
} md5;

static void md5_block(md5 *m, const uint8_t *p) {
    uint32_t w[16], a = m->a, b = m->b, c = m->c, d = m->d;
    memcpy(w, p, 64); /* little-endian, as all machines that run this: see jivs_rowhash */
    ROUNDS;
    m->a += a;
    m->b += b;
    m->c += c;
    m->d += d;
}

static void md5_begin(md5 *m) { *m = (md5){.a = 0x67452301, .b = 0xefcdab89, .c = 0x98badcfe, .d = 0x10325476}; }

static void md5_add(md5 *m, const uint8_t *p, int64_t length) {
    while (length > 0) {
        int64_t used = (int64_t)(m->length % 64), part = 64 - used < length ? 64 - used : length;
        if (used == 0 && length >= 64) {
            md5_block(m, p);
            part = 64;
        } else {
            memcpy(m->block + used, p, (size_t)part);
            if (used + part == 64) md5_block(m, m->block);
        }
        m->length += (uint64_t)part;
        p += part;
        length -= part;
    }
}

static const char HEX[] = "0123456789abcdef";

static void md5_hex(md5 *m, uint8_t *out) {
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = m->length * 8;
    md5_add(m, padding, (int64_t)((119 - m->length % 64) % 64 + 1));
    md5_add(m, (const uint8_t *)&bits, 8);
    uint32_t words[4] = {m->a, m->b, m->c, m->d};
    for (int i = 0; i < 16; i++) {
        uint8_t byte = (uint8_t)(words[i / 4] >> (8 * (i % 4)));
        *out++ = (uint8_t)HEX[byte >> 4];
        *out++ = (uint8_t)HEX[byte & 15];
    }
}

/* -- eight rows ------------------------------------------------------------------------------------------------------ */

typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VECTOR __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define VECTOR
#endif

/* The hashes of eight texts that are padded to whole blocks. */
VECTOR void hash_lines(const line *lines, uint64_t *out) {
    lanes a0, b0, c0, d0;
    int64_t most = 0;
    for (int i = 0; i < LANES; i++) {
        if (lines[i].used > most) most = lines[i].used;
        a0[i] = 0x67452301;
        b0[i] = 0xefcdab89;
        c0[i] = 0x98badcfe;
        d0[i] = 0x10325476;
    }
    for (int64_t at = 0; at < most; at += 64) {
        lanes w[16], alive, a = a0, b = b0, c = c0, d = d0;
        uint32_t words[16][LANES];
        for (int i = 0; i < LANES; i++) {
            uint32_t line_words[16];
            int on = at < lines[i].used;
            memcpy(line_words, lines[i].text + (on ? at : 0), 64);
            for (int j = 0; j < 16; j++) words[j][i] = line_words[j];
            alive[i] = on ? 0xffffffffu : 0;
        }
        memcpy(w, words, sizeof w);
        ROUNDS;
        a0 += a & alive;
        b0 += b & alive;
        c0 += c & alive;
        d0 += d & alive;
    }
    /* The last 15 of 32 hex digits: bytes 8 to 15 without the first half of byte 8. */
    for (int i = 0; i < LANES; i++)
        out[i] = ((uint64_t)__builtin_bswap32(c0[i]) << 32 | __builtin_bswap32(d0[i])) & 0x0fffffffffffffffu;
}

static const char PAIRS[201] =
    "000102030405060708091011121314151617181920212223242526272829303132333435363738394041424344454647484950515253545556575859"
    "60616263646566676869707172737475767778798081828384858687888990919293949596979899";

/* Decimal digits written to end before ``end``; where they begin. */
static inline uint8_t *digits_before(uint8_t *end, uint64_t value) {
    while (value >= 100) {
        end -= 2;
        memcpy(end, PAIRS + 2 * (value % 100), 2);
        value /= 100;
    }
    if (value >= 10) {
        end -= 2;
        memcpy(end, PAIRS + 2 * value, 2);
    } else {
        *--end = (uint8_t)('0' + value);
    }
    return end;
}

static inline uint8_t *signed_before(uint8_t *end, int64_t value) {
    uint8_t *begin = digits_before(end, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    if (value < 0) *--begin = '-';
    return begin;
}

/* ``<length>:`` and the bytes, which are fewer than 100. */
static inline uint8_t *piece(uint8_t *out, const uint8_t *text, int64_t length) {
    if (length >= 10) *out++ = (uint8_t)('0' + length / 10);
    *out++ = (uint8_t)('0' + length % 10);
    *out++ = ':';
    memcpy(out, text, (size_t)length);
    return out + length;
}

static inline int digit_count(uint64_t value) {
    int guess = (64 - __builtin_clzll(value | 1)) * 1233 >> 12; /* log10(2) is about 1233 / 4096 */
    return guess + (guess < 20 && value >= TENS[guess]) + (value == 0);
}

/* ``<length>:``, a sign and digits, written in place. */
static inline uint8_t *number(uint8_t *out, uint64_t magnitude, int negative) {
    int length = digit_count(magnitude) + negative;
    if (length >= 10) *out++ = (uint8_t)('0' + length / 10);
    *out++ = (uint8_t)('0' + length % 10);
    *out++ = ':';
    if (negative) *out = '-';
    digits_before(out + length, magnitude);
    return out + length;
}

static inline uint8_t *integer(uint8_t *out, int64_t value) {
    return number(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0);
}

static uint8_t *unsigned_integer(uint8_t *out, uint64_t value) { return number(out, value, 0); }

static inline uint8_t *decimal(uint8_t *out, const uint8_t *p, int scale) {
    __int128 value;
    memcpy(&value, p, 16);
    unsigned __int128 rest = value < 0 ? -(unsigned __int128)value : (unsigned __int128)value;
    if (scale > 0 && scale < 19 && rest >> 63 == 0) { /* the common case: in place */
        uint64_t whole = (uint64_t)rest / TENS[scale], part = (uint64_t)rest % TENS[scale];
        int length = (value < 0) + digit_count(whole) + 1 + scale;
        if (length >= 10) *out++ = (uint8_t)('0' + length / 10);
        *out++ = (uint8_t)('0' + length % 10);
        *out++ = ':';
        if (value < 0) *out = '-';
        uint8_t *end = out + length, *point = end - scale - 1, *begin = digits_before(end, part);
        while (begin > point + 1) *--begin = '0';
        *point = '.';
        digits_before(point, whole);
        return end;
    }
    uint8_t text[96], *end = text + sizeof text, *begin = end;
    while (rest >> 63) {
        uint64_t part = (uint64_t)(rest % 1000000000000000000u);
        rest /= 1000000000000000000u;
        uint8_t *low = begin - 18;
        begin = digits_before(begin, part);
        while (begin > low) *--begin = '0';
    }
    uint64_t top = (uint64_t)rest;
    if (top || begin == end) begin = digits_before(begin, top);
    if (scale > 0) {
        while (end - begin <= scale) *--begin = '0'; /* one digit before the point at least */
        int64_t whole = end - begin - scale;
        memmove(begin - 1, begin, (size_t)whole);
        begin--;
        begin[whole] = '.';
    }
    if (value < 0) *--begin = '-';
    return piece(out, begin, end - begin);
}

static uint8_t *length_head(uint8_t *out, int64_t length) {
    uint8_t text[24], *end = text + sizeof text, *begin = digits_before(end, (uint64_t)length);
    memcpy(out, begin, (size_t)(end - begin));
    out += end - begin;
    *out++ = ':';
    return out;
}

static inline uint8_t *bytes(uint8_t *out, const uint8_t *p, int64_t length) {
    if (length < 100) {
        if (length >= 10) *out++ = (uint8_t)('0' + length / 10);
        *out++ = (uint8_t)('0' + length % 10);
        *out++ = ':';
        copy_bytes(out, p, length);
        return out + length;
    }
    out = length_head(out, length);
    if (length <= LONG) {
        memcpy(out, p, (size_t)length);
        return out + length;
    }
    md5 m;
    md5_begin(&m);
    md5_add(&m, p, length);
    memcpy(out, "md5:", 4);
    md5_hex(&m, out + 4);
    return out + 36;
}

static uint8_t *hex(uint8_t *out, const uint8_t *p, int64_t length) {
    out = length_head(out, 2 * length);
    if (2 * length <= LONG) {
        for (int64_t i = 0; i < length; i++) {
            *out++ = (uint8_t)HEX[p[i] >> 4];
            *out++ = (uint8_t)HEX[p[i] & 15];
        }
        return out;
    }
    md5 m;
    uint8_t part[128];
    md5_begin(&m);
    for (int64_t i = 0; i < length; i += 64) {
        int64_t count = length - i < 64 ? length - i : 64;
        for (int64_t j = 0; j < count; j++) {
            part[2 * j] = (uint8_t)HEX[p[i + j] >> 4];
            part[2 * j + 1] = (uint8_t)HEX[p[i + j] & 15];
        }
        md5_add(&m, part, 2 * count);
    }
    memcpy(out, "md5:", 4);
    md5_hex(&m, out + 4);
    return out + 36;
}

static uint8_t *floating(uint8_t *out, double value) {
    int64_t bits = 9221120237041090560; /* every NaN */
    if (value == value) memcpy(&bits, &value, 8);
    return integer(out, bits);
}

/* Numbers with slashes between. */
static uint8_t *slashed(uint8_t *out, const int64_t *numbers, int count) {
    uint8_t text[96], *end = text + sizeof text, *begin = end;
    for (int i = count - 1; i >= 0; i--) {
        begin = signed_before(begin, numbers[i]);
        if (i) *--begin = '/';
    }
    return piece(out, begin, end - begin);
}

#define LOAD(type, name, base, row) \
    type name;                      \
    memcpy(&name, (base) + (int64_t)sizeof(type) * (row), sizeof(type))

static int bit(const uint8_t *bits, int64_t at) { return bits[at / 8] >> (at % 8) & 1; }

static inline uint8_t *value(uint8_t *out, const hash_column *c, int64_t row) {
    if (c->beyond != NULL && (c->beyond_validity == NULL || bit(c->beyond_validity, c->beyond_offset + row))) {
        int32_t from = c->beyond_offsets[c->beyond_offset + row], length = c->beyond_offsets[c->beyond_offset + row + 1] - from;
        const uint8_t *text = c->beyond + from;
        if (length == 8 && memcmp(text, "infinity", 8) == 0) return piece(out, (const uint8_t *)"inf", 3);
        if (length == 9 && memcmp(text, "-infinity", 9) == 0) return piece(out, (const uint8_t *)"-inf", 4);
        return bytes(out, text, length);
    }
    int64_t at = c->offset + row;
    if (c->validity != NULL && !bit(c->validity, at)) {
        *out = 'N';
        return out + 1;
    }
    switch (c->kind) {
    case BOOL:
        return integer(out, bit(c->values, at));
    case INT8:
        return integer(out, (int8_t)c->values[at]);
    case UINT8:
        return integer(out, c->values[at]);
    case INT16: {
        LOAD(int16_t, v, c->values, at);
        return integer(out, v);
    }
    case UINT16: {
        LOAD(uint16_t, v, c->values, at);
        return integer(out, v);
    }
    case INT32:
    case DATE: {
        LOAD(int32_t, v, c->values, at);
        return integer(out, v);
    }
    case UINT32: {
        LOAD(uint32_t, v, c->values, at);
        return integer(out, v);
    }
    case INT64:
    case TIME:
    case TIMESTAMP: {
        LOAD(int64_t, v, c->values, at);
        return integer(out, v);
    }
    case UINT64: {
        LOAD(uint64_t, v, c->values, at);
        return unsigned_integer(out, v);
    }
    case FLOAT: {
        LOAD(float, v, c->values, at);
        return floating(out, v);
    }
    case DOUBLE: {
        LOAD(double, v, c->values, at);
        return floating(out, v);
    }
    case DECIMAL:
        return decimal(out, c->values + 16 * at, c->scale);
    case UUID:
        return hex(out, c->values + 16 * at, 16);
    case TIMETZ: {
        LOAD(int64_t, time, c->values, c->first_offset + row);
        LOAD(int32_t, east, c->second, c->second_offset + row);
        return slashed(out, (int64_t[]){time, east}, 2);
    }
    case INTERVAL: {
        LOAD(int32_t, months, c->values, c->first_offset + row);
        LOAD(int32_t, days, c->second, c->second_offset + row);
        LOAD(int64_t, microseconds, c->third, c->third_offset + row);
        return slashed(out, (int64_t[]){months, days, microseconds}, 3);
    }
    default: {
        int32_t from = c->offsets[at], length = c->offsets[at + 1] - from;
        return c->kind == BINARY ? hex(out, c->values + from, length) : bytes(out, c->values + from, length);
    }
    }
}

int line_room(line *l, int64_t more) {
    if (l->capacity - l->used >= more) return 1;
    int64_t capacity = 2 * l->capacity + more;
    uint8_t *larger = realloc(l->text, (size_t)capacity);
    if (larger == NULL) return 0;
    l->text = larger;
    l->capacity = capacity;
    return 1;
}

int line_null(line *l) {
    if (!line_room(l, MARGIN)) return 0;
    l->text[l->used++] = 'N';
    return 1;
}

int line_integer(line *l, int64_t number) {
    if (!line_room(l, MARGIN)) return 0;
    l->used = integer(l->text + l->used, number) - l->text;
    return 1;
}

int line_double(line *l, double number) {
    if (!line_room(l, MARGIN)) return 0;
    l->used = floating(l->text + l->used, number) - l->text;
    return 1;
}

int line_bytes(line *l, const uint8_t *data, int64_t length) {
    if (!line_room(l, MARGIN)) return 0;
    l->used = bytes(l->text + l->used, data, length) - l->text;
    return 1;
}

int line_hex(line *l, const uint8_t *data, int64_t length) {
    if (!line_room(l, MARGIN)) return 0;
    l->used = hex(l->text + l->used, data, length) - l->text;
    return 1;
}

static int row_text(line *l, const hash_column *columns, int32_t count, int64_t row) {
    l->used = 0;
    for (int32_t i = 0; i < count; i++) {
        if (!line_room(l, MARGIN)) return 0;
        l->used = value(l->text + l->used, &columns[i], row) - l->text;
    }
    return line_end(l);
}

/* Pad to whole blocks, as MD5 wants it. */
int line_end(line *l) {
    if (!line_room(l, 128)) return 0;
    uint64_t bits = (uint64_t)l->used * 8;
    int64_t padded = (l->used + 9 + 63) / 64 * 64;
    memset(l->text + l->used, 0, (size_t)(padded - l->used));
    l->text[l->used] = 0x80;
    memcpy(l->text + padded - 8, &bits, 8);
    l->used = padded;
    return 1;
}

/* The hash of each row into each (or NULL), their sum modulo 2^64 into *sum. 0: no memory, or a big-endian machine. */
int jivs_rowhash(const hash_column *columns, int32_t count, int64_t rows, uint64_t *each, uint64_t *sum) {
    const uint16_t one = 1;
    line lines[LANES] = {{0}};
    uint64_t total = 0, hashes[LANES];
    int ok = *(const uint8_t *)&one == 1;
    for (int64_t from = 0; ok && from < rows; from += LANES) {
        int64_t here = rows - from < LANES ? rows - from : LANES;
        for (int64_t i = 0; ok && i < LANES; i++) {
            if (i < here) {
                ok = row_text(&lines[i], columns, count, from + i);
            } else {
                ok = line_room(&lines[i], 64);
                lines[i].used = 0;
            }
        }
        if (!ok) break;
        hash_lines(lines, hashes);
        for (int64_t i = 0; i < here; i++) {
            total += hashes[i];
            if (each != NULL) each[from + i] = hashes[i];
        }
    }
    for (int i = 0; i < LANES; i++) free(lines[i].text);
    *sum = total;
    return ok;
}
