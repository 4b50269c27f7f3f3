/* The instruction set that every processor of its kind has: SSE2 on x86; NEON on Arm, which has 32
   registers, so that its tiles may be larger. */
#define LANES 4
#if defined(__aarch64__)
#define TALL 8
#define INSTRUCTION_SET "NEON"
#else
#define TALL 4
#define INSTRUCTION_SET "SSE2"
#endif
#define WIDE 3
#define KERNELS kernels_baseline
#include "kernels.inc"
