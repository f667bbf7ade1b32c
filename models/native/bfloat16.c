/* Submanifold convolution of rows, bfloat16, on the processor's matrix tiles (AMX): the neighbours of 16 sites at a time
   lie side by side as tiles, and products of all nine kernel elements are added up in float32 tiles. A kernel element
   that joins none of the 16 sites is skipped; else an inactive neighbour counts as zeros.

   Channels and outputs are multiples of 32. Arguments otherwise as in float32.c. */

#include "native.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIDE 16  /* rows of a tile, and its columns of float32 */
#define DEPTH 32 /* bfloat16 numbers in a tile's row */
#define TILE (SIDE * DEPTH)
/* A block's gathered tiles stay in the second cache. */
#define BLOCK_BYTES (1 << 20)
#define MOST_ROWS 512
/* Rows whose products are summed before the next ones are taken: their tiles stay in the second cache. */
#define CHUNK 1024

#define REQUEST_PERMISSION 0x1023
#define TILE_DATA 18

int has_bfloat16(void) { return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0; }

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} Shape;

static const Shape SHAPE = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

/* The library behind torch uses tiles too, and may expect to find its own shape again. */
static void begin(Shape *before)
{
    _tile_storeconfig(before);
    _tile_loadconfig(&SHAPE);
}

static void end(const Shape *before)
{
    if (before->palette)
        _tile_loadconfig(before);
    else
        _tile_release();
}

static inline __m512i widened(const float *from)
{
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from)));
}

/* (outputs, 9, channels) float32 -> the right factors' tiles (outputs / 32, 9, channels / 32, 2), rounded: the pairs of
   channels 2 i and 2 i + 1 of 16 outputs in row i. turned: as in float32.c. */
void pack_bfloat16(long outputs, long channels, int turned, const float *weight, uint16_t *packed, int threads)
{
    long in = turned ? outputs : channels, out = turned ? channels : outputs;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (long panel = 0; panel < out / 32; panel++)
        for (long element = 0; element < ELEMENTS; element++)
            for (long step = 0; step < in / DEPTH; step++)
                for (long half = 0; half < 2; half++) {
                    uint16_t *to = packed + (((panel * ELEMENTS + element) * (in / DEPTH) + step) * 2 + half) * TILE;
                    long o = panel * 32 + half * SIDE, c = step * DEPTH;
                    if (turned)
                        for (long i = 0; i < DEPTH; i += 2) {
                            const float *from = weight + ((c + i) * ELEMENTS + ELEMENTS - 1 - element) * channels + o;
                            __m512i even = widened(from), odd = widened(from + ELEMENTS * channels);
                            _mm512_storeu_si512(to + i * SIDE, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
                        }
                    else
                        for (long j = 0; j < SIDE; j++) {
                            const float *from = weight + ((o + j) * ELEMENTS + element) * channels + c;
                            uint32_t pairs[SIDE];
                            _mm512_storeu_si512(pairs, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + SIDE),
                                                                                    _mm512_loadu_ps(from)));
                            for (long i = 0; i < SIDE; i++)
                                memcpy(to + i * DEPTH + 2 * j, pairs + i, 4);
                        }
                }
}

static inline void copy_row(uint16_t *to, const uint16_t *from, long channels)
{
    for (long c = 0; c < channels; c += DEPTH)
        _mm512_store_si512(to + c / DEPTH * TILE, _mm512_loadu_si512(from + c));
}

static inline void clear_row(uint16_t *to, long channels)
{
    for (long c = 0; c < channels; c += DEPTH)
        _mm512_store_si512(to + c / DEPTH * TILE, _mm512_setzero_si512());
}

/* Tiles of 16 rows and their nine neighbours: (9, channels / 32) tiles; which elements join any of the rows. */
static unsigned gather(long n, long channels, const uint16_t *rows, const int32_t *neighbours, long start, uint16_t *to)
{
    unsigned joined = 0;
    for (long i = 0; i < SIDE; i++)
        for (long element = 0; element < ELEMENTS; element++) {
            int32_t source = start + i < n ? neighbours[(start + i) * ELEMENTS + element] : (int32_t)n;
            uint16_t *row = to + element * (channels / DEPTH) * TILE + i * DEPTH;
            if (source < n)
                copy_row(row, rows + source * channels, channels);
            else
                clear_row(row, channels);
            joined |= (unsigned)(source < n) << element;
        }
    return joined;
}

/* Four tiles of sums as 32 x 32 numbers of the output; those of rows from `stop` on are left out. */
static void write_sums(float (*sums)[SIDE * SIDE], long start, long stop, long outputs, uint16_t *out)
{
    for (long row = 0; row < 2 * SIDE && start + row < stop; row++) {
        float(*half)[SIDE * SIDE] = sums + row / SIDE * 2;
        __m512 first = _mm512_load_ps(half[0] + row % SIDE * SIDE);
        __m512 second = _mm512_load_ps(half[1] + row % SIDE * SIDE);
        _mm512_storeu_si512(out + (start + row) * outputs, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
}

/* The sums over all kernel elements for 32 rows and 32 outputs: tiles 0 to 3. left: of the upper 16 rows, `group` before
   those of the lower ones. right: the elements' kernels. */
static ALWAYS_INLINE void multiply(unsigned upper, unsigned lower, long steps, long group, const uint16_t *left,
                                   const uint16_t *right)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long element = 0; element < ELEMENTS; element++, left += steps * TILE, right += steps * 2 * TILE) {
        int both = (upper & lower) >> element & 1;
        if (both)
            for (long step = 0; step < steps; step++) {
                _tile_loadd(6, right + step * 2 * TILE, 64);
                _tile_loadd(7, right + step * 2 * TILE + TILE, 64);
                _tile_loadd(4, left + step * TILE, 64);
                _tile_loadd(5, left + group + step * TILE, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        else if (upper >> element & 1)
            for (long step = 0; step < steps; step++) {
                _tile_loadd(6, right + step * 2 * TILE, 64);
                _tile_loadd(7, right + step * 2 * TILE + TILE, 64);
                _tile_loadd(4, left + step * TILE, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
            }
        else if (lower >> element & 1)
            for (long step = 0; step < steps; step++) {
                _tile_loadd(6, right + step * 2 * TILE, 64);
                _tile_loadd(7, right + step * 2 * TILE + TILE, 64);
                _tile_loadd(5, left + group + step * TILE, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
    }
}

/* out (n, outputs). Returns how many rows the products had, the zeros in their tiles included. */
int64_t convolve_bfloat16(long n, long channels, long outputs, const uint16_t *rows, const uint16_t *packed,
                          const int32_t *neighbours, uint16_t *out, int threads)
{
    long steps = channels / DEPTH, group = ELEMENTS * steps * TILE;
    long block = BLOCK_BYTES / (ELEMENTS * channels * 2) / 32 * 32;
    long share = (n / (4 * threads) + 32) / 32 * 32;
    block = block < 32 ? 32 : block > MOST_ROWS ? MOST_ROWS : block;
    block = block < share ? block : share;
    int64_t multiplied = 0;
#pragma omp parallel num_threads(threads) reduction(+ : multiplied)
    {
        Shape before;
        begin(&before);
        uint16_t *tiles = aligned_alloc(64, sizeof(uint16_t) * (block / SIDE) * group);
        unsigned joined[MOST_ROWS / SIDE];
        float sums[2][4][SIDE * SIDE] __attribute__((aligned(64)));
#pragma omp for schedule(dynamic)
        for (long start = 0; start < n; start += block) {
            long stop = n - start < block ? n : start + block, groups = (stop - start + 31) / 32 * 2;
            for (long i = 0; i < groups; i++) {
                joined[i] = gather(n, channels, rows, neighbours, start + i * SIDE, tiles + i * group);
                multiplied += SIDE * __builtin_popcount(joined[i]);
            }
            /* Sums are written while the next ones are made: to wait for a tile takes as long as some products. */
            long written = 0, made = 0, last_row = 0, last_panel = 0;
            for (long panel = 0; panel < outputs / 32; panel++)
                for (long i = 0; i < groups; i += 2) {
                    multiply(joined[i], joined[i + 1], steps, group, tiles + i * group,
                             packed + panel * ELEMENTS * steps * 2 * TILE);
                    float(*here)[SIDE * SIDE] = sums[made++ % 2];
                    _tile_stored(0, here[0], 64);
                    _tile_stored(1, here[1], 64);
                    _tile_stored(2, here[2], 64);
                    _tile_stored(3, here[3], 64);
                    if (made > 1)
                        write_sums(sums[written++ % 2], last_row, stop, outputs, out + last_panel * 32);
                    last_row = start + i * SIDE;
                    last_panel = panel;
                }
            write_sums(sums[written % 2], last_row, stop, outputs, out + last_panel * 32);
        }
        free(tiles);
        end(&before);
    }
    return multiplied;
}

/* Left factors' tiles of the gradient, (rounded n / 32, outputs / 16): 32 rows of 16 outputs, turned on their side. */
static void turn(long n, long outputs, const uint16_t *grad, uint16_t *turned, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long first = 0; first < n; first += DEPTH)
        for (long o = 0; o < outputs; o += SIDE) {
            uint16_t *to = turned + (first * outputs + o * DEPTH);
            long count = n - first < DEPTH ? n - first : DEPTH;
            if (count < DEPTH)
                memset(to, 0, 2 * TILE);
            for (long i = 0; i < count; i++)
                for (long j = 0; j < SIDE; j++)
                    to[j * DEPTH + i] = grad[(first + i) * outputs + o + j];
        }
}

/* Right factors' tiles of `count` rows from `start` on, (rounded count / 32, 2): pairs of rows of 32 channels. */
static void pair_up(long n, long channels, const uint16_t *rows, const int32_t *neighbours, long element, long start,
                    long count, uint16_t *to)
{
    __m512i low, high;
    uint16_t order[2][DEPTH];
    for (int i = 0; i < DEPTH; i++) {
        order[0][i] = (uint16_t)(i / 2 + i % 2 * 32);
        order[1][i] = (uint16_t)(order[0][i] + SIDE);
    }
    low = _mm512_loadu_si512(order[0]);
    high = _mm512_loadu_si512(order[1]);
    for (long i = 0; i < (count + DEPTH - 1) / DEPTH * DEPTH; i += 2) {
        __m512i pair[2];
        for (long k = 0; k < 2; k++) {
            int32_t source = start + i + k < n ? neighbours[(start + i + k) * ELEMENTS + element] : (int32_t)n;
            pair[k] = source < n ? _mm512_loadu_si512(rows + source * channels) : _mm512_setzero_si512();
        }
        uint16_t *tile = to + i / DEPTH * 2 * TILE + i % DEPTH / 2 * DEPTH;
        _mm512_store_si512(tile, _mm512_permutex2var_epi16(pair[0], low, pair[1]));
        _mm512_store_si512(tile + TILE, _mm512_permutex2var_epi16(pair[0], high, pair[1]));
    }
}

/* As in float32.c; out in float32. turned: room for (n rounded up to 32, outputs). */
void weight_gradient_bfloat16(long n, long channels, long outputs, const uint16_t *rows, const uint16_t *grad,
                              const int32_t *neighbours, uint16_t *turned, float *out, int threads)
{
    turn(n, outputs, grad, turned, threads);
#pragma omp parallel num_threads(threads)
    {
        Shape before;
        begin(&before);
        uint16_t *right = aligned_alloc(64, sizeof(uint16_t) * CHUNK * 32);
        long jobs = ELEMENTS * (channels / 32);
        for (long start = 0; start < n; start += CHUNK) {
            long count = n - start < CHUNK ? n - start : CHUNK, steps = (count + DEPTH - 1) / DEPTH;
            /* A job stays with its thread in every chunk: `static` without a wait, so sums have one order. */
#pragma omp for schedule(static) nowait
            for (long job = 0; job < jobs; job++) {
                long element = job / (channels / 32), c = job % (channels / 32) * 32;
                pair_up(n, channels, rows + c, neighbours, element, start, count, right);
                for (long o = 0; o < outputs; o += 32) {
                    float *to = out + (o * ELEMENTS + element) * channels + c;
                    long stride = ELEMENTS * channels;
                    if (start == 0) {
                        _tile_zero(0);
                        _tile_zero(1);
                        _tile_zero(2);
                        _tile_zero(3);
                    } else {
                        _tile_loadd(0, to, 4 * stride);
                        _tile_loadd(1, to + SIDE, 4 * stride);
                        _tile_loadd(2, to + SIDE * stride, 4 * stride);
                        _tile_loadd(3, to + SIDE * stride + SIDE, 4 * stride);
                    }
                    for (long step = 0; step < steps; step++) {
                        const uint16_t *left = turned + (start + step * DEPTH) * outputs + o * DEPTH;
                        _tile_loadd(4, left, 64);
                        _tile_loadd(5, left + TILE, 64);
                        _tile_loadd(6, right + step * 2 * TILE, 64);
                        _tile_loadd(7, right + step * 2 * TILE + TILE, 64);
                        _tile_dpbf16ps(0, 4, 6);
                        _tile_dpbf16ps(1, 4, 7);
                        _tile_dpbf16ps(2, 5, 6);
                        _tile_dpbf16ps(3, 5, 7);
                    }
                    _tile_stored(0, to, 4 * stride);
                    _tile_stored(1, to + SIDE, 4 * stride);
                    _tile_stored(2, to + SIDE * stride, 4 * stride);
                    _tile_stored(3, to + SIDE * stride + SIDE, 4 * stride);
                }
            }
        }
        free(right);
        end(&before);
    }
}

#else

int has_bfloat16(void) { return 0; }

#endif
