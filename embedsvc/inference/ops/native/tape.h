/* A forward pass as a tape: instructions on buffers of rows, which Python writes and C runs. Its
   operations and the fields of its structs are listed in operations.def. */
#ifndef TAPE_H
#define TAPE_H

#include <stdatomic.h>
#include <stdint.h>

#include "dots.h"

/* To be raised, here and in library.py, when a function that Python calls changes. What operations.def
   lists may change without that. */
#define ABI 7

#define API __attribute__((visibility("default")))
#define COUNT(array) ((int64_t)(sizeof(array) / sizeof *(array)))

_Static_assert(sizeof(long) == 8, "rows and columns are counted in longs");

enum Scope { BY_ROW, BY_COLUMN, BY_TEXT };

enum Operation {
#define OPERATION(NAME, name, RULE, SCOPE) NAME,
#include "operations.def"
    OPERATIONS,
};

enum Activation {
#define ACTIVATION(NAME, name) NAME,
#define OTHER_ACTIVATION(NAME, name) NAME,
#include "operations.def"
    ACTIVATIONS,
    AFTER_PRODUCTS = 0 /* how many of them products apply */
#define ACTIVATION(NAME, name) +1
#include "operations.def"
};

enum Read {
#define READ(NAME, name) NAME,
#include "operations.def"
    READS,
};

enum Source {
#define SOURCE(NAME, REASON) NAME,
#include "operations.def"
    SOURCES,
};

enum Kind {
#define KIND(NAME) NAME,
#include "operations.def"
    KINDS,
};

enum Reason {
#define REASON(NAME) NAME,
#include "operations.def"
    REASONS,
};

typedef struct {
#define OPERAND_FIELD(type, name) type name;
#include "operations.def"
} Operand;

typedef struct {
#define INSTRUCTION_FIELD(type, name) type name;
#include "operations.def"
} Instruction;

typedef struct {
#define BUFFER_FIELD(type, name) type name;
#include "operations.def"
} Buffer;

typedef struct {
#define REFUSAL_FIELD(type, name) type name;
#include "operations.def"
} Refusal;

typedef struct Kernels Kernels;

/* The operands of an instruction for some rows. */
typedef struct {
    const Instruction *instruction;
    const Kernels *kernels;
    const float *x, *y, *z;
    float *out;
    long x_stride, y_stride, z_stride, out_stride; /* floats from row to row */
    long rows;
    const int32_t *indices; /* of rows of the table, one for each row; NULL without a table */
    const int64_t *bounds;  /* (texts + 1,): where the rows of each text begin */
    const int64_t *seen;    /* (texts,): how many tokens of each text are attended to; NULL: all */
    long texts;
    atomic_int *failed; /* set where memory was missing: what was written is of no use */
} Work;

/* A query and the documents that are scored for it: see maxsim.inc. */
typedef struct {
    const float *query; /* as `pack_query` leaves it */
    int64_t tokens, size; /* vectors of the query, columns of all vectors */
    const uint16_t *const *documents; /* (lengths[d], size) each, in float16 */
    const int64_t *lengths;
    int64_t count;
    float *scores; /* (count,) */
    atomic_int *failed; /* set where memory was missing */
} MaxSim;

/* The operations, compiled for one instruction set. */
typedef struct {
    long panel; /* columns of a panel of weights */
    void (*run[OPERATIONS])(const Work *);
    void (*pack_query)(const float *query, long tokens, long size, float *panels);
    void (*score_document)(const MaxSim *maxsim, long document);
} Operations;

extern const Operations operations_baseline, operations_avx2, operations_avx512;
#if defined(__aarch64__)
#define BASELINE "NEON"
#else
#define BASELINE "SSE2"
#endif

/* What a program is computed by. */
struct Kernels {
    const Operations *operations;
    SumDots *bfloat16, *int8;
    char names[64]; /* of these three; and of a way to multiply that gave other sums, if there is one */
};

/* The kernels of that number, the fastest first; NULL if this processor has no more. */
const Kernels *kernels_numbered(int number);

/* What a batch has to keep to, so that no index of it lies beside a table. */
typedef struct {
    int64_t rows[SOURCES]; /* of the smallest table that is looked up by each source; 0: there is none */
    int64_t longest;       /* tokens of a text; 0: any number */
    int64_t window;        /* the smallest that attention has; -1: none has one */
} Limits;

#define MOST_RESULTS 8

/* A tape that was checked. Several threads may run it at once. */
typedef struct {
    const Kernels *kernels;
    Instruction *tape;
    long instructions;
    Buffer *buffers;
    long count;
    int64_t results[MOST_RESULTS]; /* the numbers of buffers */
    long result_count;
    Limits limits;
} Program;

typedef struct {
    const int32_t *sources[SOURCES]; /* (tokens,) each; types may be NULL where no table needs them */
    int64_t tokens;
    const int64_t *bounds; /* (texts + 1,): where the rows of each text begin */
    const int64_t *seen;   /* (texts,): its first so many tokens are attended to; NULL: all */
    int64_t texts;
} Batch;

/* Whether an instruction looks up rows of a table. */
static inline int looks_up(const Instruction *instruction) {
    return instruction->operation == EMBEDDING || instruction->operation == EMBEDDING_BFLOAT16 ||
           instruction->operation == EMBEDDING_QUANTIZED || instruction->operation == ROPE;
}

static inline int attends(const Instruction *instruction) {
    return instruction->operation == ATTENTION || instruction->operation == ATTENTION_BFLOAT16;
}

#define MOST_ROWS (1L << 31) /* of a batch or a table: small enough that no product of sizes exceeds 63 bits */

static inline int between(int64_t value, int64_t least, int64_t most) {
    return least <= value && value <= most;
}

/* Each returns 1 if all is well, else 0 and says why. `check_program` also sets the program's limits. */
int check_program(Program *program, Refusal *why);
int check_batch(const Program *program, const Batch *batch, Refusal *why);

/* Sets `why` and returns 0. */
int refuse(Refusal *why, enum Reason reason, int64_t at, int64_t value, int64_t limit);

#endif
