/* The readers of text files, as their doors in Python and the fuzzer see them. */
#ifndef JIVS_TEXT_H
#define JIVS_TEXT_H

#include "jivs.h"

typedef struct {
    uint8_t delimiter;
    uint8_t quote;           /* 0: none */
    int32_t width;           /* fields of a record */
    const int32_t *places;   /* column of each field, or -1 */
    const uint8_t *narrow;   /* for each column: an empty field is NULL */
    const uint8_t *null;     /* the text that stands for NULL, or NULL */
    int64_t null_length;
    int64_t largest;         /* bytes of the largest record */
    int32_t ended;           /* no more bytes will come */
    int32_t skip;            /* the next record is the header */
    /* state */
    int64_t line;            /* number of the line that the next record begins in */
    int64_t records;
    int32_t trouble;         /* with ASIDE: what is wrong with the record */
    int32_t fields;          /* how many it has */
    int64_t length;          /* its bytes */
    int64_t lines;           /* its lines */
    uint8_t *scratch;        /* a quoted field without its doubled quotes */
    int64_t scratch_capacity;
} csv_reader;

enum json_class { STRING = 0, INTEGER = 1, NUMBER = 2, TRUTH = 3, NOTHING = 4, NESTED = 5, CLASSES = 6 };

typedef struct {
    const uint8_t *name;
    int64_t length;
    int32_t column;  /* of its values, or -1 */
    int32_t tag;     /* of its classes, or -1 */
    int64_t seen;    /* the last row that has it */
    int32_t class;   /* of its value in that row */
    int32_t padding;
    int64_t counts[CLASSES]; /* rows taken, by class */
} json_key;

typedef struct {
    json_key *keys;
    int32_t count;
    int32_t ended;     /* no more bytes will come */
    int64_t largest;   /* bytes of the largest line */
    int64_t line;      /* number of the next line */
    int64_t records;   /* lines with content */
    int64_t length;    /* with ASIDE: bytes of the line */
    int32_t counting;  /* lines with content are counted, whatever they hold */
    uint8_t *scratch;  /* a string without its escapes */
    int64_t capacity;
} json_reader;

csv_reader *jivs_csv_new(void);
void jivs_csv_free(csv_reader *r);
int jivs_csv_read(csv_reader *r, stream *s, builder *b, const batch_limits *limits);
void jivs_csv_skip(csv_reader *r, stream *s);
json_reader *jivs_json_new(void);
void jivs_json_free(json_reader *r);
int jivs_json_read(json_reader *r, stream *s, builder *b, const batch_limits *limits);
void jivs_json_skip(json_reader *r, stream *s);

#endif
