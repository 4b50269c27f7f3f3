/* NEON with instructions for products of bfloat16 (BFDOT) and of int8 (SDOT). */
#include "dots.h"
#if defined(NEWER_ARM)
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod,bf16"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod+bf16")
#endif
#define LANES 4
#define TALL 8
#define WIDE 3
#include "vectors.inc"

#define BFLOAT16_DOTS bfloat16_neon_bf16
#define INT8_DOTS int8_neon_dotprod
#define DOT_BFLOAT16 dot_by_bfdot
#define DOT_INT8 dot_by_sdot
#define FIRST_INT8(offset) (0 * (offset)) /* there is nothing to make good: see below */

INLINE vec dot_by_bfdot(vec sums, ivec weights, ivec row) {
    __asm__("bfdot %0.4s, %1.8h, %2.8h" : "+w"(sums) : "w"(weights), "w"(row));
    return sums;
}

/* Both factors are signed, so the 128 that was added to weights is taken away. */
INLINE ivec dot_by_sdot(ivec sums, ivec weights, ivec row) {
    weights ^= (int32_t)0x80808080;
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sums) : "w"(weights), "w"(row));
    return sums;
}

#include "dots.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
