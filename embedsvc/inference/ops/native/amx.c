/* AMX: eight tiles of up to 16 rows of 64 bytes. A tile of rows times a tile of weights is added to a tile of
   sums; three of those are as wide as a panel of AVX-512. */
#include "dots.h"
#if defined(NEWER_X86)
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma,amx-tile,amx-bf16,amx-int8"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,amx-tile,amx-bf16,amx-int8,prefer-vector-width=512")
#endif
#define LANES 16
#define WIDE 3
#include "vectors.inc"

#define TILE_WORDS 16

/* What LDTILECFG reads. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_of_row[16];
    uint8_t rows[16];
} Tiles;

/* Tiles 0 to 2 are sums, 3 is rows, 4 to 6 are weights. */
static void open_tiles(long rows) {
    Tiles tiles = {.palette = 1};
    for (int tile = 0; tile < 7; tile++) {
        tiles.bytes_of_row[tile] = 64;
        tiles.rows[tile] = tile < 4 ? rows : TILE_WORDS;
    }
    __asm__ volatile("" : : "r"(&tiles) : "memory"); /* gcc thinks that only 8 bytes are read */
    _tile_loadconfig(&tiles);
}

/* Tiles for the words [k, k + TILE_WORDS) of the rows, and of up to three tiles of the panel. */
#define LOAD_TILES(d, row, k, registers)                                                           \
    do {                                                                                           \
        const long stride_ = 4 * LANES * (registers);                                              \
        const int32_t *panel_ = (d)->panel + (k) * LANES * (registers);                            \
        _tile_loadd(3, (d)->rows + (row) * (d)->words + (k), 4 * (d)->words);                      \
        _tile_loadd(4, panel_, stride_);                                                           \
        if ((registers) > 1) _tile_loadd(5, panel_ + LANES, stride_);                              \
        if ((registers) > 2) _tile_loadd(6, panel_ + 2 * LANES, stride_);                          \
    } while (0)
#define ZERO_SUMS()                                                                                \
    do {                                                                                           \
        _tile_zero(0);                                                                             \
        _tile_zero(1);                                                                             \
        _tile_zero(2);                                                                             \
    } while (0)
#define STORE_SUMS(to, stride, registers)                                                          \
    do {                                                                                           \
        _tile_stored(0, (to), 4 * (stride));                                                       \
        if ((registers) > 1) _tile_stored(1, (to) + LANES, 4 * (stride));                          \
        if ((registers) > 2) _tile_stored(2, (to) + 2 * LANES, 4 * (stride));                      \
    } while (0)

void bfloat16_amx(const Dots *d, long row, long rows, float *sums) {
    const long registers = d->registers;
    open_tiles(rows);
    ZERO_SUMS();
    for (long k = 0; k < d->words; k += TILE_WORDS) {
        LOAD_TILES(d, row, k, registers);
        _tile_dpbf16ps(0, 3, 4);
        if (registers > 1) _tile_dpbf16ps(1, 3, 5);
        if (registers > 2) _tile_dpbf16ps(2, 3, 6);
    }
    STORE_SUMS(sums, d->sums_stride, registers);
    _tile_release();
}

void int8_amx(const Dots *d, long row, long rows, float *sums) {
    int32_t dots[BLOCK_ROWS * PANEL] __attribute__((aligned(64)));
    long groups = d->words / GROUP_WORDS;
    for (long r = 0; r < rows; r++) memset(sums + r * d->sums_stride, 0, PANEL * sizeof *sums);
    open_tiles(rows);
    for (long group = 0; group < groups; group++) {
        ZERO_SUMS();
        LOAD_TILES(d, row, group * GROUP_WORDS, WIDE);
        _tile_dpbsud(0, 3, 4);
        _tile_dpbsud(1, 3, 5);
        _tile_dpbsud(2, 3, 6);
        STORE_SUMS(dots, PANEL, WIDE);
        for (long r = 0; r < rows; r++) {
            long at = (row + r) * groups + group;
            for (long c = 0; c < PANEL; c += LANES) {
                float *to = sums + r * d->sums_stride + c;
                ivec whole = *(const ivec *)(dots + r * PANEL + c) + d->row_offsets[at];
                store(to, load(to) + floats(whole) * load(d->scales + group * PANEL + c) * d->row_scales[at]);
            }
        }
    }
    _tile_release();
}

_Static_assert(TILE_WORDS == GROUP_WORDS && WHOLE_WORDS % TILE_WORDS == 0, "a tile is a group");
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
