/* Runs the passes that recording.py wrote, on all kernels of this processor, and compares the results with
   the recorded ones; and those of each text alone with those of all texts together. */

#include <math.h>
#include <string.h>

#include "library.h"

#define ALONE 1e-5 /* how far a text's row alone may be off, beside a row of about 1 */

/* How a pass begins in the file, as recording.py writes it. */
typedef struct {
    int64_t panel, instructions, instruction_size, buffers, buffer_size, result;
    int64_t pointers, weights_size, tokens, texts, typed, per_text, width;
    double bound;
} Head;

/* Where a tape has a pointer to weights. */
typedef struct {
    int64_t at, offset; /* bytes of the tape; bytes of the weights */
} Pointer;

typedef struct {
    const Head *head;
    Program *program;
    const int32_t *ids, *positions, *types;
    const int64_t *bounds;
    const float *expected;
} Recorded;

static void *take(FILE *file, int64_t size) {
    void *memory = aligned_alloc(64, (size + 64) / 64 * 64);
    check(memory && (int64_t)fread(memory, 1, size, file) == size, "the file ends early");
    return memory;
}

/* Rows that the result has for some texts. */
static int64_t rows(const Recorded *r, int64_t first, int64_t end) {
    return r->head->per_text ? end - first : r->bounds[end] - r->bounds[first];
}

/* The results of the texts [first, end). */
static float *run(const Recorded *r, int64_t first, int64_t end) {
    int64_t token = r->bounds[first], texts = end - first, floats = rows(r, first, end) * r->head->width;
    int64_t *bounds = malloc((texts + 1) * sizeof *bounds);
    float *out = malloc(floats * sizeof *out);
    check(bounds && out, "no memory");
    for (int64_t t = 0; t <= texts; t++) bounds[t] = r->bounds[first + t] - token;
    Refusal why;
    int reason = embedsvc_run(r->program, r->ids + token, r->positions + token,
                              r->types ? r->types + token : NULL, bounds[texts], bounds, NULL, texts, out,
                              floats, &why);
    check(reason == FINE, "refused");
    free(bounds);
    return out;
}

/* How far some results are off, beside the largest of those that are expected. */
static double off(const float *found, const float *expected, int64_t count) {
    double most = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        check(isfinite(found[i]), "not finite");
        most = fmax(most, fabs((double)found[i] - expected[i]));
        largest = fmax(largest, fabs((double)expected[i]));
    }
    return most / largest;
}

static double compare(const Recorded *r) {
    const int64_t width = r->head->width, texts = r->head->texts;
    float *all = run(r, 0, texts);
    double far = off(all, r->expected, rows(r, 0, texts) * width);
    for (int64_t text = 0; text < texts; text++) {
        float *alone = run(r, text, text + 1);
        double by = off(alone, all + rows(r, 0, text) * width, rows(r, text, text + 1) * width);
        check(by <= ALONE, "a text has another result alone");
        free(alone);
    }
    free(all);
    return far;
}

/* Compares the next pass of the file; returns 0 if there is none. */
static int next(FILE *file, int kernels, int64_t panel, double *worst) {
    Head head;
    if (fread(&head, sizeof head, 1, file) != 1) return 0;
    check(head.panel == panel && head.instruction_size == sizeof(Instruction) &&
              head.buffer_size == sizeof(Buffer), "recorded for another library");
    char *tape = take(file, head.instructions * sizeof(Instruction));
    Buffer *buffers = take(file, head.buffers * sizeof(Buffer));
    Pointer *pointers = take(file, head.pointers * sizeof(Pointer));
    char *weights = take(file, head.weights_size);
    int32_t *ids = take(file, 3 * head.tokens * sizeof *ids);
    int64_t *bounds = take(file, (head.texts + 1) * sizeof *bounds);
    int64_t count = (head.per_text ? head.texts : head.tokens) * head.width;
    float *expected = take(file, count * sizeof *expected);
    for (int64_t i = 0; i < head.pointers; i++) {
        const char *at = weights + pointers[i].offset;
        memcpy(tape + pointers[i].at, &at, sizeof at);
    }
    Refusal why;
    Program *program = embedsvc_program(kernels, (Instruction *)tape, head.instructions, buffers,
                                        head.buffers, &head.result, 1, &why);
    check(program != NULL, program ? "" : why.rule ? why.rule : "no memory");
    double far = compare(&(Recorded){&head, program, ids, ids + head.tokens,
                                     head.typed ? ids + 2 * head.tokens : NULL, bounds, expected});
    if (far / head.bound > *worst) *worst = far / head.bound;
    embedsvc_free(program);
    void *taken[] = {tape, buffers, pointers, weights, ids, bounds, expected};
    for (int i = 0; i < COUNT(taken); i++) free(taken[i]);
    return 1;
}

int main(int arguments, char **words) {
    const char *names;
    int64_t panel;
    check(arguments == 2, "recorded FILE");
    for (int kernels = 0; (names = embedsvc_kernels(kernels, &panel)); kernels++) {
        FILE *file = fopen(words[1], "rb");
        check(file != NULL, "the file cannot be read");
        int passes = 0;
        double worst = 0;
        while (next(file, kernels, panel, &worst)) passes++;
        fclose(file);
        printf("%s %d passes, off by %.3f of the bound\n", names, passes, worst);
        if (worst > 1) return 1;
    }
    return 0;
}
