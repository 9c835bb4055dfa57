/* JSON Lines (RFC 8259 in UTF-8, an object a line) into columns. Only lines that are ordinary in every respect are taken; any
   other is put aside for the plain reader in Python, whose rules decide: it is this one's twin. */
#include "text.h"


static const char *const NAMES[] = {"string", "integer", "number", "bool", "null", "json", "absent"};
#define ABSENT 6

json_reader *jivs_json_new(void) { return calloc(1, sizeof(json_reader)); }

void jivs_json_free(json_reader *r) {
    if (r == NULL) return;
    free(r->scratch);
    free(r);
}

static const uint8_t *space(const uint8_t *p, const uint8_t *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')) p++;
    return p;
}

static int hex4(const uint8_t *p, uint32_t *out) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i];
        uint32_t digit = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10) : 16;
        if (digit > 15) return 0;
        value = value << 4 | digit;
    }
    *out = value;
    return 1;
}

/* Behind the string whose opening quote is at p; NULL: out of the ordinary. *escaped counts its backslashes. */
static const uint8_t *string(const uint8_t *p, const uint8_t *end, int64_t *escaped) {
    *escaped = 0;
    for (p++; p < end; p++) {
        if (*p == '"') return p + 1;
        if (*p < 0x20) return NULL;
        if (*p != '\\') continue;
        ++*escaped;
        if (++p == end) return NULL;
        if (*p == 'u') {
            uint32_t code;
            if (end - p < 5 || !hex4(p + 1, &code)) return NULL;
            p += 4;
            if (code >= 0xdc00 && code < 0xe000) return NULL; /* half of a pair */
            if (code >= 0xd800 && code < 0xdc00) {
                if (end - p < 7 || p[1] != '\\' || p[2] != 'u' || !hex4(p + 3, &code) || code < 0xdc00 || code >= 0xe000) return NULL;
                p += 6;
            }
        } else if (memchr("\"\\/bfnrt", *p, 8) == NULL) {
            return NULL;
        }
    }
    return NULL;
}

/* The text of a string that ``string`` has accepted, without its escapes. -1: no memory. */
static int64_t unescape(json_reader *r, const uint8_t *p, const uint8_t *end) {
    if (end - p > r->capacity) {
        int64_t capacity = 2 * (end - p);
        uint8_t *larger = realloc(r->scratch, (size_t)capacity);
        if (larger == NULL) return -1;
        r->scratch = larger;
        r->capacity = capacity;
    }
    uint8_t *out = r->scratch;
    while (p < end) {
        if (*p != '\\') {
            *out++ = *p++;
            continue;
        }
        uint8_t c = p[1];
        p += 2;
        if (c != 'u') {
            const char *from = "\"\\/bfnrt", *to = "\"\\/\b\f\n\r\t";
            *out++ = (uint8_t)to[(const char *)memchr(from, c, 8) - from];
            continue;
        }
        uint32_t code = 0, low = 0;
        hex4(p, &code);
        p += 4;
        if (code >= 0xd800 && code < 0xdc00) {
            hex4(p + 2, &low);
            p += 6;
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        if (code < 0x80) {
            *out++ = (uint8_t)code;
        } else if (code < 0x800) {
            *out++ = (uint8_t)(0xc0 | code >> 6);
            *out++ = (uint8_t)(0x80 | (code & 63));
        } else if (code < 0x10000) {
            *out++ = (uint8_t)(0xe0 | code >> 12);
            *out++ = (uint8_t)(0x80 | (code >> 6 & 63));
            *out++ = (uint8_t)(0x80 | (code & 63));
        } else {
            *out++ = (uint8_t)(0xf0 | code >> 18);
            *out++ = (uint8_t)(0x80 | (code >> 12 & 63));
            *out++ = (uint8_t)(0x80 | (code >> 6 & 63));
            *out++ = (uint8_t)(0x80 | (code & 63));
        }
    }
    return out - r->scratch;
}

#define LONGEST_NUMBER 400

/* Behind the number at p; NULL: none, or out of the ordinary. */
static const uint8_t *number(const uint8_t *p, const uint8_t *end, int *class, int64_t *value) {
    const uint8_t *begin = p;
    int negative = *p == '-', digits = 0;
    uint64_t magnitude = 0;
    int fits = 1;
    *class = INTEGER;
    p += negative;
    if (p == end || *p < '0' || *p > '9') return NULL;
    if (*p == '0' && p + 1 < end && p[1] >= '0' && p[1] <= '9') return NULL;
    for (; p < end && *p >= '0' && *p <= '9'; p++, digits++) {
        if (magnitude > (UINT64_MAX - 9) / 10) fits = 0;
        if (fits) magnitude = magnitude * 10 + (uint64_t)(*p - '0');
    }
    if (p < end && *p == '.') {
        *class = NUMBER;
        p++;
        if (p == end || *p < '0' || *p > '9') return NULL;
        while (p < end && *p >= '0' && *p <= '9') p++;
    }
    if (p < end && (*p | 32) == 'e') {
        *class = NUMBER;
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        if (p == end || *p < '0' || *p > '9') return NULL;
        while (p < end && *p >= '0' && *p <= '9') p++;
    }
    if (p - begin > LONGEST_NUMBER) return NULL;
    if (*class == INTEGER) {
        if (!fits || magnitude > (uint64_t)INT64_MAX + (uint64_t)negative || (negative && magnitude == 0))
            *class = NUMBER;
        else
            *value = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    }
    return p;
}

#define DEEPEST 64

/* Behind the value at p, whatever it is; NULL: none, or out of the ordinary. */
static const uint8_t *any(const uint8_t *p, const uint8_t *end, int depth) {
    int64_t ignored;
    int class;
    p = space(p, end);
    if (p == end || depth == 0) return NULL;
    if (*p == '"') return string(p, end, &ignored);
    if (end - p >= 4 && (memcmp(p, "true", 4) == 0 || memcmp(p, "null", 4) == 0)) return p + 4;
    if (end - p >= 5 && memcmp(p, "false", 5) == 0) return p + 5;
    if (*p != '{' && *p != '[') return number(p, end, &class, &ignored);
    uint8_t close = *p == '{' ? '}' : ']';
    p = space(p + 1, end);
    if (p < end && *p == close) return p + 1;
    for (;;) {
        if (close == '}') {
            if (p == end || *p != '"' || (p = string(p, end, &ignored)) == NULL) return NULL;
            p = space(p, end);
            if (p == end || *p != ':') return NULL;
            p++;
        }
        if ((p = any(p, end, depth - 1)) == NULL) return NULL;
        p = space(p, end);
        if (p == end) return NULL;
        if (*p == close) return p + 1;
        if (*p != ',') return NULL;
        p = space(p + 1, end);
    }
}

/* A member's value into its columns. Where it ends; NULL: out of the ordinary, or no memory (then *memory is 0). */
static const uint8_t *member(json_reader *r, json_key *k, builder *b, const uint8_t *p, const uint8_t *end, int *memory) {
    const uint8_t *begin = p, *text = p;
    int64_t length = 0, escaped = 0, value = 0;
    int class, done = 1;
    if (*p == '"') {
        class = STRING;
        p = string(p, end, &escaped);
    } else if (*p == '{' || *p == '[') {
        class = NESTED;
        p = any(p, end, DEEPEST);
    } else if (end - p >= 4 && memcmp(p, "null", 4) == 0) {
        class = NOTHING;
        p += 4;
    } else if ((end - p >= 4 && memcmp(p, "true", 4) == 0) || (end - p >= 5 && memcmp(p, "false", 5) == 0)) {
        class = TRUTH;
        p += *p == 't' ? 4 : 5;
    } else {
        p = number(p, end, &class, &value);
    }
    if (p == NULL) return NULL;
    k->class = class;
    if (b == NULL) return p;
    if (k->tag >= 0) done = put_bytes(b, k->tag, (const uint8_t *)NAMES[class], (int64_t)strlen(NAMES[class]));
    if (done && k->column >= 0) {
        b->at = k->column;
        column *c = &b->columns[k->column];
        if (class == NOTHING) {
            done = set_null(b, k->column);
        } else if (c->spec.kind == INT64 && class == INTEGER) {
            put8(c, b->rows, (uint64_t)value);
        } else if (c->spec.kind == BOOL && class == TRUTH) {
            if (*begin == 't') c->values[b->rows / 8] |= (uint8_t)(1u << (b->rows % 8));
        } else if (c->spec.kind != TEXT) {
            return NULL; /* of another class than in the first pass */
        } else if (class == STRING) {
            text = begin + 1;
            length = p - begin - 2;
            if (escaped) {
                length = unescape(r, text, p - 1);
                text = r->scratch;
            }
            done = length >= 0 && put_text(b, k->column, text, length);
        } else {
            done = put_text(b, k->column, begin, p - begin);
        }
    }
    *memory = done;
    return done ? p : NULL;
}

static json_key *find(json_reader *r, const uint8_t *name, int64_t length, int32_t *guess) {
    for (int32_t i = 0; i < r->count; i++) { /* members mostly come in the same order */
        int32_t at = *guess + i < r->count ? *guess + i : *guess + i - r->count;
        if (r->keys[at].length == length && memcmp(r->keys[at].name, name, (size_t)length) == 0) {
            *guess = at + 1 < r->count ? at + 1 : 0;
            return &r->keys[at];
        }
    }
    return NULL;
}

/* What the keys hold that a row does not have. 0: no memory. */
static int absent(json_reader *r, builder *b, int64_t row) {
    for (int32_t i = 0; i < r->count; i++) {
        json_key *k = &r->keys[i];
        if (k->seen == row) {
            k->counts[k->class]++;
            continue;
        }
        if (b == NULL) continue;
        if (k->column >= 0 && !set_null(b, k->column)) return 0;
        if (k->tag >= 0 && !put_bytes(b, k->tag, (const uint8_t *)NAMES[ABSENT], (int64_t)strlen(NAMES[ABSENT]))) return 0;
    }
    return 1;
}

/* The object of a line. 1: taken, 0: out of the ordinary, -1: no memory. */
static int object(json_reader *r, builder *b, const uint8_t *p, const uint8_t *end) {
    int32_t guess = 0;
    int memory = 1;
    int64_t escaped, row = r->records + 1;
    p = space(p, end);
    if (p == end || *p != '{') return 0;
    p = space(p + 1, end);
    if (p < end && *p == '}') {
        p++;
    } else {
        for (;;) {
            if (p == end || *p != '"') return 0;
            const uint8_t *name = p + 1;
            if ((p = string(p, end, &escaped)) == NULL) return 0;
            int64_t length = p - name - 1;
            if (escaped) {
                if ((length = unescape(r, name, p - 1)) < 0) return -1;
                name = r->scratch;
            }
            json_key *k = find(r, name, length, &guess);
            if (k == NULL || k->seen == row) return 0;
            k->seen = row;
            p = space(p, end);
            if (p == end || *p != ':') return 0;
            p = space(p + 1, end);
            if (p == end) return 0;
            if ((p = member(r, k, b, p, end, &memory)) == NULL) return memory ? 0 : -1;
            p = space(p, end);
            if (p == end) return 0;
            if (*p == '}') {
                p++;
                break;
            }
            if (*p != ',') return 0;
            p = space(p + 1, end);
        }
    }
    return space(p, end) != end ? 0 : absent(r, b, row) ? 1 : -1;
}

/* Lines from the stream until the batch is full. ASIDE: the next line, r->length bytes, is for the plain reader;
   jivs_json_skip consumes it. HEAVY: a line is larger than the largest. b NULL: classes are counted only. */
int jivs_json_read(json_reader *r, stream *s, builder *b, const batch_limits *limits) {
    for (;;) {
        if (b != NULL && (b->rows >= limits->rows || b->bytes >= limits->bytes)) return FULL;
        if (s->start == s->end && r->ended) return END;
        const uint8_t *p = s->buffer + s->start, *end = s->buffer + s->end;
        const uint8_t *stop = s->start < s->end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (stop == NULL && !r->ended) {
            if (end - p > r->largest) return HEAVY;
            s->need = end - p + 1;
            return MORE;
        }
        stop = stop == NULL ? end : stop + 1;
        if (stop - p > r->largest) return HEAVY;
        if (space(p, stop) != stop) {
            int64_t bytes = b != NULL ? b->bytes : 0;
            if (b != NULL && !reserve_row(b)) return NO_MEMORY;
            int taken = r->counting ? 1 : object(r, b, p, stop);
            if (taken < 0) return NO_MEMORY;
            if (!taken) {
                if (b != NULL) {
                    undo_row(b, b->count);
                    b->bytes = bytes;
                }
                r->records++; /* so that its half-seen keys do not count for the next */
                r->length = stop - p;
                return ASIDE;
            }
            if (b != NULL) end_row(b);
            r->records++;
        }
        s->start += stop - p;
        r->line++;
    }
}

/* Go on behind the line that was put aside. */
void jivs_json_skip(json_reader *r, stream *s) {
    s->start += r->length;
    r->line++;
}

/* A member of the line that was put aside, as the plain reader has read it, into the row that is next. 0: no memory. */
int jivs_json_cell(json_reader *r, builder *b, int32_t key, int32_t class, const uint8_t *text, int64_t length) {
    json_key *k = &r->keys[key];
    int64_t value;
    int kind;
    k->seen = -r->records; /* of no row that is read from the stream */
    k->class = class;
    if (k->tag >= 0 && !put_bytes(b, k->tag, (const uint8_t *)NAMES[class], (int64_t)strlen(NAMES[class]))) return 0;
    if (k->column < 0) return 1;
    column *c = &b->columns[k->column];
    if (class == NOTHING) return set_null(b, k->column);
    if (c->spec.kind == TEXT) return put_text(b, k->column, text, length);
    if (c->spec.kind == INT64 && class == INTEGER && number(text, text + length, &kind, &value) && kind == INTEGER) {
        put8(c, b->rows, (uint64_t)value);
        return 1;
    }
    if (c->spec.kind == BOOL && class == TRUTH) {
        if (*text == 't') c->values[b->rows / 8] |= (uint8_t)(1u << (b->rows % 8));
        return 1;
    }
    return put_misfit(b, k->column, NO_SUCH_VALUE, text, length);
}

/* Its members are complete. 0: no memory. */
int jivs_json_row(json_reader *r, builder *b) {
    if (!absent(r, b, -r->records)) return 0;
    end_row(b);
    return 1;
}
