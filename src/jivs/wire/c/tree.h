/* A table of an SQLite file, read from its pages. */
#ifndef JIVS_TREE_H
#define JIVS_TREE_H

#include <stdint.h>

#define MOST_LEVELS 24

enum class { INTEGER_CLASS = 1, REAL_CLASS = 2, TEXT_CLASS = 3, BLOB_CLASS = 4, NULL_CLASS = 5 };

/* A value: which member counts depends on the class; texts and blobs are data and length. */
typedef struct {
    void *given; /* the library's value that it comes from, if it does */
    int64_t integer;
    double real;
    const uint8_t *data;
    int64_t length;
    int class;
} item;

typedef struct {
    uint8_t *page;
    int32_t next, cells; /* the child to visit next; child number `cells` is the rightmost one */
} level;

/* A walk over the rows of a table with row ids from low to high, both included. */
typedef struct {
    int fd;
    uint32_t page_size, usable, pages;
    int64_t low, high, largest; /* largest: bytes of a row; a larger one ends the walk as STRANGE */
    level levels[MOST_LEVELS];
    int32_t depth; /* levels in use; the leaf is not among them */
    uint8_t *window; /* pages of the file, one after the other; the leaf is one of them */
    uint32_t window_first, window_pages;
    const uint8_t *leaf;
    int32_t cell, cells;
    uint32_t last_leaf, visited;
    /* the row: where its values are */
    int64_t row_id;
    const uint8_t *payload; /* its first `local` bytes, or all of them */
    int64_t size, local;
    uint32_t overflow;
    uint8_t *scratch;
    int64_t scratch_capacity;
    int32_t declared; /* columns of the table */
    int32_t *places;  /* of each wanted column: its number in the record; -1: it is the row id */
    uint8_t *reals;   /* of each wanted column: whole numbers in it are stored short for reals */
    int64_t *types, *offsets; /* of each column of the record; offsets has one more */
} tree;

int tree_next(tree *t);
int tree_item(tree *t, int column, item *out);
int tree_class(tree *t, int column, int *class);

#endif
