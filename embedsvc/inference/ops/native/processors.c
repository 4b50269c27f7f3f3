/* Which kernels this processor can run: operations compiled for a set of instructions, and for products in
   a lower precision whatever instructions it has besides. */

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tape.h"

#if defined(__x86_64__)
#include <cpuid.h>

static int has_avx512(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}

static int has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#if defined(NEWER_X86)
/* The bit of what CPUID says in EAX, EBX, ECX or EDX (0 to 3) of its leaf 7. */
static int has_bit(unsigned sub_leaf, int of, int bit) {
    unsigned registers[4] = {0};
    __get_cpuid_count(7, sub_leaf, &registers[0], &registers[1], &registers[2], &registers[3]);
    return registers[of] >> bit & 1;
}

static int has_avx512_bf16(void) { return has_bit(1, 0, 5); }
static int has_avx512_vnni(void) { return has_bit(0, 2, 11); }
static int has_avx_vnni(void) { return has_bit(1, 0, 4); }

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#define ASK_FOR_STATE 0x1023 /* ARCH_REQ_XCOMP_PERM */
#define STATE_OF_TILES 18    /* XFEATURE_XTILEDATA */

/* Whether tiles are there, and Linux allows this process to use them: without being asked it does not. */
static int has_tiles(void) {
    return has_bit(0, 3, 24) && !syscall(SYS_arch_prctl, ASK_FOR_STATE, STATE_OF_TILES);
}
#else
static int has_tiles(void) { return 0; }
#endif

static int has_amx_bf16(void) { return has_bit(0, 3, 22) && has_tiles(); }
static int has_amx_int8(void) { return has_bit(0, 3, 25) && has_tiles(); }
#endif
#endif

#if defined(NEWER_ARM) && defined(__linux__)
#include <sys/auxv.h>

static int has_dotprod(void) { return getauxval(AT_HWCAP) >> 20 & 1; }
static int has_neon_bf16(void) { return getauxval(AT_HWCAP2) >> 14 & 1; }
#elif defined(NEWER_ARM) && defined(__APPLE__)
#include <sys/sysctl.h>

static int has_feature(const char *name) {
    int there = 0;
    size_t size = sizeof there;
    return !sysctlbyname(name, &there, &size, NULL, 0) && there;
}

static int has_dotprod(void) { return has_feature("hw.optional.arm.FEAT_DotProd"); }
static int has_neon_bf16(void) { return has_feature("hw.optional.arm.FEAT_BF16"); }
#elif defined(NEWER_ARM)
static int has_dotprod(void) { return 0; }
static int has_neon_bf16(void) { return 0; }
#endif

static int always(void) { return 1; }

/* How products in a lower precision may be computed. */
typedef struct {
    const char *name;
    int (*there)(void);
    SumDots *sum;
} Way;

#define MOST_WAYS 3

/* Operations, and what may multiply for them: the fastest way first, and last the one that runs wherever
   the operations do. */
typedef struct {
    const char *name;
    int (*there)(void);
    const Operations *operations;
    Way bfloat16[MOST_WAYS], int8[MOST_WAYS];
} Set;

static const Set sets[] = {
#if defined(__x86_64__)
    {
        "AVX-512", has_avx512, &operations_avx512,
        .bfloat16 = {
#if defined(NEWER_X86)
            {"AMX", has_amx_bf16, bfloat16_amx},
            {"AVX512-BF16", has_avx512_bf16, bfloat16_avx512_bf16},
#endif
            {"AVX-512", always, bfloat16_avx512},
        },
        .int8 = {
#if defined(NEWER_X86)
            {"AMX", has_amx_int8, int8_amx},
            {"AVX512-VNNI", has_avx512_vnni, int8_avx512_vnni},
#endif
            {"AVX-512", always, int8_avx512},
        },
    },
    {
        "AVX2", has_avx2, &operations_avx2,
        .bfloat16 = {{"AVX2", always, bfloat16_avx2}},
        .int8 = {
#if defined(NEWER_X86)
            {"AVX-VNNI", has_avx_vnni, int8_avx_vnni},
#endif
            {"AVX2", always, int8_avx2},
        },
    },
#endif
    {
        BASELINE, always, &operations_baseline,
        .bfloat16 = {
#if defined(NEWER_ARM)
            {"BFDOT", has_neon_bf16, bfloat16_neon_bf16},
#endif
            {BASELINE, always, bfloat16_baseline},
        },
        .int8 = {
#if defined(NEWER_ARM)
            {"SDOT", has_dotprod, int8_neon_dotprod},
#endif
            {BASELINE, always, int8_baseline},
        },
    },
};

/* --- whether a way can be trusted ---------------------------------------------------------------- */

#define TRIED_ROWS 13
#define TRIED_WORDS (2 * GROUP_WORDS)
#define WIDEST_PANEL 48

typedef struct {
    int32_t rows[BLOCK_ROWS * TRIED_WORDS], panel[TRIED_WORDS * WIDEST_PANEL];
    float row_scales[2 * BLOCK_ROWS], scales[2 * WIDEST_PANEL];
    int32_t row_offsets[2 * BLOCK_ROWS];
    float sums[2][BLOCK_ROWS * WIDEST_PANEL];
} Trial;

/* The offsets of groups of rows of int8. */
static void offset_rows(const int32_t *words, long groups, int32_t *offsets) {
    const int8_t *numbers = (const int8_t *)words;
    for (long group = 0; group < groups; group++) {
        int32_t sum = 0;
        for (long i = 0; i < 4 * GROUP_WORDS; i++) sum += numbers[4 * GROUP_WORDS * group + i];
        offsets[group] = -128 * sum;
    }
}

/* Whether a way computes the same as another one, which is known to be right. */
static int agrees(SumDots *sum, SumDots *right, int64_t columns, int int8) {
    Trial trial;
    uint32_t state = 1;
    Dots dots = {
        .rows = trial.rows, .panel = trial.panel, .words = TRIED_WORDS, .registers = 3,
        .sums_stride = columns, .row_scales = trial.row_scales, .row_offsets = trial.row_offsets,
        .scales = trial.scales};
#define NEXT (state = state * 1664525 + 1013904223)
#define FILL(array, value) for (long i = 0; i < COUNT(array); i++) (array)[i] = (value)
    /* In bfloat16 these are numbers from 1 to 4 and from -4 to -1. */
    FILL(trial.rows, int8 ? NEXT : (NEXT & 0x80FF80FF) | 0x3F803F80);
    FILL(trial.panel, int8 ? NEXT : (NEXT & 0x80FF80FF) | 0x3F803F80);
    FILL(trial.row_scales, 1e-3f * (i + 1));
    FILL(trial.scales, 1e-3f * (i + 1));
    offset_rows(trial.rows, COUNT(trial.rows) / GROUP_WORDS, trial.row_offsets);
    for (int rows = TRIED_ROWS; rows; rows /= 2) {
        sum(&dots, 1, rows, trial.sums[0]);
        right(&dots, 1, rows, trial.sums[1]);
        for (long i = 0; i < rows * columns; i++)
            if (!(fabsf(trial.sums[0][i] - trial.sums[1][i]) <= 1e-4f * (1 + fabsf(trial.sums[1][i]))))
                return 0;
    }
    return 1;
}

/* --- what this processor has --------------------------------------------------------------------- */

static Kernels found[COUNT(sets) * MOST_WAYS];
static int found_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The ways that this processor has, the fastest first; returns how many. `distrusted` gets the name of one
   that computes something else. */
static int usable(const Way ways[MOST_WAYS], const Set *set, int int8, const Way *into[MOST_WAYS],
                  const char **distrusted) {
    int count = 0, last = MOST_WAYS - 1;
    while (!ways[last].sum) last--;
    for (int way = 0; way <= last; way++) {
        if (!ways[way].there()) continue;
        if (way < last && !agrees(ways[way].sum, ways[last].sum, set->operations->panel, int8)) {
            *distrusted = ways[way].name;
            continue;
        }
        into[count++] = &ways[way];
    }
    return count;
}

static void find(void) {
    for (int s = 0; s < COUNT(sets); s++) {
        const Set *set = &sets[s];
        if (!set->there()) continue;
        const Way *bfloat16[MOST_WAYS], *int8[MOST_WAYS];
        const char *distrusted = "";
        int halves = usable(set->bfloat16, set, 0, bfloat16, &distrusted);
        int quarters = usable(set->int8, set, 1, int8, &distrusted);
        for (int n = 0; n < halves || n < quarters; n++) {
            const Way *half = bfloat16[n < halves ? n : halves - 1];
            const Way *quarter = int8[n < quarters ? n : quarters - 1];
            Kernels *kernels = &found[found_count++];
            *kernels = (Kernels){set->operations, half->sum, quarter->sum, ""};
            snprintf(kernels->names, sizeof kernels->names, "%s;%s;%s;%s", set->name, half->name,
                     quarter->name, distrusted);
        }
    }
}

const Kernels *kernels_numbered(int number) {
    pthread_once(&once, find);
    return number >= 0 && number < found_count ? &found[number] : NULL;
}
