/* Memory that a thread keeps from one pass to the next, since getting it anew takes a tenth of one. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <stddef.h>
#include <stdint.h>

enum Scratch { BUFFERS, ATTENTION_SCRATCH, EXPERTS_SCRATCH, SCRATCHES };

/* The calling thread's scratch is its own until `scratch_drop`; 0 if there is no memory. Held twice
   is held once: the inner drop does nothing. */
int scratch_hold(void);
void scratch_drop(void);

/* Of the thread that holds it: so many floats or more, aligned to 64 bytes; NULL if there is no
   memory. There is one of each kind, which may be wanted at once. */
float *scratch(enum Scratch kind, int64_t floats);

/* Bytes that threads keep which run nothing now. */
int64_t scratch_kept(void);
/* Frees that. */
void scratch_release(void);

/* Memory for anything else; NULL if there is none. */
void *allocate(size_t bytes);

#endif
