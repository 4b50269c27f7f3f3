/* Every way to multiply in a lower precision that this processor has, against plain loops; the ways of AMX,
   which most processors do not have, on tiles that are plain loops here; and what becomes of a way that
   is wrong. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "processors.c"

#define DEPTH_WORDS (3 * GROUP_WORDS)
#define GROUPS (DEPTH_WORDS / GROUP_WORDS)

static int32_t rows[(BLOCK_ROWS + 2) * DEPTH_WORDS], panel[DEPTH_WORDS * WIDEST_PANEL];
static float row_scales[(BLOCK_ROWS + 2) * GROUPS], scales[GROUPS * WIDEST_PANEL];
static int32_t row_offsets[(BLOCK_ROWS + 2) * GROUPS];
static Dots dots = {.rows = rows, .panel = panel, .words = DEPTH_WORDS, .row_scales = row_scales,
                    .row_offsets = row_offsets, .scales = scales};

static float half(int32_t word, int which) {
    uint32_t bits = which ? (uint32_t)word & 0xFFFF0000u : (uint32_t)word << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double expected(long row, long column, long columns, int int8) {
    double sum = 0;
    for (long group = 0; group < GROUPS; group++) {
        double part = int8 ? row_offsets[row * GROUPS + group] : 0;
        const long end = (group + 1) * GROUP_WORDS;
        for (long k = group * GROUP_WORDS; k < end; k++) {
            int32_t x = rows[row * DEPTH_WORDS + k], y = panel[k * columns + column];
            for (int i = 0; i < 4 && int8; i++) part += (double)((int8_t *)&x)[i] * ((uint8_t *)&y)[i];
            for (int i = 0; i < 2 && !int8; i++) part += (double)half(x, i) * half(y, i);
        }
        sum += int8 ? part * row_scales[row * GROUPS + group] * scales[group * columns + column] : part;
    }
    return sum;
}

static void fill(int int8) {
    uint32_t state = 7;
    FILL(rows, int8 ? NEXT : (NEXT & 0x80FF80FF) | 0x3F003F00);
    FILL(panel, int8 ? NEXT : (NEXT & 0x80FF80FF) | 0x3F003F00);
    /* The largest numbers there are, whose products are not to be cut off. */
    for (long k = 0; int8 && k < DEPTH_WORDS; k++) rows[k] = 0x7F7F7F7F, rows[DEPTH_WORDS + k] = 0x80808080;
    for (long i = 0; int8 && i < COUNT(panel); i += 5) panel[i] = -1;
    FILL(row_scales, 1e-3f * (float)(1 + i % 7));
    FILL(scales, 1e-2f * (float)(1 + i % 5));
    offset_rows(rows, COUNT(row_offsets), row_offsets);
}

static void check_width(const char *name, SumDots *sum, long columns, int registers, int int8) {
    float alone[WIDEST_PANEL], sums[(BLOCK_ROWS + 1) * (WIDEST_PANEL + 1)];
    const long stride = columns + 1;
    dots.registers = registers;
    dots.sums_stride = stride;
    fill(int8);
    for (long count = 1; count <= BLOCK_ROWS; count++) {
        FILL(sums, NAN);
        sum(&dots, 1, count, sums);
        for (long r = 0; r < count; r++) {
            sum(&dots, 1 + r, 1, alone);
            for (long c = 0; c < columns; c++) {
                double right = expected(1 + r, c, columns, int8), found = sums[r * stride + c];
                if (found != alone[c] || !(fabs(found - right) <= 1e-5 * (10 + fabs(right)))) {
                    printf("%s: row %ld of %ld, column %ld: %g, alone %g, not %g\n", name, r, count, c,
                           found, alone[c], right);
                    exit(1);
                }
            }
        }
        for (long r = 1; r <= count; r++)
            if (!isnan(sums[r * stride - 1]) || !isnan(sums[count * stride]))
                printf("%s writes beside its sums\n", name), exit(1);
    }
}

static void check(const char *name, SumDots *sum, long columns, int int8) {
    for (int registers = int8 ? 3 : 1; registers <= 3; registers++)
        check_width(name, sum, columns / 3 * registers, registers, int8);
    printf("%s %s\n", name, int8 ? "int8" : "bfloat16");
}

static void wrong(const Dots *d, long row, long count, float *sums) {
    bfloat16_baseline(d, row, count, sums);
    sums[count * d->sums_stride - 1] += 0.01f * count;
}
static void not_a_number(const Dots *d, long row, long count, float *sums) {
    bfloat16_baseline(d, row, count, sums);
    sums[0] = NAN;
}

#if defined(__x86_64__)
#include "tiles.h"

#define bfloat16_amx bfloat16_on_loops
#define int8_amx int8_on_loops
#include "amx.c"
#endif

int main(void) {
#if defined(__x86_64__)
    if (has_avx512()) {
        check("AMX on loops", bfloat16_on_loops, 48, 0);
        check("AMX on loops", int8_on_loops, 48, 1);
        if (!released) return 3;
    }
#endif
    for (int s = 0; s < COUNT(sets); s++) {
        if (!sets[s].there()) continue;
        for (int way = 0; way < MOST_WAYS; way++) {
            const Way *half = &sets[s].bfloat16[way], *quarter = &sets[s].int8[way];
            long columns = sets[s].operations->panel;
            if (half->sum && half->there()) check(half->name, half->sum, columns, 0);
            if (quarter->sum && quarter->there()) check(quarter->name, quarter->sum, columns, 1);
        }
    }
    const Set doubtful = {"doubtful", always, &operations_baseline, .bfloat16 = {
        {"wrong", always, wrong}, {"NaN", always, not_a_number}, {"right", always, bfloat16_baseline}}};
    const Way *into[MOST_WAYS];
    const char *distrusted = "";
    int count = usable(doubtful.bfloat16, &doubtful, 0, into, &distrusted);
    if (count != 1 || strcmp(into[0]->name, "right") || strcmp(distrusted, "NaN")) return 2;
    puts("what is wrong is not used");
    return 0;
}
