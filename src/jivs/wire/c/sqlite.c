/* SQLite: rows of a prepared statement into columns, by the functions of the library that Python itself uses.
   Source: SQLite, "C-language Interface Specification": Result Values From A Query. */
#include "canonical.h"
#include "jivs.h"

enum class { INTEGER_CLASS = 1, REAL_CLASS = 2, TEXT_CLASS = 3, BLOB_CLASS = 4, NULL_CLASS = 5 };
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

/* A statement being stepped. */
typedef struct {
    void *statement;
    int32_t standing; /* on a row that was not decoded yet */
    int32_t code;     /* the last result code, if it is an error */
    int64_t need;     /* bytes of a row that was too heavy */
} cursor;

static const uint8_t *bytes_of(const functions *f, void *given, int class, int64_t *length) {
    /* The pointer first: asking for it may convert the value, and the length is that of the converted one. */
    const uint8_t *data = class == TEXT_CLASS ? f->text(given) : f->blob(given);
    *length = f->length(given);
    return data;
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
static int other_class(builder *b, int32_t index, const functions *f, void *given, int class) {
    uint8_t head[9] = {(uint8_t)class};
    int64_t length, value;
    double real;
    if (class == INTEGER_CLASS) {
        value = f->integer(given);
        memcpy(head + 1, &value, 8);
    } else if (class == REAL_CLASS) {
        real = f->real(given);
        memcpy(head + 1, &real, 8);
    } else {
        const uint8_t *data = bytes_of(f, given, class, &length);
        uint8_t *copy = malloc((size_t)length + 1);
        if (copy == NULL || (data == NULL && length)) {
            free(copy);
            return 0;
        }
        copy[0] = (uint8_t)class;
        if (length) memcpy(copy + 1, data, (size_t)length);
        int done = put_misfit(b, index, OTHER_CLASS, copy, length + 1);
        free(copy);
        return done;
    }
    return put_misfit(b, index, OTHER_CLASS, head, 9);
}

/* Whether a value of a numeric column is an integer that is a double too. */
static int whole(int form, int class, const functions *f, void *given) {
    if (form != NUMERIC || class != INTEGER_CLASS) return 0;
    int64_t number = f->integer(given);
    return number >= -((int64_t)1 << 53) && number <= (int64_t)1 << 53;
}

static int value(builder *b, int32_t index, const functions *f, void *given, int class) {
    column *c = &b->columns[index];
    int64_t length;
    int any = c->spec.form == ANY_CLASS, kind = c->spec.kind;
    if (class == NULL_CLASS) return set_null(b, index);
    if (class == INTEGER_CLASS && (kind == INT64 || any)) {
        int64_t number = f->integer(given);
        if (any) return put_digits(b, index, number);
        put8(c, b->rows, (uint64_t)number);
        return 1;
    }
    if (kind == DOUBLE && (class == REAL_CLASS || whole(c->spec.form, class, f, given))) {
        double real = f->real(given);
        memcpy(c->values + 8 * b->rows, &real, 8);
        return 1;
    }
    if ((class == TEXT_CLASS && kind == TEXT) || (class == BLOB_CLASS && (kind == BINARY || any))) {
        const uint8_t *data = bytes_of(f, given, class, &length);
        if (data == NULL && (length || class == TEXT_CLASS)) return 0;
        if (class == TEXT_CLASS) return put_text(b, index, data, length);
        return any ? put_hex(b, index, data, length) : put_bytes(b, index, data, length);
    }
    return other_class(b, index, f, given, class);
}

/* Step on to a row. SQLITE_ROW, SQLITE_DONE, or the error's code, which is kept. */
static int step(cursor *c, const functions *f) {
    if (c->standing) return SQLITE_ROW;
    int code = f->step(c->statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE) c->code = code;
    c->standing = code == SQLITE_ROW;
    return code;
}

/* Rows until the batch is full. FULL, HEAVY, END, NO_MEMORY, or ASIDE: the library has an error. */
int jivs_sqlite_read(cursor *c, const functions *f, builder *b, const batch_limits *limits) {
    for (;;) {
        if (b->rows >= limits->rows || b->bytes >= limits->bytes) return FULL;
        int code = step(c, f);
        if (code == SQLITE_DONE) return END;
        if (code != SQLITE_ROW) return ASIDE;
        int64_t before = b->bytes;
        if (!reserve_row(b)) return NO_MEMORY;
        for (int32_t i = 0; i < b->count; i++) {
            void *given = f->value(c->statement, i);
            int class = f->type(given);
            b->at = i;
            if ((class == TEXT_CLASS || class == BLOB_CLASS) && b->bytes - before + f->length(given) > limits->heavy) {
                c->need = b->bytes - before + b->fixed;
                for (int32_t j = i; j < b->count; j++) {
                    given = f->value(c->statement, j);
                    class = f->type(given);
                    if (class == TEXT_CLASS || class == BLOB_CLASS) c->need += f->length(given);
                }
                undo_row(b, i);
                return HEAVY;
            }
            if (!value(b, i, f, given, class)) return NO_MEMORY;
        }
        end_row(b);
        c->standing = 0;
    }
}

/* How many values of each class each column has: counts[5 * column + class - 1]. END or ASIDE. */
int jivs_sqlite_census(cursor *c, const functions *f, int32_t columns, int64_t *counts) {
    for (;;) {
        int code = step(c, f);
        if (code != SQLITE_ROW) return code == SQLITE_DONE ? END : ASIDE;
        for (int32_t i = 0; i < columns; i++) {
            int class = f->type(f->value(c->statement, i));
            if (class >= 1 && class <= 5) counts[5 * i + class - 1]++;
        }
        c->standing = 0;
    }
}

static int line_value(line *l, const functions *f, void *statement, int column, int kind, int form) {
    void *given = f->value(statement, column);
    int class = f->type(given), any = form == ANY_CLASS;
    int64_t length;
    if (class == NULL_CLASS) return line_null(l);
    if (class == INTEGER_CLASS && (kind == INT64 || any)) return line_integer(l, f->integer(given));
    if (kind == DOUBLE && (class == REAL_CLASS || whole(form, class, f, given))) return line_double(l, f->real(given));
    if (class == TEXT_CLASS && kind == TEXT) {
        const uint8_t *data = bytes_of(f, given, class, &length);
        return data != NULL && line_bytes(l, data, length);
    }
    if (class == BLOB_CLASS && (kind == BINARY || any)) {
        const uint8_t *data = bytes_of(f, given, class, &length);
        return (data != NULL || length == 0) && line_hex(l, data, length);
    }
    return -1;
}

/* The number of rows and the sum of their hashes, from the library's values: no Arrow array is in between.
   END, ASIDE, NO_MEMORY, or STRANGE: a value whose text only the caller can make. */
int jivs_sqlite_hash(cursor *c, const functions *f, int32_t columns, const column_spec *specs, int64_t *rows, uint64_t *sum) {
    line lines[LANES] = {{0}};
    uint64_t hashes[LANES];
    int state = MORE;
    *rows = 0;
    *sum = 0;
    while (state == MORE) {
        int here = 0;
        for (; here < LANES && state == MORE; here++) {
            int code = step(c, f);
            if (code != SQLITE_ROW) {
                state = code == SQLITE_DONE ? END : ASIDE;
                break;
            }
            lines[here].used = 0;
            for (int32_t i = 0; i < columns && state == MORE; i++) {
                int done = line_value(&lines[here], f, c->statement, i, specs[i].kind, specs[i].form);
                if (done <= 0) state = done ? STRANGE : NO_MEMORY;
            }
            if (state == MORE && !line_end(&lines[here])) state = NO_MEMORY;
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
    return state;
}
