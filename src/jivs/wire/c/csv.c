/* CSV (RFC 4180) in UTF-8, as strict as Python's csv module with strict=True, which is its twin: the states below are those of
   CPython's Modules/_csv.c. What is no record is not repaired: it is handed over with its bytes. */
#include "text.h"

enum trouble { NO_TROUBLE = 0, NO_RECORD = 1, OTHER_WIDTH = 2, EMPTY = 3 };

static int keep(csv_reader *r, int64_t held, const uint8_t *from, int64_t length) {
    if (held + length > r->scratch_capacity) {
        int64_t capacity = 2 * (held + length);
        uint8_t *larger = realloc(r->scratch, (size_t)capacity);
        if (larger == NULL) return 0;
        r->scratch = larger;
        r->scratch_capacity = capacity;
    }
    if (length) memcpy(r->scratch + held, from, (size_t)length);
    return 1;
}

csv_reader *jivs_csv_new(void) { return calloc(1, sizeof(csv_reader)); }

void jivs_csv_free(csv_reader *r) {
    if (r == NULL) return;
    free(r->scratch);
    free(r);
}

/* One field into its column. 0: no memory. */
static int field(csv_reader *r, builder *b, int32_t number, const uint8_t *p, int64_t length) {
    if (b == NULL || number >= r->width || r->places[number] < 0) return 1;
    int32_t index = r->places[number];
    b->at = index;
    if (r->null != NULL) {
        if (length == r->null_length && memcmp(p, r->null, (size_t)length) == 0) return set_null(b, index);
    } else if (length == 0 && r->narrow[index]) {
        return set_null(b, index);
    }
    return put_text(b, index, p, length);
}

typedef struct {
    int state;        /* MORE: not all of it is there */
    int32_t fields;
    int trouble;
    int64_t length, lines;
} record;

static const uint8_t *line_end(const uint8_t *p, const uint8_t *end) {
    const uint8_t *found = memchr(p, '\n', (size_t)(end - p));
    return found == NULL ? end : found + 1;
}

/* A quoted field that begins at p, behind its quote. Sets the text and where it goes on; NULL: not all of it is there, or no
   memory (then *length is -1). */
static const uint8_t *quoted(csv_reader *r, const uint8_t *p, const uint8_t *end, int64_t *lines, const uint8_t **text, int64_t *length) {
    const uint8_t *begin = p;
    int64_t held = 0;
    *length = 0;
    for (;;) {
        const uint8_t *q = memchr(p, r->quote, (size_t)(end - p));
        const uint8_t *stop = q == NULL ? end : q;
        for (const uint8_t *n = p; n < stop && (n = memchr(n, '\n', (size_t)(stop - n))) != NULL; n++) ++*lines;
        if (q == NULL || (q + 1 == end && !r->ended)) return NULL;
        if (q + 1 < end && q[1] == r->quote) { /* doubled: one of them belongs to the text */
            int64_t part = q + 1 - begin;
            if (!keep(r, held, begin, part)) {
                *length = -1;
                return NULL;
            }
            held += part;
            p = begin = q + 2;
            continue;
        }
        int64_t part = q - begin;
        if (held == 0) {
            *text = begin;
            *length = part;
            return q + 1;
        }
        if (!keep(r, held, begin, part)) {
            *length = -1;
            return NULL;
        }
        *text = r->scratch;
        *length = held + part;
        return q + 1;
    }
}

/* The record that begins at p, into the builder (NULL: only looked at). */
static record parse(csv_reader *r, builder *b, const uint8_t *begin, const uint8_t *end) {
    record out = {.state = MORE};
    const uint8_t *p = begin;
    /* A line that holds nothing but its end is a record without fields. */
    const uint8_t *q = p;
    while (q < end && *q == '\r') q++;
    if (q < end ? *q == '\n' : r->ended) {
        out = (record){.state = END, .trouble = EMPTY, .length = q < end ? q + 1 - begin : q - begin, .lines = 1};
        return out;
    }
    for (;;) {
        const uint8_t *text = p;
        int64_t length;
        if (r->quote && p < end && *p == r->quote) {
            p = quoted(r, p + 1, end, &out.lines, &text, &length);
            if (p == NULL) {
                if (length < 0) {
                    out.state = NO_MEMORY;
                } else if (r->ended) { /* the quote is never closed */
                    out = (record){.state = END, .trouble = NO_RECORD, .length = end - begin};
                    for (const uint8_t *n = begin; n < end; n++) out.lines += *n == '\n' || n + 1 == end;
                }
                return out;
            }
        } else {
            while (p < end && *p != r->delimiter && *p != '\n' && *p != '\r') p++;
            length = p - text;
        }
        if (p == end && !r->ended) return out;
        if (!field(r, b, out.fields, text, length)) {
            out.state = NO_MEMORY;
            return out;
        }
        out.fields++;
        if (p < end && *p == r->delimiter) {
            p++;
            if (p == end && r->ended) { /* an empty last field, without an end of line */
                if (!field(r, b, out.fields, p, 0)) out.state = NO_MEMORY;
                out.fields++;
                break;
            }
            if (p == end) return out;
            continue;
        }
        const uint8_t *rest = p;
        while (rest < end && *rest == '\r') rest++;
        if (rest == end && !r->ended) return out;
        if (rest == end || *rest == '\n') {
            p = rest == end ? rest : rest + 1;
            break;
        }
        out.trouble = NO_RECORD; /* something behind a closed quote, or behind a carriage return: the line is lost */
        p = line_end(rest, end);
        if (p == end && end[-1] != '\n' && !r->ended) return out;
        break;
    }
    if (out.state == NO_MEMORY) return out;
    out.state = END;
    out.length = p - begin;
    out.lines++;
    return out;
}

/* Records from the stream until the batch is full. ASIDE: the next bytes, r->length of them, are no record of this width; they
   are consumed by jivs_csv_skip. HEAVY: a record is larger than the largest. b NULL: records are counted only. */
int jivs_csv_read(csv_reader *r, stream *s, builder *b, const batch_limits *limits) {
    for (;;) {
        if (b != NULL && (b->rows >= limits->rows || b->bytes >= limits->bytes)) return FULL;
        if (s->start == s->end && r->ended) return END;
        if (b != NULL && !reserve_row(b)) return NO_MEMORY;
        if (r->skip && s->start < s->end) {
            record head = parse(r, NULL, s->buffer + s->start, s->buffer + s->end);
            if (head.state == END) {
                r->skip = 0;
                s->start += head.length;
                r->line += head.lines;
                continue;
            }
        }
        int64_t bytes = b != NULL ? b->bytes : 0;
        record one = s->start == s->end || r->skip ? (record){.state = MORE} : parse(r, b, s->buffer + s->start, s->buffer + s->end);
        if (one.state == NO_MEMORY) return NO_MEMORY;
        if (one.state == MORE) {
            if (b != NULL) undo_row(b, b->count);
            if (s->end - s->start > r->largest) return HEAVY;
            s->need = s->end - s->start + 1;
            return MORE;
        }
        if (one.length > r->largest) return HEAVY;
        if (one.trouble == EMPTY && r->width == 1) { /* its one field is empty */
            one.trouble = NO_TROUBLE;
            one.fields = 1;
            if (!field(r, b, 0, (const uint8_t *)"", 0)) return NO_MEMORY;
        } else if (one.trouble == NO_TROUBLE && one.fields != r->width) {
            one.trouble = OTHER_WIDTH;
        }
        r->records++;
        if (one.trouble != NO_TROUBLE && b != NULL) {
            undo_row(b, b->count);
            b->bytes = bytes;
            r->trouble = one.trouble;
            r->fields = one.fields;
            r->length = one.length;
            r->lines = one.lines;
            return ASIDE;
        }
        if (b != NULL) end_row(b);
        s->start += one.length;
        r->line += one.lines;
    }
}

/* Go on behind the record that jivs_csv_read has put aside. */
void jivs_csv_skip(csv_reader *r, stream *s) {
    s->start += r->length;
    r->line += r->lines;
}
