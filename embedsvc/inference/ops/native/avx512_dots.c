/* AVX-512 with instructions for products of bfloat16 (BF16) and of int8 (VNNI). */
#include "dots.h"
#if defined(NEWER_X86)
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma,avx512bf16,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,avx512bf16,avx512vnni,prefer-vector-width=512")
#endif
#define LANES 16
#define TALL 8
#define WIDE 3
#include "vectors.inc"

#define BFLOAT16_DOTS bfloat16_avx512_bf16
#define INT8_DOTS int8_avx512_vnni
#define DOT_BFLOAT16 dot_by_bf16
#define DOT_INT8 dot_by_vnni

INLINE vec dot_by_bf16(vec sums, ivec weights, ivec row) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(weights), "v"(row));
    return sums;
}

/* The first factors are unsigned, the second ones signed. */
INLINE ivec dot_by_vnni(ivec sums, ivec weights, ivec row) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(weights), "v"(row));
    return sums;
}

#include "dots.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
