/* For ThreadSanitizer: several threads run one program at once, while others count and free what threads
   keep, and while threads come and go. Every result has to be the same. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tape.h"

#define ROWS 64
#define WIDTH 24
#define TEXTS_ 5
#define TOKENS_ 90
#define THREADS 4
#define PASSES 60

int embedsvc_kernels(int number, char name[16], int64_t *panel);
void embedsvc_threads(int threads);
int64_t embedsvc_kept(void);
void embedsvc_release(void);
Program *embedsvc_program(int kernels, const Instruction *tape, int64_t instructions, const Buffer *buffers,
                          int64_t count, int64_t result, Refusal *why);
void embedsvc_free(Program *program);
int embedsvc_run(const Program *program, const int32_t *ids, const int32_t *positions,
                 const int32_t *types, int64_t tokens, const int64_t *bounds, int64_t texts,
                 float *out, int64_t room, Refusal *why);

static float table[ROWS * WIDTH], weight[96 * WIDTH];
static int32_t ids[TOKENS_], positions[TOKENS_];
static const int64_t bounds[TEXTS_ + 1] = {0, 1, 20, 37, 38, TOKENS_};
static float expected[TEXTS_ * WIDTH];
static Program *program;
static atomic_int over;
#if defined(RACED)
static long raced; /* written by all threads without a lock: this must be reported */
#endif

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static Program *made(int kernels) {
    const Operand none = {-1, 0};
    const Buffer buffers[] = {{WIDTH, TOKENS}, {3 * WIDTH, TOKENS}, {WIDTH, TOKENS}, {WIDTH, TEXTS}};
    const Instruction tape[] = {
        {.operation = EMBEDDING, .x = none, .y = none, .z = none, .out = {0, 0}, .width = WIDTH,
         .rows = ROWS, .weight = table, .weight_size = ROWS * WIDTH},
        {.operation = LINEAR, .x = {0, 0}, .y = none, .z = none, .out = {1, 0}, .width = 3 * WIDTH,
         .inputs = WIDTH, .activation = GELU, .weight = weight, .weight_size = 96 * WIDTH},
        {.operation = ATTENTION, .x = {1, 0}, .y = {1, WIDTH}, .z = {1, 2 * WIDTH}, .out = {2, 0},
         .width = WIDTH, .heads = 3, .kv_heads = 3, .size = WIDTH / 3, .window = -1, .scale = 0.3},
        {.operation = POOL_MEAN, .x = {2, 0}, .y = none, .z = none, .out = {3, 0}, .width = WIDTH},
    };
    Refusal why;
    Program *program = embedsvc_program(kernels, tape, 4, buffers, 4, 3, &why);
    check(program != NULL, program ? "" : why.rule ? why.rule : "no memory");
    return program;
}

static void run(Program *program, float *out) {
    Refusal why;
    int reason = embedsvc_run(program, ids, positions, NULL, TOKENS_, bounds, TEXTS_, out,
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
    for (int i = 0; i < TOKENS_; i++) ids[i] = i * 7 % ROWS, positions[i] = i;
    embedsvc_threads(4);
    for (int kernels = 0; kernels < 3; kernels++) {
        char name[16];
        int64_t panel;
        if (!embedsvc_kernels(kernels, name, &panel)) continue;
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
        puts(name);
    }
    return 0;
}
