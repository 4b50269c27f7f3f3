/* The instruction set that every processor of its kind has: SSE2 on x86; NEON on Arm, which has 32
   registers, so that its tiles may be larger. */
#define LANES 4
#if defined(__aarch64__)
#define TALL 8
#else
#define TALL 4
#endif
#define WIDE 3
#define OPERATIONS_OF_SET operations_baseline
#define BFLOAT16_DOTS bfloat16_baseline
#define INT8_DOTS int8_baseline
#include "kernels.inc"
