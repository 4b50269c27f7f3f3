/* What Python calls, through ctypes: it makes programs of tapes, and runs them. */

#include <stdlib.h>
#include <string.h>

#include "scratch.h"
#include "tape.h"
#include "team.h"

#define CHUNK_ROWS 128 /* at a time, so that what one step leaves is cached for the next */

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
    const Program *program;
    const Batch *batch;
    float **memory; /* where each buffer is */
    atomic_int failed;
} Run;

static float *operand(const Run *run, Operand operand, long first, long *stride) {
    if (operand.buffer < 0) return NULL;
    const Buffer *buffer = &run->program->buffers[operand.buffer];
    *stride = buffer->width;
    if (buffer->kind == CHUNK) first = 0;
    return run->memory[operand.buffer] + first * buffer->width + operand.column;
}

static void run_rows(Run *run, const Instruction *instruction, long first, long rows) {
    Work work = {.instruction = instruction, .rows = rows, .failed = &run->failed};
    work.bounds = run->batch->bounds;
    work.texts = run->batch->texts;
    work.x = operand(run, instruction->x, first, &work.x_stride);
    work.y = operand(run, instruction->y, first, &work.y_stride);
    work.z = operand(run, instruction->z, first, &work.z_stride);
    work.out = operand(run, instruction->out, first, &work.out_stride);
    if (instruction->operation == EMBEDDING || instruction->operation == ROPE)
        work.indices = run->batch->sources[instruction->source] + first;
    run->program->kernels->run[instruction->operation](&work);
}

static int row_by_row(const Program *program, long at) {
    return program->tape[at].operation < ATTENTION &&
           program->buffers[program->tape[at].out.buffer].kind != TEXTS;
}

static void run_tape(Run *run) {
    const Program *program = run->program;
    long tokens = run->batch->tokens;
    for (long at = 0; at < program->instructions && !atomic_load(&run->failed);) {
        long end = at;
        while (end < program->instructions && row_by_row(program, end)) end++;
        for (long first = 0; end > at && first < tokens; first += CHUNK_ROWS) {
            long rows = tokens - first < CHUNK_ROWS ? tokens - first : CHUNK_ROWS;
            for (long i = at; i < end; i++) run_rows(run, &program->tape[i], first, rows);
        }
        if (end == at) run_rows(run, &program->tape[end++], 0, run->batch->texts);
        at = end;
    }
}

static int64_t rows_of(int64_t kind, const Batch *batch) {
    if (kind == TEXTS) return batch->texts;
    return kind == CHUNK && batch->tokens > CHUNK_ROWS ? CHUNK_ROWS : batch->tokens;
}

/* Places the buffers in this thread's scratch, but for the result's, which is the caller's. */
static int place(const Run *run, float *out) {
    const Program *program = run->program;
    int64_t floats = 0;
    for (int pass = 0; pass < 2; pass++) {
        float *base = pass ? scratch(BUFFERS, floats) : NULL;
        if (pass && floats && !base) return 0;
        floats = 0;
        for (long b = 0; b < program->count; b++) {
            const Buffer *buffer = &program->buffers[b];
            run->memory[b] = b == program->result ? out : base + floats;
            if (b != program->result)
                floats += (rows_of(buffer->kind, run->batch) * buffer->width + 15) / 16 * 16;
        }
    }
    return 1;
}

/* Kernels by number, from 0, the best first, with their name and the columns of a panel; 0 where this
   processor cannot run them. Kernels 2 run everywhere. */
API int embedsvc_kernels(int number, char name[16], int64_t *panel) {
    const Kernels *kernels = kernels_numbered(number);
    if (!kernels) return 0;
    strncpy(name, kernels->name, 15);
    *panel = kernels->panel;
    return 1;
}

/* What Python holds against its own, before it calls anything else. */
API int64_t embedsvc_abi(void) { return ABI; }
API int64_t embedsvc_sizes(int which) {
    const int64_t sizes[] = {sizeof(Instruction), sizeof(Buffer), sizeof(Refusal)};
    return which >= 0 && which < COUNT(sizes) ? sizes[which] : 0;
}

/* Threads that a run which has the machine to itself may use, its own included. */
API void embedsvc_threads(int threads) { team_start(threads - 1); }

/* Bytes of scratch that threads keep which run nothing; and giving them back. */
API int64_t embedsvc_kept(void) { return scratch_kept(); }
API void embedsvc_release(void) { scratch_release(); }

API void embedsvc_free(Program *program) {
    if (!program) return;
    free(program->tape);
    free(program->buffers);
    free(program);
}

static void *copied(const void *from, int64_t count, size_t size) {
    void *copy = allocate(count * size);
    return copy ? memcpy(copy, from, count * size) : NULL;
}

/* A program of kernels by number, of a tape and its buffers, which are copied; the weights that it
   points to are not. To be freed, when nothing runs it. NULL, and why, if it is refused. */
API Program *embedsvc_program(
    int kernels, const Instruction *tape, int64_t instructions, const Buffer *buffers, int64_t count,
    int64_t result, Refusal *why) {
    refuse(why, NO_MEMORY, 0, 0, 0);
    Program *program = allocate(sizeof(Program));
    if (!program) return NULL;
    *program = (Program){.kernels = kernels_numbered(kernels), .instructions = instructions};
    program->count = count;
    program->result = result;
    if (!program->kernels || !tape || !buffers || instructions < 1 || count < 1) {
        refuse(why, BAD_TAPE, -1, 0, 0);
        why->rule = "there are kernels, a tape and buffers";
    } else {
        program->tape = copied(tape, instructions, sizeof(Instruction));
        program->buffers = copied(buffers, count, sizeof(Buffer));
        if (program->tape && program->buffers && check_program(program, why)) return program;
    }
    embedsvc_free(program);
    return NULL;
}

/* Runs a program on a batch; `out` has room for so many floats, and has the result's rows afterwards.
   Returns `FINE`, or the reason that is in `why` as well. */
API int embedsvc_run(
    const Program *program, const int32_t *ids, const int32_t *positions, const int32_t *types,
    int64_t tokens, const int64_t *bounds, int64_t texts, float *out, int64_t room, Refusal *why) {
    Batch batch = {{ids, positions, types}, tokens, bounds, texts};
    *why = (Refusal){0};
    if (!check_batch(program, &batch, why)) return why->reason;
    const Buffer *result = &program->buffers[program->result];
    int64_t floats = rows_of(result->kind, &batch) * result->width;
    if (!out || room < floats) {
        refuse(why, BAD_RESULT, 0, room, floats);
        return why->reason;
    }
    refuse(why, NO_MEMORY, 0, tokens, 0);
    if (!scratch_hold()) return NO_MEMORY;
    Run run = {program, &batch, allocate(program->count * sizeof(float *)), 1};
    if (run.memory && place(&run, out)) {
        atomic_store(&run.failed, 0);
        team_begin();
        run_tape(&run);
        team_end();
    }
    free(run.memory);
    scratch_drop();
    if (!atomic_load(&run.failed)) why->reason = FINE;
    return why->reason;
}
