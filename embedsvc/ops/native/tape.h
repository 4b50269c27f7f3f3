/* A forward pass as a list of instructions on buffers of rows: what Python writes and C runs. */
#ifndef TAPE_H
#define TAPE_H

#include <stdint.h>

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
    POOL_MEAN_SQRT, /* the sum over the square root of the count */
    POOL_WEIGHTED_MEAN, /* a row counts as much as its place, from 1 */
    POOL_MAX,
    POOL_FIRST,
    POOL_LAST,
};

enum Activation { NONE, GELU, GELU_TANH, SILU, RELU };

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
    int64_t by_position; /* EMBEDDING: rows are taken at the positions, not at the ids */
    int64_t activation;
    const float *weight; /* LINEAR: in panels; EMBEDDING: the table; norms: (width,); EXPERTS: up, in
                            panels, one expert after the other; ADD without y: (width,) */
    const float *bias;   /* LINEAR: padded to whole panels; ATTENTION: (heads, 2 * reach - 1);
                            EXPERTS: down, as up */
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
} Work;

/* The operations, compiled for one instruction set. */
typedef struct {
    const char *name;
    long panel; /* columns of a panel of weights */
    void (*run[POOL_LAST + 1])(const Work *);
} Kernels;

extern const Kernels kernels_baseline, kernels_avx2, kernels_avx512;

/* Scratch of the calling thread, at least so many floats, aligned to 64 bytes; NULL if there is no
   memory. There is one of each kind, which may be wanted at once. */
enum Scratch { BUFFERS, ATTENTION_SCRATCH, EXPERTS_SCRATCH, SCRATCHES };
float *scratch(enum Scratch kind, long floats);

#endif
