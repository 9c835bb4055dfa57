/* Columns that grow row by row, and their way out through the Arrow C data interface. */
#include "jivs.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* https://arrow.apache.org/docs/format/CDataInterface.html#structure-definitions */
struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* Memory of columns. What Arrow releases is used again for the next batch: fresh memory costs a page fault for every 4 kB,
   which was a tenth of the reading. Each block has its size in front of it; a few are kept when they are freed. */
typedef struct {
    int64_t size;
    int64_t padding; /* what follows is aligned like malloc's memory */
} block;

#define KEPT 256
#define MOST_KEPT (24 << 20)
static struct {
    atomic_flag taken;
    int count;
    int64_t bytes;
    block *blocks[KEPT];
} kept = {.taken = ATOMIC_FLAG_INIT};

static void kept_lock(void) {
    while (atomic_flag_test_and_set_explicit(&kept.taken, memory_order_acquire)) sched_yield();
}

static void kept_unlock(void) { atomic_flag_clear_explicit(&kept.taken, memory_order_release); }

static uint8_t *block_new(int64_t size) {
    block *found = NULL;
    size = size < 1 ? 1 : size;
    if (size >= 4096) {
        kept_lock();
        for (int i = 0; i < kept.count; i++) {
            if (kept.blocks[i]->size < size || kept.blocks[i]->size > size + size / 4) continue;
            found = kept.blocks[i];
            kept.blocks[i] = kept.blocks[--kept.count];
            kept.bytes -= found->size;
            break;
        }
        kept_unlock();
    }
    if (found == NULL) {
        found = malloc(sizeof *found + (size_t)size);
        if (found == NULL) return NULL;
        found->size = size;
    }
    return (uint8_t *)(found + 1);
}

static void block_free(const void *memory) {
    if (memory == NULL) return;
    block *mine = (block *)(uintptr_t)memory - 1;
    if (mine->size >= 4096) {
        kept_lock();
        if (kept.count < KEPT && kept.bytes + mine->size <= MOST_KEPT) {
            kept.blocks[kept.count++] = mine;
            kept.bytes += mine->size;
            mine = NULL;
        }
        kept_unlock();
    }
    free(mine);
}

static int resize(uint8_t **memory, int64_t old, int64_t size) {
    uint8_t *larger = block_new(size);
    if (larger == NULL) return 0;
    if (*memory != NULL) memcpy(larger, *memory, (size_t)(old < size ? old : size));
    block_free(*memory);
    *memory = larger;
    return 1;
}

const uint64_t TENS[20] = {
    1u, 10u, 100u, 1000u, 10000u, 100000u, 1000000u, 10000000u, 100000000u, 1000000000u, 10000000000u, 100000000000u,
    1000000000000u, 10000000000000u, 100000000000000u, 1000000000000000u, 10000000000000000u, 100000000000000000u,
    1000000000000000000u, 10000000000000000000u};

static const int WIDTHS[KINDS] = {0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 16, -1, -1, 16, 4, 8, 8, -2, -2};

/* NULL: no memory, or a kind that is none. */
builder *jivs_builder_new(int32_t count, const column_spec *specs) {
    for (int32_t i = 0; i < count; i++)
        if (specs[i].kind < 0 || specs[i].kind >= KINDS) return NULL;
    builder *b = calloc(1, sizeof *b);
    if (b == NULL) return NULL;
    b->columns = calloc((size_t)(count > 0 ? count : 1), sizeof *b->columns);
    if (b->columns == NULL) {
        free(b);
        return NULL;
    }
    b->count = count;
    for (int32_t i = 0; i < count; i++) {
        b->columns[i].spec = specs[i];
        b->columns[i].width = WIDTHS[specs[i].kind];
        b->fixed += b->columns[i].width > 0 ? b->columns[i].width : 4;
    }
    return b;
}

static void drop(column *c) {
    block_free(c->values);
    block_free(c->second);
    block_free(c->third);
    block_free(c->bytes.offsets);
    block_free(c->bytes.data);
    block_free(c->validity);
    block_free(c->beyond.offsets);
    block_free(c->beyond.data);
    block_free(c->beyond_validity);
    c->values = c->second = c->third = c->validity = c->beyond_validity = NULL;
    memset(&c->bytes, 0, sizeof c->bytes);
    memset(&c->beyond, 0, sizeof c->beyond);
    c->nulls = c->beyond_nulls = 0;
}

static void restart(builder *b) {
    b->rows = b->room = b->bytes = b->misfit_count = b->misfit_used = 0;
    b->beyonds = 0;
}

void jivs_builder_free(builder *b) {
    if (b == NULL) return;
    for (int32_t i = 0; i < b->count; i++) drop(&b->columns[i]);
    free(b->columns);
    free(b->misfits);
    block_free(b->misfit_bytes);
    free(b);
}

/* Make memory of at least the wanted size, doubling. 0: there is none. */
int grow(uint8_t **memory, int64_t *capacity, int64_t wanted) {
    int64_t size = *capacity > 64 ? *capacity : 64;
    while (size < wanted) size += size < (64 << 20) ? size : size / 2;
    if (!resize(memory, *capacity, size)) return 0;
    *capacity = size;
    return 1;
}

static int resize_bits(uint8_t **bits, int64_t old, int64_t room, int fill) {
    if (!resize(bits, (old + 7) / 8, (room + 7) / 8)) return 0;
    memset(*bits + (old + 7) / 8, fill, (size_t)((room + 7) / 8 - (old + 7) / 8));
    return 1;
}

static int resize_offsets(varying *v, int64_t old, int64_t room) {
    int fresh = v->offsets == NULL;
    uint8_t *bytes = (uint8_t *)v->offsets;
    if (!resize(&bytes, (old + 1) * 4, (room + 1) * 4)) return 0;
    v->offsets = (int32_t *)(void *)bytes;
    if (fresh) v->offsets[0] = 0;
    return 1;
}

static int widen(column *c, int64_t old, int64_t room) {
    if (c->validity != NULL && !resize_bits(&c->validity, old, room, 0xff)) return 0;
    if (c->beyond.offsets != NULL &&
        (!resize_offsets(&c->beyond, old, room) || !resize_bits(&c->beyond_validity, old, room, 0)))
        return 0;
    if (c->width > 0) return resize(&c->values, old * c->width, room * c->width);
    if (c->width == 0) return resize_bits(&c->values, old, room, 0);
    if (c->width == -1) {
        if (!resize_offsets(&c->bytes, old, room)) return 0;
        return c->bytes.data != NULL || grow(&c->bytes.data, &c->bytes.capacity, c->hint + c->hint / 8);
    }
    if (c->spec.kind == TIMETZ) return resize(&c->values, old * 8, room * 8) && resize(&c->second, old * 4, room * 4);
    return resize(&c->values, old * 4, room * 4) && resize(&c->second, old * 4, room * 4) &&
           resize(&c->third, old * 8, room * 8);
}

int more_rows(builder *b) {
    int64_t room = b->room ? b->room * 2 : b->usual;
    room = (room + 1023) / 1024 * 1024 + (room ? 0 : 1024);
    for (int32_t i = 0; i < b->count; i++)
        if (!widen(&b->columns[i], b->room, room)) return 0;
    b->room = room;
    return 1;
}

int set_null(builder *b, int32_t index) {
    column *c = &b->columns[index];
    if (c->validity == NULL && !resize_bits(&c->validity, 0, b->room, 0xff)) return 0;
    c->validity[b->rows / 8] &= (uint8_t) ~(1u << (b->rows % 8));
    c->nulls++;
    if (c->width > 0) {
        memset(c->values + b->rows * c->width, 0, (size_t)c->width);
    } else if (c->width == -1) {
        c->bytes.offsets[b->rows + 1] = c->bytes.offsets[b->rows];
    } else if (c->width == -2) {
        memset(c->values + b->rows * (c->spec.kind == TIMETZ ? 8 : 4), 0, c->spec.kind == TIMETZ ? 8 : 4);
        memset(c->second + b->rows * 4, 0, 4);
        if (c->third != NULL) memset(c->third + b->rows * 8, 0, 8);
    }
    return 1;
}

/* A value beyond the column's type: NULL in the column, its text beside it. */
int put_beyond(builder *b, int32_t index, const char *text, int64_t length) {
    column *c = &b->columns[index];
    if (c->beyond.offsets == NULL) {
        if (!resize_offsets(&c->beyond, 0, b->room) || !resize_bits(&c->beyond_validity, 0, b->room, 0)) return 0;
        memset(c->beyond.offsets, 0, (size_t)(b->room + 1) * sizeof(int32_t));
        c->beyond_nulls = b->rows; /* so far; end_row counts on */
        b->beyonds++;
    }
    uint8_t *to = varying_room(&c->beyond, length);
    if (to == NULL) return 0;
    copy_bytes(to, (const uint8_t *)text, length);
    varying_end(b, &c->beyond, length);
    c->beyond_validity[b->rows / 8] |= (uint8_t)(1u << (b->rows % 8));
    c->beyond_row = b->rows;
    return set_null(b, index);
}

/* Forget what the first columns of an unfinished row hold. */
void undo_row(builder *b, int32_t columns) {
    for (int32_t i = 0; i < columns; i++) {
        column *c = &b->columns[i];
        uint8_t mask = (uint8_t)(1u << (b->rows % 8));
        if (c->width == 0) c->values[b->rows / 8] &= (uint8_t)~mask;
        if (c->width == -1) {
            b->bytes -= c->bytes.used - c->bytes.offsets[b->rows];
            c->bytes.used = c->bytes.offsets[b->rows];
        }
        if (c->validity != NULL && !(c->validity[b->rows / 8] & mask)) {
            c->validity[b->rows / 8] |= mask;
            c->nulls--;
        }
    }
    while (b->misfit_count && b->misfits[b->misfit_count - 1].row == b->rows) b->misfit_count--;
}

/* The offsets of texts beside columns in a row that has none. */
void end_beyond(builder *b) {
    for (int32_t i = 0; i < b->count; i++) {
        column *c = &b->columns[i];
        if (c->beyond.offsets != NULL && c->beyond_row != b->rows) {
            c->beyond.offsets[b->rows + 1] = c->beyond.offsets[b->rows];
            c->beyond_nulls++;
        }
    }
}

int put_misfit(builder *b, int32_t index, int32_t reason, const uint8_t *data, int64_t length) {
    if (b->misfit_count >= b->misfit_room) {
        int64_t room = b->misfit_room ? 2 * b->misfit_room : 64;
        misfit *larger = realloc(b->misfits, (size_t)room * sizeof *larger);
        if (larger == NULL) return 0;
        b->misfits = larger;
        b->misfit_room = room;
    }
    if (b->misfit_used + length > b->misfit_capacity &&
        !grow(&b->misfit_bytes, &b->misfit_capacity, b->misfit_used + length))
        return 0;
    if (length) memcpy(b->misfit_bytes + b->misfit_used, data, (size_t)length);
    b->misfits[b->misfit_count++] = (misfit){b->rows, index, reason, b->misfit_used, length};
    b->misfit_used += length;
    b->bytes += length + (int64_t)sizeof(misfit);
    return set_null(b, index);
}

/* UTF-8 as RFC 3629 has it: shortest form, no surrogates, up to U+10FFFF. */
int utf8_valid(const uint8_t *p, int64_t length) {
    const uint8_t *end = p + length;
    while (p < end) {
        if (end - p >= 8) {
            uint64_t eight;
            memcpy(&eight, p, 8);
            if (!(eight & 0x8080808080808080u)) {
                p += 8;
                continue;
            }
        }
        uint8_t a = *p;
        if (a < 0x80) {
            p++;
        } else if (a < 0xc2) {
            return 0;
        } else if (a < 0xe0) {
            if (end - p < 2 || (p[1] & 0xc0) != 0x80) return 0;
            p += 2;
        } else if (a < 0xf0) {
            if (end - p < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80) return 0;
            if ((a == 0xe0 && p[1] < 0xa0) || (a == 0xed && p[1] > 0x9f)) return 0;
            p += 3;
        } else if (a < 0xf5) {
            if (end - p < 4 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80) return 0;
            if ((a == 0xf0 && p[1] < 0x90) || (a == 0xf4 && p[1] > 0x8f)) return 0;
            p += 4;
        } else {
            return 0;
        }
    }
    return 1;
}

/* Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": days_from_civil and civil_from_days. */
int32_t days_from_civil(int64_t year, int month, int day) {
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return (int32_t)(era * 146097 + day_of_era - 719468);
}

void civil_from_days(int64_t days, int64_t *year, int *month, int *day) {
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = year_of_era + era * 400 + (*month <= 2);
}

/* -- out ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const void *buffers[3];
    struct ArrowArray **children;
    struct ArrowArray *storage;
} owned;

static void release(struct ArrowArray *array) {
    owned *mine = array->private_data;
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release != NULL) array->children[i]->release(array->children[i]);
    for (int i = 0; i < 3; i++) block_free(mine->buffers[i]);
    free(mine->children);
    free(mine->storage);
    free(mine);
    array->release = NULL;
}

/* An array without its buffers. 0: no memory. */
static int begin(struct ArrowArray *array, int64_t length, int64_t nulls, int buffers, int64_t children) {
    owned *mine = calloc(1, sizeof *mine);
    memset(array, 0, sizeof *array);
    if (mine == NULL) return 0;
    if (children) {
        mine->children = calloc((size_t)children, sizeof *mine->children);
        mine->storage = calloc((size_t)children, sizeof *mine->storage);
        if (mine->children == NULL || mine->storage == NULL) {
            free(mine->children);
            free(mine->storage);
            free(mine);
            return 0;
        }
        for (int64_t i = 0; i < children; i++) mine->children[i] = &mine->storage[i];
    }
    *array = (struct ArrowArray){.length = length, .null_count = nulls, .n_buffers = buffers, .n_children = children,
                                 .buffers = mine->buffers, .children = mine->children, .release = release,
                                 .private_data = mine};
    return 1;
}

static void *take(uint8_t **memory) {
    void *taken = *memory;
    *memory = NULL;
    return taken;
}

static int child(struct ArrowArray *array, int64_t length, uint8_t **values) {
    if (!begin(array, length, 0, 2, 0)) return 0;
    ((owned *)array->private_data)->buffers[1] = take(values);
    return 1;
}

static int varying_out(struct ArrowArray *array, int64_t length, int64_t nulls, varying *v, uint8_t **validity) {
    if (!begin(array, length, nulls, 3, 0)) return 0;
    owned *mine = array->private_data;
    mine->buffers[0] = take(validity);
    mine->buffers[1] = v->offsets;
    mine->buffers[2] = v->data;
    memset(v, 0, sizeof *v);
    return 1;
}

static int column_out(struct ArrowArray *array, int64_t rows, column *c) {
    if (c->width == -1) {
        c->hint = c->bytes.used;
        return varying_out(array, rows, c->nulls, &c->bytes, &c->validity);
    }
    if (c->width >= 0) {
        if (!begin(array, rows, c->nulls, 2, 0)) return 0;
        owned *mine = array->private_data;
        mine->buffers[0] = take(&c->validity);
        mine->buffers[1] = take(&c->values);
        return 1;
    }
    int children = c->spec.kind == TIMETZ ? 2 : 3;
    if (!begin(array, rows, c->nulls, 1, children)) return 0;
    ((owned *)array->private_data)->buffers[0] = take(&c->validity);
    return child(array->children[0], rows, &c->values) && child(array->children[1], rows, &c->second) &&
           (children == 2 || child(array->children[2], rows, &c->third));
}

int64_t jivs_builder_rows(const builder *b) { return b->rows; }

int32_t jivs_builder_at(const builder *b) { return b->at; }

int64_t jivs_builder_misfits(const builder *b, const misfit **records, const uint8_t **bytes) {
    *records = b->misfits;
    *bytes = b->misfit_bytes;
    return b->misfit_count;
}

/* The number of columns with texts beside them; marks[i] is set to 1 for those. */
int32_t jivs_builder_beyond(const builder *b, uint8_t *marks) {
    int32_t found = 0;
    for (int32_t i = 0; i < b->count; i++) {
        marks[i] = b->columns[i].beyond.offsets != NULL;
        found += marks[i];
    }
    return found;
}

/* The rows so far as one struct array: the columns, then the texts beside those that have some. The builder is empty
   afterwards, misfits included. 0: no memory, and the rows are gone. */
int jivs_builder_export(builder *b, struct ArrowArray *out) {
    int64_t extra = 0, at = 0;
    int ok;
    for (int32_t i = 0; i < b->count; i++) extra += b->columns[i].beyond.offsets != NULL;
    if (b->room == 0 && !more_rows(b)) return 0;
    ok = begin(out, b->rows, 0, 1, b->count + extra);
    if (!ok) return 0;
    for (int32_t i = 0; ok && i < b->count; i++) ok = column_out(out->children[at++], b->rows, &b->columns[i]);
    for (int32_t i = 0; ok && i < b->count; i++) {
        column *c = &b->columns[i];
        if (c->beyond.offsets != NULL)
            ok = varying_out(out->children[at++], b->rows, c->beyond_nulls, &c->beyond, &c->beyond_validity);
    }
    if (!ok) out->release(out);
    for (int32_t i = 0; i < b->count; i++) drop(&b->columns[i]);
    b->usual = b->rows + b->rows / 16;
    restart(b);
    return ok;
}

/* -- in -------------------------------------------------------------------------------------------------------------- */

stream *jivs_stream_new(int fd, int64_t capacity, int64_t timeout) {
    stream *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->fd = fd;
    s->timeout = timeout;
    s->capacity = capacity;
    s->buffer = block_new(capacity);
    if (s->buffer == NULL) {
        free(s);
        return NULL;
    }
    return s;
}

void jivs_stream_free(stream *s) {
    if (s == NULL) return;
    block_free(s->buffer);
    free(s);
}

/* Room behind the bytes that wait, for a message of need bytes at least. 0: no memory. */
int jivs_stream_room(stream *s, int64_t need) {
    if (s->start == s->end) s->start = s->end = 0;
    if (need > s->capacity - s->start || s->end == s->capacity) {
        memmove(s->buffer, s->buffer + s->start, (size_t)(s->end - s->start));
        s->end -= s->start;
        s->start = 0;
    }
    int64_t wanted = need > s->end + 1 ? need : s->end + 1;
    return wanted <= s->capacity || grow(&s->buffer, &s->capacity, wanted);
}

/* Receive once. MORE: something came. CLOSED: the peer is gone. */
int jivs_stream_fill(stream *s, int64_t need) {
    s->need = need;
    if (s->fd < 0) return MORE;
    if (!jivs_stream_room(s, need)) return NO_MEMORY;
    for (;;) {
        ssize_t got = recv(s->fd, s->buffer + s->end, (size_t)(s->capacity - s->end), MSG_DONTWAIT);
        if (got > 0) {
            s->end += got;
            return MORE;
        }
        if (got == 0) return CLOSED;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd waiting = {.fd = s->fd, .events = POLLIN};
            int ready = poll(&waiting, 1, (int)s->timeout);
            if (ready == 0) return LATE;
            if (ready > 0 || errno == EINTR) continue;
        } else if (errno == EINTR) {
            continue;
        }
        return CLOSED;
    }
}
