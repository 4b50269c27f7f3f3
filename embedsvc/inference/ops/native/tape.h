/* A forward pass as a list of instructions on buffers of rows: what Python writes and C runs. */
#ifndef TAPE_H
#define TAPE_H

#include <stdatomic.h>
#include <stdint.h>

/* Changed with whatever Python and C have to agree on: `ABI` of library.py is the same. */
#define ABI 4

#define API __attribute__((visibility("default")))
#define COUNT(array) ((int64_t)(sizeof(array) / sizeof *(array)))

_Static_assert(sizeof(long) == 8, "rows and columns are counted in longs");

enum Operation {
    EMBEDDING,
    COPY,
    ADD,
    MULTIPLY,
    LINEAR,
    LAYER_NORM,
    RMS_NORM,
    ACTIVATION,
    ROPE,
    EXPERTS,
    ATTENTION, /* from here on not row by row */
    POOL_MEAN,
    POOL_MEAN_SQRT_LEN, /* the sum over the square root of the count */
    POOL_WEIGHTED_MEAN, /* a row counts as much as its place, from 1 */
    POOL_MAX,
    POOL_CLS,
    POOL_LAST_TOKEN,
    OPERATIONS,
};

enum Activation { NONE, GELU, GELU_TANH, SILU, TANH, ACTIVATIONS };

/* What rows of a table are taken at: one number for each token of a batch. */
enum Source { IDS, POSITIONS, TYPES, SOURCES };

/* Rows of a buffer, from one column on. */
typedef struct {
    int64_t buffer; /* -1: none */
    int64_t column;
} Operand;

/* All fields are eight bytes: NumPy's structured dtype in tape.py names the same, in this order. */
typedef struct {
    int64_t operation;
    Operand x, y, z, out;
    int64_t width;      /* columns of out */
    int64_t inputs;     /* LINEAR: columns of x; ROPE: columns of a head that turn */
    int64_t source;     /* EMBEDDING, ROPE: see enum Source */
    int64_t rows;        /* EMBEDDING, ROPE: rows of the table */
    int64_t activation;
    const float *weight; /* LINEAR: in panels; EMBEDDING: the table; norms: (width,); EXPERTS: up, in
                            panels, one expert after the other; ADD without y: (width,) */
    const float *bias;   /* LINEAR: padded to whole panels; ATTENTION: (heads, 2 * reach - 1);
                            EXPERTS: down, as up */
    int64_t weight_size, bias_size; /* how many floats are there */
    int64_t heads, kv_heads, size; /* ATTENTION; ROPE, RMS_NORM: heads of x, and their size */
    int64_t causal, window;        /* window: -1 for none */
    int64_t reach;
    int64_t experts, chosen;       /* EXPERTS; `inputs` is the columns between up and down */
    double scale;                  /* ATTENTION; norms: epsilon */
} Instruction;

typedef struct {
    int64_t width; /* floats of a row */
    int64_t kind;
} Buffer;

enum Kind {
    TOKENS, /* a row for each token */
    CHUNK,  /* a row for each token of a chunk: forgotten from one chunk to the next */
    TEXTS,  /* a row for each text */
    KINDS,
};

/* One instruction's operands for some rows. */
typedef struct {
    const Instruction *instruction;
    const float *x, *y, *z;
    float *out;
    long x_stride, y_stride, z_stride, out_stride; /* floats from row to row */
    long rows;
    const int32_t *indices;   /* EMBEDDING, ROPE: one for each row */
    const int64_t *bounds;    /* (texts + 1,): where each text's rows begin */
    long texts;
    atomic_int *failed; /* set where there was no memory: what was written is of no use */
} Work;

/* The operations, compiled for one instruction set. */
typedef struct {
    const char *name;
    long panel; /* columns of a panel of weights */
    void (*run[OPERATIONS])(const Work *);
} Kernels;

extern const Kernels kernels_baseline, kernels_avx2, kernels_avx512;

/* What a batch has to keep to, so that no index of it lies beside a table. */
typedef struct {
    int64_t rows[SOURCES]; /* of the smallest table that is looked up by each; 0: none is */
    int64_t longest;        /* tokens of a text */
} Limits;

/* A tape that was checked, and may be run by several threads at once. */
typedef struct {
    const Kernels *kernels;
    Instruction *tape;
    long instructions;
    Buffer *buffers;
    long count, result;
    Limits limits;
} Program;

/* Why something was refused, and where: an instruction, a token, a text. */
enum Reason { FINE, NO_MEMORY, BAD_TAPE, BAD_ID, BAD_POSITION, BAD_TYPE, BAD_LENGTH, BAD_BATCH, BAD_RESULT };

typedef struct {
    int64_t reason, at, value, limit;
    const char *rule; /* BAD_TAPE: what does not hold */
} Refusal;

typedef struct {
    const int32_t *sources[SOURCES]; /* (tokens,) each; of types NULL where no table needs them */
    int64_t tokens;
    const int64_t *bounds; /* (texts + 1,): where each text's rows begin */
    int64_t texts;
} Batch;

/* Each returns 0 and says why unless all is well; the first of them finds the program's limits. */
int check_program(Program *program, Refusal *why);
int check_batch(const Program *program, const Batch *batch, Refusal *why);
int refuse(Refusal *why, enum Reason reason, int64_t at, int64_t value, int64_t limit);

#endif
