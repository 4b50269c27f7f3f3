/* What Python calls, through ctypes: it runs tapes. */

#include <stdlib.h>
#include <string.h>

#include "tape.h"
#include "team.h"

#define CHUNK 128              /* rows at a time, so that what one step leaves is cached for the next */
#define KEPT_FLOATS (16L << 20) /* scratch that a thread keeps from one run to the next */

static _Thread_local struct {
    float *memory;
    long floats;
} kept[SCRATCHES];

float *scratch(enum Scratch kind, long floats) {
    int shrink = kept[kind].floats > KEPT_FLOATS && floats <= KEPT_FLOATS;
    if (floats > kept[kind].floats || shrink) {
        free(kept[kind].memory);
        size_t bytes = ((size_t)floats * sizeof(float) + 63) / 64 * 64;
        kept[kind].memory = aligned_alloc(64, bytes);
        kept[kind].floats = kept[kind].memory ? floats : 0;
    }
    return kept[kind].memory;
}

/* The kernels by number, the best first; NULL where this processor cannot run them. */
static const Kernels *kernels_numbered(int number) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (number == 0) return avx512 ? &kernels_avx512 : NULL;
    if (number == 1) return avx2 ? &kernels_avx2 : NULL;
#endif
    return number == 2 ? &kernels_baseline : NULL;
}

/* What a run works on. */
typedef struct {
    const Kernels *kernels;
    const Instruction *tape;
    long instructions;
    const Buffer *buffers;
    float **memory; /* where each buffer is */
    const int32_t *ids, *positions;
    const int64_t *bounds;
    long tokens, texts;
} Run;

static float *operand(const Run *run, Operand operand, long first, long *stride) {
    if (operand.buffer < 0) return NULL;
    const Buffer *buffer = &run->buffers[operand.buffer];
    *stride = buffer->width;
    if (buffer->kind == CHUNK) first = 0;
    return run->memory[operand.buffer] + first * buffer->width + operand.column;
}

static void run_rows(const Run *run, const Instruction *instruction, long first, long rows) {
    Work work = {.instruction = instruction, .rows = rows};
    work.bounds = run->bounds;
    work.texts = run->texts;
    work.x = operand(run, instruction->x, first, &work.x_stride);
    work.y = operand(run, instruction->y, first, &work.y_stride);
    work.z = operand(run, instruction->z, first, &work.z_stride);
    work.out = operand(run, instruction->out, first, &work.out_stride);
    if (instruction->operation == EMBEDDING || instruction->operation == ROPE)
        work.indices = (instruction->by_position ? run->positions : run->ids) + first;
    run->kernels->run[instruction->operation](&work);
}

static int row_by_row(const Run *run, long at) {
    return run->tape[at].operation < ATTENTION &&
           run->buffers[run->tape[at].out.buffer].kind != TEXTS;
}

static void run_tape(const Run *run) {
    for (long at = 0; at < run->instructions;) {
        long end = at;
        while (end < run->instructions && row_by_row(run, end)) end++;
        for (long first = 0; end > at && first < run->tokens; first += CHUNK) {
            long rows = run->tokens - first < CHUNK ? run->tokens - first : CHUNK;
            for (long i = at; i < end; i++) run_rows(run, &run->tape[i], first, rows);
        }
        if (end == at) run_rows(run, &run->tape[end++], 0, run->texts);
        at = end;
    }
}

/* Places the buffers in this thread's scratch, but for the result's, which is the caller's. */
static int place(const Run *run, long count, long result, float *out) {
    long floats = 0;
    for (int pass = 0; pass < 2; pass++) {
        float *base = pass ? scratch(BUFFERS, floats) : NULL;
        if (pass && floats && !base) return 0;
        floats = 0;
        for (long b = 0; b < count; b++) {
            const Buffer *buffer = &run->buffers[b];
            long rows = buffer->kind == TEXTS ? run->texts : run->tokens;
            if (buffer->kind == CHUNK && rows > CHUNK) rows = CHUNK;
            run->memory[b] = b == result ? out : base + floats;
            if (b != result) floats += (rows * buffer->width + 15) / 16 * 16;
        }
    }
    return 1;
}

/* Kernels by number, from 0, the best first, with their name, the columns of a panel, and the size of
   an instruction; NULL where this processor cannot run them. Kernels 2 run everywhere. */
const Kernels *embedsvc_kernels(int number, char name[16], int64_t *panel, int64_t *instruction) {
    const Kernels *kernels = kernels_numbered(number);
    if (!kernels) return NULL;
    strncpy(name, kernels->name, 15);
    *panel = kernels->panel;
    *instruction = sizeof(Instruction);
    return kernels;
}

/* Threads that a run which has the machine to itself may use, its own included. */
void embedsvc_threads(int threads) { team_start(threads - 1); }

/* Runs a tape; the buffer numbered `result` is `out`. ids and positions (tokens,), bounds (texts + 1,).
   Returns 0 if there is not enough memory. */
int embedsvc_run(const Kernels *kernels, const Instruction *tape, int64_t instructions,
                 const Buffer *buffers, int64_t count, const int32_t *ids, const int32_t *positions, int64_t tokens,
                 const int64_t *bounds, int64_t texts, int64_t result, float *out) {
    float **memory = malloc(count * sizeof(float *));
    if (!memory) return 0;
    Run run = {kernels, tape, instructions, buffers, memory, ids, positions, bounds, tokens, texts};
    int placed = place(&run, count, result, out);
    if (placed) {
        team_begin();
        run_tape(&run);
        team_end();
    }
    free(memory);
    return placed;
}
