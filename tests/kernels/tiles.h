/* The instructions of AMX as plain loops, by Intel's Architecture Instruction Set Extensions and Future
   Features, chapter 3. Whatever they are not to be given ends the program. */

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    int rows, bytes;
    uint8_t data[16][64];
} tiles[8];
static int configured, released;

static void must(int holds, const char *what) {
    if (!holds) printf("a tile: %s\n", what), exit(1);
}

static void load_config(const uint8_t *from) {
    must(from[0] == 1 && from[1] == 0, "palette 1, from the first row on");
    for (int i = 2; i < 16; i++) must(!from[i], "reserved bytes are 0");
    for (int tile = 0; tile < 16; tile++) {
        int bytes = from[16 + 2 * tile] | from[17 + 2 * tile] << 8, rows = from[48 + tile];
        must(tile < 8 ? bytes <= 64 && rows <= 16 && !bytes == !rows : !bytes && !rows, "its size");
        if (tile < 8) tiles[tile].bytes = bytes, tiles[tile].rows = rows;
    }
    memset(tiles[0].data, 0xFF, sizeof tiles[0].data); /* nobody may count on zeros */
    configured = 1;
}

static void load_tile(int tile, const uint8_t *from, long stride) {
    must(configured && tiles[tile].rows, "it is configured");
    memset(tiles[tile].data, 0, sizeof tiles[tile].data);
    for (int r = 0; r < tiles[tile].rows; r++)
        memcpy(tiles[tile].data[r], from + r * stride, tiles[tile].bytes);
}

static void store_tile(int tile, uint8_t *to, long stride) {
    must(configured && tiles[tile].rows, "it is configured");
    for (int r = 0; r < tiles[tile].rows; r++)
        memcpy(to + r * stride, tiles[tile].data[r], tiles[tile].bytes);
}

/* sums += x y, where y has a row for each word of the columns of x. */
static void multiply_tiles(int sums, int x, int y, int int8) {
    must(configured && tiles[sums].rows == tiles[x].rows, "as many rows");
    must(tiles[x].bytes == 4 * tiles[y].rows && tiles[sums].bytes == tiles[y].bytes, "as many words");
    must(sums != x && sums != y && x != y, "three tiles");
    for (int r = 0; r < tiles[sums].rows; r++)
        for (int k = 0; k < tiles[x].bytes / 4; k++)
            for (int c = 0; c < tiles[sums].bytes / 4; c++) {
                uint8_t *at = &tiles[sums].data[r][4 * c];
                const uint8_t *from_x = &tiles[x].data[r][4 * k], *from_y = &tiles[y].data[k][4 * c];
                if (int8) {
                    int32_t sum;
                    memcpy(&sum, at, 4);
                    for (int i = 0; i < 4; i++) sum += (int8_t)from_x[i] * (int32_t)from_y[i];
                    memcpy(at, &sum, 4);
                    continue;
                }
                float sum, factors[2];
                memcpy(&sum, at, 4);
                for (int i = 0; i < 2; i++) {
                    memset(factors, 0, sizeof factors);
                    memcpy((uint8_t *)&factors[0] + 2, from_x + 2 * i, 2);
                    memcpy((uint8_t *)&factors[1] + 2, from_y + 2 * i, 2);
                    sum += factors[0] * factors[1];
                }
                memcpy(at, &sum, 4);
            }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbsud
#define _tile_loadconfig(from) load_config((const uint8_t *)(from))
#define _tile_release() (configured = 0, released = 1)
#define _tile_zero(tile) memset(tiles[tile].data, 0, sizeof tiles[tile].data)
#define _tile_loadd(tile, from, stride) load_tile(tile, (const uint8_t *)(from), stride)
#define _tile_stored(tile, to, stride) store_tile(tile, (uint8_t *)(to), stride)
#define _tile_dpbf16ps(sums, x, y) multiply_tiles(sums, x, y, 0)
#define _tile_dpbsud(sums, x, y) multiply_tiles(sums, x, y, 1)
