/* SQLite: rows of a prepared statement into columns, by the functions of the library that Python itself uses.
   Source: SQLite, "C-language Interface Specification": Result Values From A Query. */
#include "canonical.h"
#include "jivs.h"
#include "tree.h"

enum { SQLITE_ROW = 100, SQLITE_DONE = 101 };

/* A value is asked for once and then looked at: each call on the statement itself costs a check of its own. The connection
   belongs to one thread, so its values need no protection. */
typedef struct {
    int (*step)(void *statement);
    void *(*value)(void *statement, int column);
    int (*type)(void *value);
    int64_t (*integer)(void *value);
    double (*real)(void *value);
    const unsigned char *(*text)(void *value);
    const void *(*blob)(void *value);
    int (*length)(void *value);
} functions;

/* A statement being stepped, or a walk over the file's own pages. */
typedef struct {
    void *statement;
    tree *walk;       /* NULL: the statement counts */
    int32_t standing; /* on a row that was not decoded yet */
    int64_t need;     /* bytes of a row that was too heavy */
} cursor;

/* Go to a row. MORE: there it is. END, STRANGE, NO_MEMORY, or ASIDE: the library has an error. */
static int next_row(cursor *c, const functions *f) {
    if (c->standing) return MORE;
    int state;
    if (c->walk != NULL) {
        state = tree_next(c->walk);
    } else {
        int code = f->step(c->statement);
        state = code == SQLITE_ROW ? MORE : code == SQLITE_DONE ? END : ASIDE;
    }
    c->standing = state == MORE;
    return state;
}

/* A value of the row: its class, and the length of a text or blob. MORE, STRANGE, NO_MEMORY. */
static inline int look(const cursor *c, const functions *f, int32_t column, item *out) {
    out->given = NULL;
    if (c->walk != NULL) return tree_item(c->walk, column, out);
    out->given = f->value(c->statement, column);
    out->class = f->type(out->given);
    if (out->class == TEXT_CLASS || out->class == BLOB_CLASS) out->length = f->length(out->given);
    return MORE;
}

/* The rest of what `look` found. 0: no memory. */
static inline int fetch(const functions *f, item *i) {
    if (i->given == NULL) return 1;
    if (i->class == INTEGER_CLASS) i->integer = f->integer(i->given);
    if (i->class == REAL_CLASS) i->real = f->real(i->given);
    if (i->class != TEXT_CLASS && i->class != BLOB_CLASS) return 1;
    /* The pointer first: asking for it may convert the value, and the length is that of the converted one. */
    i->data = i->class == TEXT_CLASS ? f->text(i->given) : f->blob(i->given);
    i->length = f->length(i->given);
    return i->data != NULL || (i->length == 0 && i->class == BLOB_CLASS);
}

static int put_hex(builder *b, int32_t index, const uint8_t *data, int64_t length) {
    varying *v = &b->columns[index].bytes;
    uint8_t *to = varying_room(v, 2 * length);
    if (to == NULL) return 0;
    for (int64_t i = 0; i < length; i++) {
        *to++ = (uint8_t)"0123456789abcdef"[data[i] >> 4];
        *to++ = (uint8_t)"0123456789abcdef"[data[i] & 15];
    }
    varying_end(b, v, 2 * length);
    return 1;
}

static int put_digits(builder *b, int32_t index, int64_t value) {
    uint8_t text[24], *end = text + sizeof text, *begin = end;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do *--begin = (uint8_t)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) *--begin = '-';
    return put_bytes(b, index, begin, end - begin);
}

/* A value of another class than its column's: its class and its bytes. */
static int other_class(builder *b, int32_t index, const item *i) {
    uint8_t head[9] = {(uint8_t)i->class};
    if (i->class == INTEGER_CLASS || i->class == REAL_CLASS) {
        memcpy(head + 1, i->class == INTEGER_CLASS ? (const void *)&i->integer : (const void *)&i->real, 8);
        return put_misfit(b, index, OTHER_CLASS, head, 9);
    }
    uint8_t *copy = malloc((size_t)i->length + 1);
    if (copy == NULL) return 0;
    copy[0] = (uint8_t)i->class;
    if (i->length) memcpy(copy + 1, i->data, (size_t)i->length);
    int done = put_misfit(b, index, OTHER_CLASS, copy, i->length + 1);
    free(copy);
    return done;
}

/* As a double, an integer of a numeric column that is one too. */
static inline void widen(int form, item *i) {
    const int64_t most = (int64_t)1 << 53;
    if (form != NUMERIC || i->class != INTEGER_CLASS || i->integer < -most || i->integer > most) return;
    i->class = REAL_CLASS;
    i->real = (double)i->integer;
}

static int put_item(builder *b, int32_t index, item *i) {
    column *c = &b->columns[index];
    int any = c->spec.form == ANY_CLASS, kind = c->spec.kind;
    if (i->class == NULL_CLASS) return set_null(b, index);
    if (kind == DOUBLE) widen(c->spec.form, i);
    if (i->class == INTEGER_CLASS && any) return put_digits(b, index, i->integer);
    if (i->class == INTEGER_CLASS && kind == INT64) {
        put8(c, b->rows, (uint64_t)i->integer);
        return 1;
    }
    if (i->class == REAL_CLASS && kind == DOUBLE) {
        memcpy(c->values + 8 * b->rows, &i->real, 8);
        return 1;
    }
    if (i->class == TEXT_CLASS && kind == TEXT) return put_text(b, index, i->data, i->length);
    if (i->class == BLOB_CLASS && any) return put_hex(b, index, i->data, i->length);
    if (i->class == BLOB_CLASS && kind == BINARY) return put_bytes(b, index, i->data, i->length);
    return other_class(b, index, i);
}

static inline int64_t weight(const item *i) { return i->class == TEXT_CLASS || i->class == BLOB_CLASS ? i->length : 0; }

/* Rows until the batch is full. FULL, HEAVY, END, NO_MEMORY; STRANGE: only the library can read on; ASIDE: it has an error. */
int jivs_sqlite_read(cursor *c, const functions *f, builder *b, const batch_limits *limits) {
    item i;
    for (;;) {
        if (b->rows >= limits->rows || b->bytes >= limits->bytes) return FULL;
        int state = next_row(c, f);
        if (state != MORE) return state;
        int64_t before = b->bytes;
        if (!reserve_row(b)) return NO_MEMORY;
        for (int32_t column = 0; column < b->count; column++) {
            b->at = column;
            if ((state = look(c, f, column, &i)) != MORE) {
                undo_row(b, column);
                return state;
            }
            if (weight(&i) && b->bytes - before + i.length > limits->heavy) {
                c->need = b->bytes - before + b->fixed;
                for (int32_t rest = column; rest < b->count; rest++) {
                    if ((state = look(c, f, rest, &i)) != MORE) break;
                    c->need += weight(&i);
                }
                undo_row(b, column);
                return state == MORE ? HEAVY : state;
            }
            if (!fetch(f, &i) || !put_item(b, column, &i)) return NO_MEMORY;
        }
        end_row(b);
        c->standing = 0;
    }
}

/* How many values of each class each column has: counts[5 * column + class - 1]. END, ASIDE, STRANGE, NO_MEMORY. */
int jivs_sqlite_census(cursor *c, const functions *f, int32_t columns, int64_t *counts) {
    for (;;) {
        int state = next_row(c, f);
        if (state != MORE) return state;
        for (int32_t column = 0; column < columns; column++) {
            int class;
            if (c->walk == NULL)
                class = f->type(f->value(c->statement, column));
            else if ((state = tree_class(c->walk, column, &class)) != MORE)
                return state;
            if (class >= 1 && class <= 5) counts[5 * column + class - 1]++;
        }
        c->standing = 0;
    }
}

/* A value into the text of its row. 0: no memory; -1: of another class than its column. */
static int line_item(line *l, item *i, int kind, int form) {
    int any = form == ANY_CLASS;
    if (i->class == NULL_CLASS) return line_null(l);
    if (kind == DOUBLE) widen(form, i);
    if (i->class == INTEGER_CLASS && (kind == INT64 || any)) return line_integer(l, i->integer);
    if (i->class == REAL_CLASS && kind == DOUBLE) return line_double(l, i->real);
    if (i->class == TEXT_CLASS && kind == TEXT) return line_bytes(l, i->data, i->length);
    if (i->class == BLOB_CLASS && (kind == BINARY || any)) return line_hex(l, i->data, i->length);
    return -1;
}

/* The number of the next rows, ``most`` of them, and the sum of their hashes, from the library's values: no Arrow array is in
   between. FULL, END, ASIDE, NO_MEMORY, or STRANGE: a value whose text only the caller can make. */
int jivs_sqlite_hash(cursor *c, const functions *f, int32_t columns, const column_spec *specs, int64_t most, int64_t *rows,
                     uint64_t *sum) {
    line lines[LANES] = {{0}};
    uint64_t hashes[LANES];
    int state = MORE;
    item given;
    *rows = 0;
    *sum = 0;
    while (state == MORE && *rows < most) {
        int here = 0;
        for (; here < LANES && *rows + here < most && (state = next_row(c, f)) == MORE; here++) {
            lines[here].used = 0;
            for (int32_t i = 0; i < columns && state == MORE; i++) {
                if ((state = look(c, f, i, &given)) != MORE) break;
                int done = fetch(f, &given) ? line_item(&lines[here], &given, specs[i].kind, specs[i].form) : 0;
                if (done <= 0) state = done ? STRANGE : NO_MEMORY;
            }
            if (state == MORE && !line_end(&lines[here])) state = NO_MEMORY;
            if (state != MORE) break;
            c->standing = 0;
        }
        if (state != MORE && state != END) break;
        for (int i = here; i < LANES; i++) {
            lines[i].used = 0;
            if (!line_room(&lines[i], 64)) state = NO_MEMORY;
        }
        if (state == NO_MEMORY) break;
        hash_lines(lines, hashes);
        for (int i = 0; i < here; i++) *sum += hashes[i];
        *rows += here;
    }
    for (int i = 0; i < LANES; i++) free(lines[i].text);
    return state == MORE ? FULL : state;
}
