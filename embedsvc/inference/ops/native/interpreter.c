/* Makes programs of tapes and runs them: most of what Python calls, through ctypes. */

#include <stdlib.h>
#include <string.h>

#include "scratch.h"
#include "tape.h"
#include "thread_pool.h"

#define CHUNK_ROWS 128 /* rows at a time, so that what one instruction writes is cached for the next */
#define SHARED_ROWS 16 /* rows of a chunk that a thread takes at a time, if there are more than twice as many */

/* One run of a program. */
typedef struct {
    const Program *program;
    const Batch *batch;
    float **memory; /* of each buffer */
    atomic_int failed;
} Run;

static const enum Scope scopes[OPERATIONS] = {
#define OPERATION(NAME, name, RULE, SCOPE) [NAME] = SCOPE,
#include "operations.def"
};

/* Where an operand's rows are, from row `first` on; sets the floats from row to row. */
static float *operand(const Run *run, Operand operand, long first, long *stride) {
    if (operand.buffer < 0) return NULL;
    const Buffer *buffer = &run->program->buffers[operand.buffer];
    *stride = buffer->width;
    if (buffer->kind == CHUNK) first = 0;
    return run->memory[operand.buffer] + first * buffer->width + operand.column;
}

/* `count` rows of a work, from `first` on: everything that has a row for each of them moves along. */
static Work rows_of_work(const Work *whole, long first, long count) {
    Work part = *whole;
    part.rows = count;
    if (part.x) part.x += first * part.x_stride;
    if (part.y) part.y += first * part.y_stride;
    if (part.z) part.z += first * part.z_stride;
    if (part.indices) part.indices += first;
    part.out += first * part.out_stride;
    return part;
}

typedef struct {
    const Work *whole;
    void (*kernel)(const Work *);
} SharedWork;

static void run_shared_part(void *argument, long part) {
    const SharedWork *shared = argument;
    long first = part * SHARED_ROWS, left = shared->whole->rows - first;
    Work work = rows_of_work(shared->whole, first, left < SHARED_ROWS ? left : SHARED_ROWS);
    shared->kernel(&work);
}

static void run_instruction(Run *run, const Instruction *instruction, long first, long rows) {
    Work work = {.instruction = instruction, .rows = rows, .failed = &run->failed};
    work.kernels = run->program->kernels;
    work.bounds = run->batch->bounds;
    work.seen = run->batch->seen;
    work.texts = run->batch->texts;
    work.x = operand(run, instruction->x, first, &work.x_stride);
    work.y = operand(run, instruction->y, first, &work.y_stride);
    work.z = operand(run, instruction->z, first, &work.z_stride);
    work.out = operand(run, instruction->out, first, &work.out_stride);
    if (looks_up(instruction)) work.indices = run->batch->sources[instruction->source] + first;
    void (*kernel)(const Work *) = run->program->kernels->operations->run[instruction->operation];
    if (scopes[instruction->operation] != BY_ROW || rows <= 2 * SHARED_ROWS || !thread_pool_helps()) {
        kernel(&work);
    } else {
        SharedWork shared = {&work, kernel};
        thread_pool_run(run_shared_part, &shared, (rows + SHARED_ROWS - 1) / SHARED_ROWS);
    }
}

/* Whether an instruction is run on one chunk of tokens after the other. */
static int by_chunks(const Program *program, long at) {
    return scopes[program->tape[at].operation] != BY_TEXT &&
           program->buffers[program->tape[at].out.buffer].kind != TEXTS;
}

/* Instructions that are run by chunks are run all of them on a chunk before the next chunk begins. */
static void run_tape(Run *run) {
    const Program *program = run->program;
    long tokens = run->batch->tokens;
    for (long at = 0; at < program->instructions && !atomic_load(&run->failed);) {
        long end = at;
        while (end < program->instructions && by_chunks(program, end)) end++;
        for (long first = 0; end > at && first < tokens; first += CHUNK_ROWS) {
            long rows = tokens - first < CHUNK_ROWS ? tokens - first : CHUNK_ROWS;
            for (long i = at; i < end; i++) run_instruction(run, &program->tape[i], first, rows);
        }
        if (end == at) run_instruction(run, &program->tape[end++], 0, run->batch->texts);
        at = end;
    }
}

static int64_t rows_of(int64_t kind, const Batch *batch) {
    if (kind == TEXTS) return batch->texts;
    return kind == CHUNK && batch->tokens > CHUNK_ROWS ? CHUNK_ROWS : batch->tokens;
}

static int is_result(const Program *program, long buffer) {
    for (long r = 0; r < program->result_count; r++)
        if (program->results[r] == buffer) return 1;
    return 0;
}

/* How many floats a result has. */
static int64_t floats_of(const Program *program, long result, const Batch *batch) {
    const Buffer *buffer = &program->buffers[program->results[result]];
    return rows_of(buffer->kind, batch) * buffer->width;
}

/* Finds memory for the buffers: in this thread's scratch, and for the results where the caller wants them,
   one after the other. Returns 0 if there is none. The first pass over the buffers only counts floats. */
static int place_buffers(const Run *run, float *out) {
    const Program *program = run->program;
    int64_t floats = 0;
    for (int pass = 0; pass < 2; pass++) {
        float *base = pass ? scratch(BUFFERS, floats) : NULL;
        if (pass && floats && !base) return 0;
        floats = 0;
        for (long b = 0; b < program->count; b++) {
            const Buffer *buffer = &program->buffers[b];
            run->memory[b] = base + floats;
            if (!is_result(program, b))
                floats += (rows_of(buffer->kind, run->batch) * buffer->width + 15) / 16 * 16;
        }
    }
    for (long r = 0; r < program->result_count; r++) {
        run->memory[program->results[r]] = out;
        out += floats_of(program, r, run->batch);
    }
    return 1;
}

/* The kernels of that number, and the columns of a panel of their weights. They have the names "operations;
   bfloat16;int8;distrusted". Numbers begin at 0, the fastest kernels first; NULL: there are no more. */
API const char *embedsvc_kernels(int number, int64_t *panel) {
    const Kernels *kernels = kernels_numbered(number);
    if (!kernels) return NULL;
    *panel = kernels->operations->panel;
    return kernels->names;
}

/* How many threads a run may use while no other runs, its own included. */
API void embedsvc_threads(int threads) { thread_pool_start(threads - 1); }

/* Bytes of scratch that threads keep while they run nothing; and giving them back to the system. */
API int64_t embedsvc_kept(void) { return scratch_kept(); }
API void embedsvc_release(void) { scratch_release(); }

API void embedsvc_free(Program *program) {
    if (!program) return;
    free(program->tape);
    free(program->buffers);
    free(program);
}

static void *copy_of(const void *from, int64_t count, size_t size) {
    void *copy = allocate(count * size);
    return copy ? memcpy(copy, from, count * size) : NULL;
}

/* A program for the kernels of that number. The tape and the buffers are copied; the weights that the
   tape points to are not. It is to be freed when nothing runs it any more. Returns NULL and says why if
   the tape is refused. */
API Program *embedsvc_program(
    int kernels, const Instruction *tape, int64_t instructions, const Buffer *buffers, int64_t count,
    const int64_t *results, int64_t result_count, Refusal *why) {
    refuse(why, NO_MEMORY, 0, 0, 0);
    Program *program = allocate(sizeof(Program));
    if (!program) return NULL;
    *program = (Program){.kernels = kernels_numbered(kernels), .instructions = instructions};
    program->count = count;
    program->result_count = result_count;
    if (!program->kernels || !tape || !buffers || instructions < 1 || count < 1) {
        refuse(why, BAD_TAPE, -1, 0, 0);
        why->rule = "there are kernels, a tape and buffers";
    } else if (!results || !between(result_count, 1, MOST_RESULTS)) {
        refuse(why, BAD_TAPE, -1, 0, 0);
        why->rule = "there are results, and not too many";
    } else {
        memcpy(program->results, results, result_count * sizeof *results);
        program->tape = copy_of(tape, instructions, sizeof(Instruction));
        program->buffers = copy_of(buffers, count, sizeof(Buffer));
        if (program->tape && program->buffers && check_program(program, why)) return program;
    }
    embedsvc_free(program);
    return NULL;
}

/* Runs a program on a batch and writes the rows of its results to `out`, one result after the other; it has
   room for that many floats. Returns FINE, or the reason, which `why` has as well. */
API int embedsvc_run(
    const Program *program, const int32_t *ids, const int32_t *positions, const int32_t *types,
    int64_t tokens, const int64_t *bounds, const int64_t *seen, int64_t texts, float *out, int64_t room,
    Refusal *why) {
    Batch batch = {{ids, positions, types}, tokens, bounds, seen, texts};
    *why = (Refusal){0};
    if (!check_batch(program, &batch, why)) return why->reason;
    int64_t floats = 0;
    for (long r = 0; r < program->result_count; r++) floats += floats_of(program, r, &batch);
    if (!out || room < floats) {
        refuse(why, BAD_RESULT, 0, room, floats);
        return why->reason;
    }
    refuse(why, NO_MEMORY, 0, tokens, 0);
    if (!scratch_hold()) return NO_MEMORY;
    Run run = {program, &batch, allocate(program->count * sizeof(float *)), 1};
    if (run.memory && place_buffers(&run, out)) {
        atomic_store(&run.failed, 0);
        thread_pool_enter();
        run_tape(&run);
        thread_pool_leave();
    }
    free(run.memory);
    scratch_drop();
    if (!atomic_load(&run.failed)) why->reason = FINE;
    return why->reason;
}
