/* Products in a lower precision. Rows and weights lie in words of 32 bits: two bfloat16, or four int8, that
   are 16 apart along the depth of the product, so that rows are rounded to whole registers of words. Sets
   of instructions differ in how they add up the products of such words. */
#ifndef DOTS_H
#define DOTS_H

#include <stdint.h>

#define BLOCK_ROWS 16  /* rows that are multiplied at a time, at most */
#define GROUP_WORDS 16 /* int8: 64 neighbours in a row, or in a column of weights, have a scale in common */
#define WHOLE_WORDS 16 /* rows and columns are as many words, or a multiple: zeros stand at their end */

/* Some rows times a panel of weights, as wide as 1 to 3 registers; in int8 always as 3.

   What only int8 has: an int8 of a row is signed, one of a weight has 128 added, and `row_offsets` make
   that good: they are -128 times the sum of a row's group. */
typedef struct {
    const int32_t *rows;  /* (rows, words) */
    const int32_t *panel; /* (words, columns of the panel) */
    long words, registers;
    long near, far; /* how many words ahead the panel is fetched into the first and the second cache */
    long sums_stride; /* floats from row to row of the sums */
    const float *row_scales;    /* (rows, groups) */
    const int32_t *row_offsets; /* (rows, groups) */
    const float *scales;        /* (groups, columns of the panel) */
} Dots;

/* Writes the sums (rows, columns of the panel) of up to BLOCK_ROWS rows, from `row` on. They lie within
   rounding of what any other such function gives, and a row's are the same whatever rows are beside it. */
typedef void SumDots(const Dots *dots, long row, long rows, float *sums);

extern SumDots bfloat16_baseline, int8_baseline, bfloat16_avx2, int8_avx2, bfloat16_avx512, int8_avx512;
extern SumDots int8_avx_vnni, bfloat16_avx512_bf16, int8_avx512_vnni, bfloat16_amx, int8_amx;
extern SumDots bfloat16_neon_bf16, int8_neon_dotprod;

/* Whether the compiler knows these instructions. */
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define NEWER_X86 1
#endif
#if defined(__aarch64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 10)
#define NEWER_ARM 1
#endif

#endif
