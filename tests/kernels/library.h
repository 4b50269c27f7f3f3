/* What Python calls of the library, for programs that call it too. */

#include <stdio.h>
#include <stdlib.h>

#include "tape.h"

const char *embedsvc_kernels(int number, int64_t *panel);
void embedsvc_threads(int threads);
int64_t embedsvc_kept(void);
void embedsvc_release(void);
Program *embedsvc_program(int kernels, const Instruction *tape, int64_t instructions, const Buffer *buffers,
                          int64_t count, const int64_t *results, int64_t result_count,
                          Refusal *why);
void embedsvc_free(Program *program);
int embedsvc_run(const Program *program, const int32_t *ids, const int32_t *positions,
                 const int32_t *types, int64_t tokens, const int64_t *bounds, const int64_t *seen,
                 int64_t texts, float *out, int64_t room, Refusal *why);

/* Ends the program unless that is right. */
static inline void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "%s\n", what);
    exit(1);
}
