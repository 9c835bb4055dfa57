/* Rows of a COPY ... TO STDOUT gathered through libpq without the interpreter's lock: many rows a call.
   No header of libpq or of Python is needed: the functions come in as pointers. Every length is checked against the buffer. */
#include <stdint.h>
#include <string.h>

typedef int (*get_copy_data)(void *connection, char **row, int async);
typedef void (*free_memory)(void *row);

enum { MORE = 0, END = 1, FAILED = 2, HELD = 3 };

typedef struct {
    char *row;      /* a row that was received and not copied yet, or NULL */
    int64_t length; /* its bytes */
} held_row;

/* Copies whole rows into buffer until most_rows, capacity or a row above heavy is reached.
   MORE: the buffer has rows, call again. HELD: *held does not fit or is heavy; nothing of it was copied, and with
   *used == 0 the caller has to make room (or refuse) before calling again with heavy raised. END: the stream ended.
   FAILED: libpq reports an error. *used and *rows count what the buffer holds. */
int jivs_gather(void *connection, get_copy_data get, free_memory release, char *buffer, int64_t capacity,
                int64_t most_rows, int64_t heavy, held_row *held, int64_t *used, int64_t *rows) {
    *used = 0;
    *rows = 0;
    while (*rows < most_rows) {
        if (held->row == NULL) {
            char *row = NULL;
            int length = get(connection, &row, 0);
            if (length == -1) return END;
            if (length < 0 || row == NULL) return FAILED;
            held->row = row;
            held->length = length;
        }
        if (held->length > heavy || held->length > capacity - *used) return HELD;
        memcpy(buffer + *used, held->row, (size_t)held->length);
        *used += held->length;
        *rows += 1;
        release(held->row);
        held->row = NULL;
        held->length = 0;
    }
    return MORE;
}
