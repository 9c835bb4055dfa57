/* The rows of a table of an SQLite file from its pages, without the library's machine for statements.
   Source: SQLite, "Database File Format", sections 1.3, 1.5, 1.6 and 2.1. The caller holds a read lock, so that nobody writes
   meanwhile. Whatever is not as the format says, or rare (a row that was written before a column was added), ends the walk as
   STRANGE: the caller asks the library then. */
#define _POSIX_C_SOURCE 200809L /* pread */
#define _FILE_OFFSET_BITS 64
#include "tree.h"

#include "jivs.h"

#include <errno.h>
#include <unistd.h>

#define WINDOW (128 << 10)
#define LEAF 0x0d
#define INTERIOR 0x05

void jivs_tree_free(tree *t) {
    for (int i = 0; i < MOST_LEVELS; i++) free(t->levels[i].page);
    free(t->window);
    free(t->scratch);
    free(t->places);
    free(t->reals);
    free(t->types);
    free(t->offsets);
    free(t);
}

/* declared: columns of the table. columns: how many of them are wanted; places and reals: as in tree. NULL: no memory, or
   numbers that no database has. */
tree *jivs_tree_new(int fd, uint32_t page_size, uint32_t reserved, uint32_t pages, int32_t declared, int32_t columns,
                    const int32_t *places, const uint8_t *reals) {
    if (page_size < 512 || page_size > 65536 || reserved > page_size - 480 || declared < 1 || columns < 0) return NULL;
    tree *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->fd = fd;
    t->page_size = page_size;
    t->usable = page_size - reserved;
    t->pages = pages;
    t->declared = declared;
    t->window = malloc(WINDOW);
    t->places = malloc(((size_t)columns + 1) * sizeof *t->places);
    t->reals = malloc((size_t)columns + 1);
    t->types = malloc((size_t)declared * sizeof *t->types);
    t->offsets = malloc(((size_t)declared + 1) * sizeof *t->offsets);
    if (t->window == NULL || t->places == NULL || t->reals == NULL || t->types == NULL || t->offsets == NULL) {
        jivs_tree_free(t);
        return NULL;
    }
    for (int32_t i = 0; i < columns; i++) {
        if (places[i] < -1 || places[i] >= declared) {
            jivs_tree_free(t);
            return NULL;
        }
        t->places[i] = places[i];
        t->reals[i] = reals[i];
    }
    return t;
}

static int read_at(const tree *t, uint32_t page, uint8_t *to, uint32_t count) {
    int64_t wanted = (int64_t)count * t->page_size, at = (int64_t)(page - 1) * t->page_size;
    while (wanted > 0) {
        ssize_t got = pread(t->fd, to, (size_t)wanted, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        to += got;
        at += got;
        wanted -= got;
    }
    return 1;
}

/* A big-endian number of 7 bits a byte, the ninth byte whole. The byte behind it; NULL: it does not end in time. */
static inline const uint8_t *varint(const uint8_t *p, const uint8_t *end, uint64_t *out) {
    if (p < end && *p < 0x80) {
        *out = *p;
        return p + 1;
    }
    uint64_t value = 0;
    for (int i = 0; i < 8; i++, p++) {
        if (p >= end) return NULL;
        value = value << 7 | (*p & 0x7f);
        if (*p < 0x80) {
            *out = value;
            return p + 1;
        }
    }
    if (p >= end) return NULL;
    *out = value << 8 | *p;
    return p + 1;
}

/* Where a cell begins; 0: nowhere. */
static inline uint32_t cell_at(const tree *t, const uint8_t *page, int32_t head, int32_t cell) {
    uint32_t at = be16(page + head + 2 * cell);
    return at >= (uint32_t)(head + 2 * cell + 2) && at < t->usable ? at : 0;
}

static int count_cells(const tree *t, const uint8_t *page, int32_t head, int32_t *cells) {
    *cells = be16(page + 3);
    return (uint32_t)(head + 2 * *cells) <= t->usable;
}

/* Go to a page, and further down to the leaf where the rows from `low` begin. */
static int descend(tree *t, uint32_t number) {
    for (;;) {
        if (number < 2 || number > t->pages || t->visited++ >= t->pages) return STRANGE;
        uint32_t inside = number - t->window_first;
        if (t->window_pages == 0 || number < t->window_first || inside >= t->window_pages) {
            /* Tables that were written in one go lie one page behind the other, but for some pages of other kinds. */
            uint32_t most = WINDOW / t->page_size, rest = t->pages - number + 1;
            uint32_t count = number > t->last_leaf && number - t->last_leaf <= most ? (most < rest ? most : rest) : 1;
            t->window_pages = 0;
            if (!read_at(t, number, t->window, count)) return STRANGE;
            t->window_first = number;
            t->window_pages = count;
            inside = 0;
        }
        const uint8_t *page = t->window + (size_t)inside * t->page_size;
        if (page[0] == LEAF) {
            t->leaf = page;
            t->cell = 0;
            t->last_leaf = number;
            return count_cells(t, page, 8, &t->cells) ? MORE : STRANGE;
        }
        if (page[0] != INTERIOR || t->depth == MOST_LEVELS) return STRANGE;
        level *l = &t->levels[t->depth++];
        if (l->page == NULL && (l->page = malloc(t->page_size)) == NULL) return NO_MEMORY;
        memcpy(l->page, page, t->page_size);
        if (!count_cells(t, l->page, 12, &l->cells)) return STRANGE;
        t->last_leaf = number;
        int32_t from = 0, to = l->cells; /* the first child whose largest row id is not below low */
        while (from < to) {
            int32_t middle = from + (to - from) / 2;
            uint32_t at = cell_at(t, l->page, 12, middle);
            uint64_t key;
            if (at == 0 || at + 4 > t->usable || varint(l->page + at + 4, l->page + t->usable, &key) == NULL) return STRANGE;
            if ((int64_t)key < t->low)
                from = middle + 1;
            else
                to = middle;
        }
        uint32_t at = from < l->cells ? cell_at(t, l->page, 12, from) : 8;
        if (at == 0 || at + 4 > t->usable) return STRANGE;
        l->next = from + 1;
        number = be32(l->page + at);
    }
}

/* Begin a walk. MORE, STRANGE, NO_MEMORY. */
int jivs_tree_seek(tree *t, uint32_t root, int64_t low, int64_t high, int64_t largest) {
    t->low = low;
    t->high = high;
    t->largest = largest;
    t->depth = 0;
    t->visited = t->last_leaf = t->window_pages = 0;
    return descend(t, root);
}

static int next_leaf(tree *t) {
    while (t->depth > 0) {
        level *l = &t->levels[t->depth - 1];
        if (l->next <= l->cells) {
            uint32_t at = l->next < l->cells ? cell_at(t, l->page, 12, l->next) : 8;
            if (at == 0 || at + 4 > t->usable) return STRANGE;
            l->next++;
            return descend(t, be32(l->page + at));
        }
        t->depth--;
    }
    return END;
}

static inline int64_t length_of(int64_t type) {
    static const uint8_t lengths[12] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0};
    return type >= 12 ? (type - 12) / 2 : lengths[type];
}

/* Where the values of the row are. */
static int open_record(tree *t) {
    const uint8_t *end = t->payload + t->local, *p = t->payload;
    uint64_t header, type;
    p = varint(p, end, &header);
    if (p == NULL || header > (uint64_t)t->local) return STRANGE;
    end = t->payload + header;
    int64_t offset = (int64_t)header;
    for (int32_t i = 0; i < t->declared; i++) {
        p = varint(p, end, &type);
        if (p == NULL || type > (uint64_t)INT64_MAX / 2 || type == 10 || type == 11) return STRANGE;
        t->types[i] = (int64_t)type;
        t->offsets[i] = offset;
        offset += length_of((int64_t)type);
        if (offset > t->size) return STRANGE;
    }
    t->offsets[t->declared] = offset;
    return p == end && offset == t->size ? MORE : STRANGE;
}

/* The next row. MORE: there it is; END; STRANGE; NO_MEMORY. */
int tree_next(tree *t) {
    for (;;) {
        while (t->cell >= t->cells) {
            int state = next_leaf(t);
            if (state != MORE) return state;
        }
        uint32_t at = cell_at(t, t->leaf, 8, t->cell++);
        if (at == 0) return STRANGE;
        const uint8_t *p = t->leaf + at, *end = t->leaf + t->usable;
        uint64_t size, key;
        if ((p = varint(p, end, &size)) == NULL || (p = varint(p, end, &key)) == NULL) return STRANGE;
        t->row_id = (int64_t)key;
        if (t->row_id < t->low) continue;
        if (t->row_id > t->high) return END;
        if (size > (uint64_t)t->largest) return STRANGE;
        int64_t usable = t->usable, total = (int64_t)size, local = total;
        if (total > usable - 35) { /* section 1.6: how much of it stands here */
            int64_t least = (usable - 12) * 32 / 255 - 23, some = least + (total - least) % (usable - 4);
            local = some <= usable - 35 ? some : least;
        }
        if (local + (local < total ? 4 : 0) > end - p) return STRANGE;
        t->payload = p;
        t->size = total;
        t->local = local;
        t->overflow = local < total ? be32(p + local) : 0;
        return open_record(t);
    }
}

/* Put the row's bytes together from its overflow pages. */
static int gather(tree *t) {
    int64_t room = t->size + t->page_size;
    if (room > t->scratch_capacity) {
        uint8_t *more = realloc(t->scratch, (size_t)room);
        if (more == NULL) return NO_MEMORY;
        t->scratch = more;
        t->scratch_capacity = room;
    }
    memcpy(t->scratch, t->payload, (size_t)t->local);
    int64_t have = t->local, each = t->usable - 4;
    uint32_t number = t->overflow;
    while (have < t->size) {
        if (number < 2 || number > t->pages) return STRANGE;
        /* The page goes to where its content belongs, 4 bytes early: what it covers is put back. */
        uint8_t *to = t->scratch + have - 4, kept[4];
        memcpy(kept, to, 4);
        if (!read_at(t, number, to, 1)) return STRANGE;
        number = be32(to);
        memcpy(to, kept, 4);
        have += each;
    }
    t->payload = t->scratch;
    t->local = t->size;
    return MORE;
}

static inline int64_t big_endian(const uint8_t *p, int64_t length) {
    uint64_t value = *p & 0x80 ? UINT64_MAX : 0;
    for (int64_t i = 0; i < length; i++) value = value << 8 | p[i];
    return (int64_t)value;
}

/* A value of the row. MORE, STRANGE, NO_MEMORY. Texts and blobs are valid until the next row. */
int tree_item(tree *t, int column, item *out) {
    int32_t place = t->places[column];
    if (place < 0) {
        out->class = INTEGER_CLASS;
        out->integer = t->row_id;
        return MORE;
    }
    int64_t type = t->types[place], length = t->offsets[place + 1] - t->offsets[place];
    if (t->offsets[place + 1] > t->local) {
        int state = gather(t);
        if (state != MORE) return state;
    }
    const uint8_t *p = t->payload + t->offsets[place];
    if (type >= 12) {
        out->class = type & 1 ? TEXT_CLASS : BLOB_CLASS;
        out->data = p;
        out->length = length;
    } else if (type == 0) {
        out->class = NULL_CLASS;
    } else if (type == 7) {
        uint64_t bits = be64(p);
        memcpy(&out->real, &bits, 8);
        out->class = out->real != out->real ? NULL_CLASS : REAL_CLASS; /* the library reads NaN as NULL, too */
    } else {
        out->class = INTEGER_CLASS;
        out->integer = type >= 8 ? type - 8 : big_endian(p, length);
        if (t->reals[column]) {
            out->class = REAL_CLASS;
            out->real = (double)out->integer;
        }
    }
    return MORE;
}

/* The same, but only its class. */
int tree_class(tree *t, int column, int *class) {
    int32_t place = t->places[column];
    int64_t type = place < 0 ? 1 : t->types[place];
    if (type == 7) { /* NaN or not */
        item i;
        int state = tree_item(t, column, &i);
        if (state == MORE) *class = i.class;
        return state;
    }
    *class = type >= 12 ? (type & 1 ? TEXT_CLASS : BLOB_CLASS) : type == 0 ? NULL_CLASS : t->reals[column] ? REAL_CLASS : INTEGER_CLASS;
    return MORE;
}
