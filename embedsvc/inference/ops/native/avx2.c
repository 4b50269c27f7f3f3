/* AVX2 with fused multiply-add: 16 registers of 8 floats. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define LANES 8
#define TALL 4
#define WIDE 3
#define OPERATIONS_OF_SET operations_avx2
#define BFLOAT16_DOTS bfloat16_avx2
#define INT8_DOTS int8_avx2
#include "kernels.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
