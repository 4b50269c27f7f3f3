/* Memory that a thread keeps from one pass to the next: to ask for it anew takes a tenth of a pass. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <stddef.h>
#include <stdint.h>

enum Scratch { BUFFERS, ATTENTION_SCRATCH, EXPERTS_SCRATCH, ROUNDED_ROWS, EXPANDED_PANEL, SCRATCHES };

/* Gives the calling thread its scratch until it calls `scratch_drop`; returns 0 if there is no memory.
   Calls may be nested: the outermost drop is the one that counts. */
int scratch_hold(void);
void scratch_drop(void);

/* Room for so many floats or more, aligned to 64 bytes, for the thread that holds its scratch; NULL if
   there is no memory. Each kind is memory of its own, and valid until more of that kind is asked for. */
float *scratch(enum Scratch kind, int64_t floats);

/* Bytes in the scratch of threads that do not hold it now. */
int64_t scratch_kept(void);
/* Frees those bytes. */
void scratch_release(void);

/* Memory for anything else, to be freed with `free`; NULL if there is none. */
void *allocate(size_t bytes);

#endif
