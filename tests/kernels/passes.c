/* For ThreadSanitizer: several threads run one program at once, while others count and free what threads
   keep, and while threads come and go. Every result has to be the same. */

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "library.h"

#define ROWS 64
#define WIDTH 24
#define TEXTS_ 5
#define TOKENS_ 90
#define THREADS 4
#define PASSES 60

static float table[ROWS * WIDTH], weight[96 * WIDTH], scales[6 * 48];
static int32_t halves[WHOLE_WORDS * 48], quarters[WHOLE_WORDS * 48]; /* in panels of up to 48 columns */
static int32_t ids[TOKENS_], positions[TOKENS_];
static const int64_t bounds[TEXTS_ + 1] = {0, 1, 20, 37, 38, TOKENS_};
static float expected[TEXTS_ * WIDTH];
static Program *program;
static atomic_int over;
#if defined(RACED)
static long raced; /* written by all threads without a lock: this must be reported */
#endif

static Program *made(int kernels) {
    const Operand none = {-1, 0};
    const Buffer buffers[] = {{WIDTH, TOKENS}, {3 * WIDTH, TOKENS}, {WIDTH, TOKENS}, {WIDTH, TEXTS},
                              {WIDTH, TOKENS}, {WIDTH, TOKENS}, {WIDTH, TOKENS}};
    const Instruction tape[] = {
        {.operation = EMBEDDING, .x = none, .y = none, .z = none, .out = {0, 0}, .width = WIDTH,
         .rows = ROWS, .weight = table, .weight_size = ROWS * WIDTH},
        {.operation = LINEAR, .x = {0, 0}, .y = none, .z = none, .out = {1, 0}, .width = 3 * WIDTH,
         .inputs = WIDTH, .activation = GELU, .weight = weight, .weight_size = 96 * WIDTH},
        {.operation = ATTENTION, .x = {1, 0}, .y = {1, WIDTH}, .z = {1, 2 * WIDTH}, .out = {2, 0},
         .width = WIDTH, .heads = 3, .kv_heads = 3, .size = WIDTH / 3, .window = -1, .scale = 0.3},
        {.operation = LINEAR_BFLOAT16, .x = {2, 0}, .y = none, .z = none, .out = {4, 0}, .width = WIDTH,
         .inputs = WIDTH, .words = halves, .words_size = COUNT(halves)},
        {.operation = LINEAR_INT8, .x = {4, 0}, .y = {2, 0}, .z = none, .out = {5, 0}, .width = WIDTH,
         .inputs = WIDTH, .words = quarters, .words_size = COUNT(quarters), .scales = scales,
         .scales_size = COUNT(scales)},
        {.operation = LINEAR_QUANTIZED, .x = {5, 0}, .y = none, .z = none, .out = {6, 0}, .width = WIDTH,
         .inputs = WIDTH, .words = quarters, .words_size = COUNT(quarters), .scales = scales,
         .scales_size = COUNT(scales), .bits = 4, .group = 8},
        {.operation = POOL_MEAN, .x = {6, 0}, .y = none, .z = none, .out = {3, 0}, .width = WIDTH},
    };
    const int64_t results[] = {3};
    Refusal why;
    Program *program =
        embedsvc_program(kernels, tape, COUNT(tape), buffers, COUNT(buffers), results, 1, &why);
    check(program != NULL, program ? "" : why.rule ? why.rule : "no memory");
    return program;
}

static void run(Program *program, float *out) {
    Refusal why;
    int reason = embedsvc_run(program, ids, positions, NULL, TOKENS_, bounds, NULL, TEXTS_, out,
                              TEXTS_ * WIDTH, &why);
    check(reason == FINE, "refused");
}

static void *passes(void *kernels) {
    Program *own = made(*(int *)kernels); /* it is freed while other threads run theirs */
    for (int pass = 0; pass < PASSES; pass++) {
        float out[TEXTS_ * WIDTH];
        run(pass % 2 ? own : program, out);
        check(!memcmp(out, expected, sizeof out), "another result");
#if defined(RACED)
        raced++;
#endif
    }
    embedsvc_free(own);
    return NULL;
}

static void *tidying(void *unused) {
    (void)unused;
    while (!atomic_load(&over)) {
        check(embedsvc_kept() >= 0, "less than nothing");
        embedsvc_release();
    }
    return NULL;
}

int main(void) {
    for (int i = 0; i < ROWS * WIDTH; i++) table[i] = (float)(i * 37 % 101) / 101 - 0.5f;
    for (int i = 0; i < 96 * WIDTH; i++) weight[i] = (float)(i * 53 % 97) / 97 - 0.5f;
    for (int i = 0; i < COUNT(halves); i++) halves[i] = i % 2 ? 0x3E203D40 : 0xBE103E80;
    for (int i = 0; i < COUNT(quarters); i++) quarters[i] = i * 1103515245u;
    for (int i = 0; i < COUNT(scales); i++) scales[i] = 0.001f * (float)(1 + i % 5);
    for (int i = 0; i < TOKENS_; i++) ids[i] = i * 7 % ROWS, positions[i] = i;
    embedsvc_threads(4);
    const char *names;
    int64_t panel;
    for (int kernels = 0; (names = embedsvc_kernels(kernels, &panel)); kernels++) {
        program = made(kernels);
        run(program, expected);
        atomic_store(&over, 0);
        pthread_t tidies, threads[THREADS];
        pthread_create(&tidies, NULL, tidying, NULL);
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, passes, &kernels);
            for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
        }
        atomic_store(&over, 1);
        pthread_join(tidies, NULL);
        embedsvc_free(program);
        puts(names);
    }
    return 0;
}
