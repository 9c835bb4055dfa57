/* What strangers send, into the decoders, and what comes out into the row hash; built with sanitizers.

   With libFuzzer it is a fuzzer. With -DREPLAY it runs each file it is given once. The input: a byte for the decoder, one for the
   number of columns, four for each column, one for the size of the portions, then the bytes of the wire. */
#define _GNU_SOURCE /* memfd_create */
#include "../../src/jivs/wire/c/text.h"
#include "../../src/jivs/wire/c/tree.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

typedef struct {
    int32_t kind, scale;
    int64_t offset;
    const uint8_t *validity, *values;
    const int32_t *offsets;
    const uint8_t *second, *third;
    int64_t first_offset, second_offset, third_offset;
    const uint8_t *beyond_validity, *beyond;
    const int32_t *beyond_offsets;
    int64_t beyond_offset;
} hash_column;

stream *jivs_stream_new(int fd, int64_t capacity, int64_t timeout);
void jivs_stream_free(stream *s);
int jivs_builder_export(builder *b, struct ArrowArray *out);
int32_t jivs_builder_beyond(const builder *b, uint8_t *marks);
int jivs_pgcopy_read(stream *s, builder *b, const batch_limits *limits);
void *jivs_mysql_new(int32_t fields);
void jivs_mysql_free(void *r);
int jivs_mysql_read(stream *s, void *r, builder *b, const batch_limits *limits);
int jivs_rowhash(const hash_column *columns, int32_t count, int64_t rows, uint64_t *each, uint64_t *sum);

typedef struct {
    void *statement;
    tree *walk;
    int32_t standing;
    int64_t need;
} cursor;

tree *jivs_tree_new(int fd, uint32_t page_size, uint32_t reserved, uint32_t pages, int32_t declared, int32_t columns,
                    const int32_t *places, const uint8_t *reals);
void jivs_tree_free(tree *t);
int jivs_tree_seek(tree *t, uint32_t root, int64_t low, int64_t high, int64_t largest);
int jivs_sqlite_read(cursor *c, const void *functions, builder *b, const batch_limits *limits);
int jivs_sqlite_census(cursor *c, const void *functions, int32_t columns, int64_t *counts);

#define MOST 8

/* Take the rows out, touch every value by hashing it, and let them go. */
static void take(builder *b, const column_spec *specs) {
    struct ArrowArray array;
    hash_column columns[MOST] = {{0}};
    uint8_t marks[MOST];
    int32_t count = b->count;
    int64_t rows = b->rows;
    uint64_t sum;
    jivs_builder_beyond(b, marks);
    if (!jivs_builder_export(b, &array)) return;
    for (int32_t i = 0, extra = count; i < count; i++) {
        struct ArrowArray *one = array.children[i];
        columns[i].kind = specs[i].kind;
        columns[i].scale = specs[i].scale;
        columns[i].validity = one->buffers[0];
        if (specs[i].kind == TIMETZ || specs[i].kind == INTERVAL) {
            columns[i].values = one->children[0]->buffers[1];
            columns[i].second = one->children[1]->buffers[1];
            columns[i].third = specs[i].kind == INTERVAL ? one->children[2]->buffers[1] : NULL;
        } else if (specs[i].kind == TEXT || specs[i].kind == BINARY) {
            columns[i].offsets = one->buffers[1];
            columns[i].values = one->buffers[2];
        } else {
            columns[i].values = one->buffers[1];
        }
        if (marks[i]) {
            struct ArrowArray *text = array.children[extra++];
            columns[i].beyond_validity = text->buffers[0];
            columns[i].beyond_offsets = text->buffers[1];
            columns[i].beyond = text->buffers[2];
        }
    }
    jivs_rowhash(columns, count, rows, NULL, &sum);
    array.release(&array);
}

/* The pages of an SQLite file, from its second one on, which is the root of a table. */
static void read_pages(const uint8_t *data, size_t size, builder *b, const column_spec *specs, int64_t rows) {
    int fd = memfd_create("pages", 0);
    int32_t places[MOST];
    uint8_t reals[MOST] = {0, 1, 0, 1};
    int64_t counts[5 * MOST] = {0};
    batch_limits limits = {.rows = rows, .bytes = 1 << 16, .heavy = 1 << 10};
    for (int32_t i = 0; i < b->count; i++) places[i] = i - (rows & 1);
    if (fd < 0 || pwrite(fd, data, size, 512) != (ssize_t)size) abort();
    tree *t = jivs_tree_new(fd, 512, rows % 3 ? 0 : 12, (uint32_t)(size / 512 + 1), b->count, b->count, places, reals);
    for (int round = 0; t != NULL && round < 2; round++) {
        cursor c = {.walk = t};
        int64_t low = rows % 5 ? INT64_MIN : 3, high = rows % 7 ? INT64_MAX : 9;
        int state = jivs_tree_seek(t, 2, low, high, 1 << 12);
        if (state == MORE && round == 0) state = jivs_sqlite_census(&c, NULL, b->count, counts);
        while (state == MORE && round == 1) {
            state = jivs_sqlite_read(&c, NULL, b, &limits);
            if (state == HEAVY) limits.heavy = c.need;
            if (state == FULL || state == END) take(b, specs);
            if (state == FULL || state == HEAVY) state = MORE;
        }
    }
    if (t != NULL) jivs_tree_free(t);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    int which = data[0] % 5;
    int32_t count = data[1] % MOST + 1, fields = count;
    column_spec specs[MOST] = {{0}};
    if (size < 3 + 4 * (size_t)count) return 0;
    for (int32_t i = 0; i < count; i++) {
        const uint8_t *p = data + 2 + 4 * i;
        specs[i].kind = p[0] % KINDS;
        specs[i].precision = p[1] % 38 + 1;
        specs[i].scale = p[2] % (specs[i].precision + 1);
        specs[i].zoned = p[3] & 1;
        specs[i].form = p[3] / 2 % 6;
        if (which == 2) specs[i] = (column_spec){.kind = TEXT};
        if (which == 3) specs[i] = (column_spec){.kind = p[0] % 3 == 0 ? INT64 : p[0] % 3 == 1 ? BOOL : TEXT};
        if (which == 4) {
            static const int32_t kinds[4] = {INT64, DOUBLE, TEXT, BINARY};
            specs[i] = (column_spec){.kind = kinds[p[0] % 4], .form = p[0] % 4 == 1 ? NUMERIC : PLAIN};
            if (p[3] % 5 == 0) specs[i] = (column_spec){.kind = TEXT, .form = ANY_CLASS};
        }
        fields += specs[i].form == STORED;
    }
    int64_t portion = data[2 + 4 * count] + 1;
    const uint8_t *p = data + 3 + 4 * count, *end = data + size;
    builder *b = jivs_builder_new(count, specs);
    stream *s = jivs_stream_new(-1, 16, -1);
    void *result = which == 1 ? jivs_mysql_new(fields) : NULL;
    csv_reader *csv = jivs_csv_new();
    json_reader *json = jivs_json_new();
    static const char *const names[MOST] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    int32_t places[MOST];
    uint8_t narrow[MOST] = {1};
    json_key keys[MOST] = {{0}};
    for (int32_t i = 0; i < count; i++) {
        places[i] = i;
        keys[i] = (json_key){.name = (const uint8_t *)names[i], .length = 1, .column = i, .tag = -1};
    }
    if (csv == NULL || json == NULL) return 0;
    csv->delimiter = ',';
    csv->quote = '"';
    csv->width = count;
    csv->places = places;
    csv->narrow = narrow;
    json->keys = keys;
    json->count = count;
    csv->largest = json->largest = 1 << 16;
    batch_limits limits = {.rows = portion, .bytes = 1 << 16, .heavy = 1 << 16};
    int state = MORE;
    if (which == 4 && b != NULL) read_pages(p, (size_t)(end - p), b, specs, portion);
    while (which < 4 && b != NULL && s != NULL) {
        state = which == 0   ? jivs_pgcopy_read(s, b, &limits)
                : which == 1 ? jivs_mysql_read(s, result, b, &limits)
                : which == 2 ? jivs_csv_read(csv, s, b, &limits)
                             : jivs_json_read(json, s, b, &limits);
        if (state == ASIDE && which > 1) {
            if (which == 2)
                jivs_csv_skip(csv, s);
            else
                jivs_json_skip(json, s);
            continue;
        }
        if (state == MORE && p == end && which > 1 && !csv->ended) {
            csv->ended = json->ended = 1;
            continue;
        }
        if (state == FULL || state == END) take(b, specs);
        if (state == FULL) continue;
        if (state != MORE || p == end || !jivs_stream_room(s, s->need)) break;
        int64_t here = end - p < portion ? end - p : portion;
        if (here > s->capacity - s->end) here = s->capacity - s->end;
        memcpy(s->buffer + s->end, p, (size_t)here);
        s->end += here;
        p += here;
    }
    jivs_csv_free(csv);
    jivs_json_free(json);
    jivs_mysql_free(result);
    jivs_stream_free(s);
    jivs_builder_free(b);
    return 0;
}

#ifdef REPLAY
int main(int argc, char **argv) {
    static uint8_t data[1 << 20];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) return 1;
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        uint8_t *copy = malloc(size ? size : 1); /* of exactly that size, so that a read beyond it is seen */
        if (copy == NULL) return 1;
        memcpy(copy, data, size);
        LLVMFuzzerTestOneInput(copy, size);
        free(copy);
    }
    return 0;
}
#endif
