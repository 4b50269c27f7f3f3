/* AVX2 with instructions for products of int8 (AVX-VNNI). */
#include "dots.h"
#if defined(NEWER_X86)
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avxvnni")
#endif
#define LANES 8
#define TALL 4
#define WIDE 3
#include "vectors.inc"

#define INT8_DOTS int8_avx_vnni
#define DOT_BFLOAT16 dot_bfloat16
#define DOT_INT8 dot_by_vnni

/* The first factors are unsigned, the second ones signed. */
INLINE ivec dot_by_vnni(ivec sums, ivec weights, ivec row) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(weights), "x"(row));
    return sums;
}

#include "dots.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
