/* Checks programs when they are made: their kernels read and write no memory but what they were given, on
   any batch that check_batch.c lets through. */

#include <stdlib.h>
#include <string.h>

#include "scratch.h"
#include "tape.h"

/* Small enough that no product of these, counted in floats or bytes, exceeds 63 bits. */
#define MOST_COLUMNS (1L << 24) /* of a row; a row of each buffer may have 16 times as many together */
#define MOST_BUFFERS (1L << 16)
#define MOST_INSTRUCTIONS (1L << 20)

/* Returns the text of the condition, as the rule that is broken, unless it holds. */
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) return #condition;                                                       \
    } while (0)

typedef struct {
    const Program *program;
    char *written; /* for each buffer, whether an earlier instruction has written to it */
} Check;

static int64_t kind_of(const Check *check, Operand operand) {
    return check->program->buffers[operand.buffer].kind;
}

/* Whether an operand has so many columns. */
static int fits(const Check *check, Operand operand, int64_t columns) {
    if (!between(operand.buffer, 0, check->program->count - 1)) return 0;
    int64_t width = check->program->buffers[operand.buffer].width;
    return between(columns, 1, width) && between(operand.column, 0, width - columns);
}

/* Whether that many columns can be read: they must also have been written before. */
static int reads(const Check *check, Operand operand, int64_t columns) {
    return fits(check, operand, columns) && check->written[operand.buffer];
}

/* Whether an operand's address can be computed, which is done even if the operation does not use it. */
static int there(const Check *check, Operand operand) {
    if (operand.buffer < 0) return 1;
    return operand.buffer < check->program->count &&
           between(operand.column, 0, check->program->buffers[operand.buffer].width);
}

static int apart(Operand x, Operand y) { return x.buffer != y.buffer; }

/* Whether two operands have rows for the same things: both for tokens, or both for texts. */
static int alike(const Check *check, Operand x, Operand y) {
    return (kind_of(check, x) == TEXTS) == (kind_of(check, y) == TEXTS);
}

/* Columns rounded up to whole panels. */
static int64_t panels(const Check *check, int64_t columns) {
    int64_t panel = check->program->kernels->operations->panel;
    return (columns + panel - 1) / panel * panel;
}

static int table_fits(const Instruction *in, int64_t width) {
    return between(in->source, IDS, SOURCES - 1) && between(in->rows, 1, MOST_ROWS) && in->weight &&
           in->weight_size >= in->rows * width;
}

static const char *check_table(const Check *check, const Instruction *in) {
    REQUIRE(fits(check, in->out, in->width) && kind_of(check, in->out) != TEXTS);
    REQUIRE(table_fits(in, in->width));
    return NULL;
}

static const char *check_halved_table(const Check *check, const Instruction *in) {
    REQUIRE(fits(check, in->out, in->width) && kind_of(check, in->out) != TEXTS);
    REQUIRE(between(in->source, IDS, SOURCES - 1) && between(in->rows, 1, MOST_ROWS));
    REQUIRE(in->width % 2 == 0 && in->words && in->words_size >= in->rows * (in->width / 2));
    return NULL;
}

/* Whether the codes of (rows, columns) quantised weights, scales and offsets are there. A group has whole
   words of codes. */
static int quantized_fits(const Instruction *in, int64_t rows, int64_t columns) {
    if ((in->bits != 4 && in->bits != 8) || !between(in->group, 8, MOST_COLUMNS)) return 0;
    if (in->group % 8 || columns % in->group || !in->words || !in->scales) return 0;
    return in->words_size >= rows * (columns / (32 / in->bits)) &&
           in->scales_size >= rows * (columns / in->group) * 2;
}

static const char *check_quantized_table(const Check *check, const Instruction *in) {
    REQUIRE(fits(check, in->out, in->width) && kind_of(check, in->out) != TEXTS);
    REQUIRE(between(in->source, IDS, SOURCES - 1) && between(in->rows, 1, MOST_ROWS));
    REQUIRE(quantized_fits(in, in->rows, in->width));
    return NULL;
}

static const char *check_copy(const Check *check, const Instruction *in) {
    REQUIRE(fits(check, in->out, in->width) && reads(check, in->x, in->width));
    REQUIRE(alike(check, in->x, in->out) && apart(in->x, in->out));
    return NULL;
}

static const char *check_add(const Check *check, const Instruction *in) {
    REQUIRE(reads(check, in->out, in->width));
    if (in->y.buffer < 0) {
        REQUIRE(in->weight && in->weight_size >= in->width);
        return NULL;
    }
    REQUIRE(reads(check, in->y, in->width) && alike(check, in->y, in->out));
    return NULL;
}

static const char *check_multiply(const Check *check, const Instruction *in) {
    REQUIRE(reads(check, in->out, in->width));
    REQUIRE(reads(check, in->y, in->width) && alike(check, in->y, in->out));
    return NULL;
}

/* What a linear layer has to keep to whatever its weights are. */
static const char *check_layer(const Check *check, const Instruction *in) {
    REQUIRE(fits(check, in->out, in->width) && reads(check, in->x, in->inputs));
    REQUIRE(alike(check, in->x, in->out) && apart(in->x, in->out));
    REQUIRE(!in->bias || in->bias_size >= panels(check, in->width));
    REQUIRE(between(in->activation, NONE, AFTER_PRODUCTS - 1));
    if (in->y.buffer < 0) return NULL;
    REQUIRE(reads(check, in->y, in->width) && alike(check, in->y, in->out) && apart(in->y, in->out));
    return NULL;
}

static const char *check_linear(const Check *check, const Instruction *in) {
    const char *rule = check_layer(check, in);
    if (rule) return rule;
    REQUIRE(in->weight && in->weight_size >= panels(check, in->width) * in->inputs);
    return NULL;
}

/* A layer whose weights lie in words of so many numbers. */
static const char *check_words(const Check *check, const Instruction *in, int64_t numbers) {
    const char *rule = check_layer(check, in);
    if (rule) return rule;
    int64_t block = numbers * WHOLE_WORDS, of_row = (in->inputs + block - 1) / block;
    int64_t blocks = panels(check, in->width) * of_row;
    REQUIRE(in->words && in->words_size >= blocks * WHOLE_WORDS);
    REQUIRE(numbers < 4 || (in->scales && in->scales_size >= blocks));
    return NULL;
}

static const char *check_halves(const Check *check, const Instruction *in) { return check_words(check, in, 2); }
static const char *check_quarters(const Check *check, const Instruction *in) { return check_words(check, in, 4); }

static const char *check_quantized(const Check *check, const Instruction *in) {
    const char *rule = check_layer(check, in);
    if (rule) return rule;
    REQUIRE(quantized_fits(in, panels(check, in->width), in->inputs));
    return NULL;
}

static const char *check_layer_norm(const Check *check, const Instruction *in) {
    REQUIRE(reads(check, in->out, in->width));
    REQUIRE(in->weight && in->weight_size >= in->width);
    REQUIRE(!in->bias || in->bias_size >= in->width);
    return NULL;
}

static const char *check_rms_norm(const Check *check, const Instruction *in) {
    REQUIRE(reads(check, in->out, in->width));
    REQUIRE(in->size >= 1 && in->width % in->size == 0);
    REQUIRE(in->weight && in->weight_size >= in->size);
    return NULL;
}

static const char *check_activation(const Check *check, const Instruction *in) {
    REQUIRE(reads(check, in->out, in->width));
    REQUIRE(between(in->activation, NONE, ACTIVATIONS - 1));
    return NULL;
}

/* Numbers that were learned for an activation. */
static const char *check_learned(const Check *check, const Instruction *in, int64_t numbers) {
    REQUIRE(reads(check, in->out, in->width));
    REQUIRE(in->weight && in->weight_size >= numbers);
    return NULL;
}

static const char *check_prelu(const Check *check, const Instruction *in) { return check_learned(check, in, 1); }
static const char *check_xielu(const Check *check, const Instruction *in) { return check_learned(check, in, 4); }

static const char *check_rope(const Check *check, const Instruction *in) {
    REQUIRE(reads(check, in->out, in->width) && kind_of(check, in->out) != TEXTS);
    REQUIRE(between(in->size, 1, in->width) && between(in->heads, 1, in->width));
    REQUIRE(in->heads * in->size == in->width);
    REQUIRE(between(in->rotated, 2, in->size) && in->rotated % 2 == 0);
    REQUIRE(in->source == POSITIONS && table_fits(in, in->rotated));
    return NULL;
}

static const char *check_experts(const Check *check, const Instruction *in) {
    REQUIRE(fits(check, in->out, in->width) && reads(check, in->x, in->width));
    REQUIRE(between(in->experts, 1, MOST_COLUMNS) && between(in->chosen, 1, in->experts));
    REQUIRE(reads(check, in->y, in->experts));
    REQUIRE(alike(check, in->x, in->out) && alike(check, in->y, in->out));
    REQUIRE(apart(in->x, in->out) && apart(in->y, in->out));
    REQUIRE(between(in->inner, 1, MOST_COLUMNS));
    int64_t up = panels(check, in->inner) * in->width, down = panels(check, in->width) * in->inner;
    REQUIRE(in->weight && in->weight_size / in->experts >= up);
    REQUIRE(in->down && in->down_size / in->experts >= down);
    return NULL;
}

static const char *check_attention(const Check *check, const Instruction *in) {
    REQUIRE(between(in->heads, 1, MOST_COLUMNS) && between(in->kv_heads, 1, in->heads));
    REQUIRE(in->heads % in->kv_heads == 0 && between(in->size, 1, MOST_COLUMNS));
    REQUIRE(in->heads * in->size == in->width);
    REQUIRE(fits(check, in->out, in->width) && reads(check, in->x, in->width));
    REQUIRE(reads(check, in->y, in->kv_heads * in->size) && reads(check, in->z, in->kv_heads * in->size));
    REQUIRE(apart(in->x, in->out) && apart(in->y, in->out) && apart(in->z, in->out));
    REQUIRE(between(in->read, ALL, READS - 1));
    int64_t asked = in->read == ALL ? TOKENS : TEXTS;
    REQUIRE(kind_of(check, in->x) == asked && kind_of(check, in->out) == asked);
    REQUIRE(kind_of(check, in->y) == TOKENS && kind_of(check, in->z) == TOKENS);
    REQUIRE(between(in->window, -1, MOST_ROWS));
    if (!in->bias) return NULL;
    REQUIRE(between(in->reach, 1, MOST_ROWS) && in->bias_size / in->heads >= 2 * in->reach - 1);
    return NULL;
}

static const char *check_pool(const Check *check, const Instruction *in) {
    REQUIRE(fits(check, in->out, in->width) && reads(check, in->x, in->width));
    REQUIRE(kind_of(check, in->x) == TOKENS && kind_of(check, in->out) == TEXTS);
    return NULL;
}

static const char *(*const checks[OPERATIONS])(const Check *, const Instruction *) = {
#define OPERATION(NAME, name, RULE, SCOPE) [NAME] = check_##RULE,
#include "operations.def"
};

static const char *check_buffers(const Program *program) {
    REQUIRE(between(program->instructions, 1, MOST_INSTRUCTIONS));
    REQUIRE(between(program->count, 1, MOST_BUFFERS));
    int64_t columns = 0;
    for (long b = 0; b < program->count; b++) {
        REQUIRE(between(program->buffers[b].width, 1, MOST_COLUMNS));
        REQUIRE(between(program->buffers[b].kind, TOKENS, KINDS - 1));
        columns += program->buffers[b].width;
    }
    REQUIRE(columns <= 16 * MOST_COLUMNS);
    for (long r = 0; r < program->result_count; r++) {
        REQUIRE(between(program->results[r], 0, program->count - 1));
        REQUIRE(program->buffers[program->results[r]].kind != CHUNK);
        for (long other = 0; other < r; other++) REQUIRE(program->results[r] != program->results[other]);
    }
    return NULL;
}

static const char *check_instruction(Check *check, const Instruction *in) {
    REQUIRE(between(in->operation, 0, OPERATIONS - 1));
    REQUIRE(there(check, in->x) && there(check, in->y) && there(check, in->z));
    const char *rule = checks[in->operation](check, in);
    if (!rule) check->written[in->out.buffer] = 1;
    return rule;
}

static void lower(int64_t *limit, int64_t to) { *limit = !*limit || to < *limit ? to : *limit; }

/* Takes the limits that an instruction sets for every batch. */
static void limit(Limits *limits, const Instruction *in) {
    if (looks_up(in)) lower(&limits->rows[in->source], in->rows);
    if (attends(in) && in->bias) lower(&limits->longest, in->reach);
    if (attends(in) && in->window >= 0 && (limits->window < 0 || in->window < limits->window))
        limits->window = in->window;
}

int check_program(Program *program, Refusal *why) {
    const char *rule = check_buffers(program);
    long at = -1;
    Check check = {program, NULL};
    program->limits = (Limits){.window = -1};
    if (!rule) {
        check.written = allocate(program->count);
        if (!check.written) return refuse(why, NO_MEMORY, 0, program->count, 0);
        memset(check.written, 0, program->count);
        for (at = 0; at < program->instructions; at++) {
            rule = check_instruction(&check, &program->tape[at]);
            if (rule) break;
            limit(&program->limits, &program->tape[at]);
        }
        if (!rule) {
            at = -1;
            for (long r = 0; r < program->result_count; r++)
                if (!check.written[program->results[r]]) rule = "the results are written";
        }
        free(check.written);
    }
    if (!rule) return 1;
    refuse(why, BAD_TAPE, at, 0, 0);
    why->rule = rule;
    return 0;
}
