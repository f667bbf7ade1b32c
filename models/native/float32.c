/* Submanifold convolution of rows, float32: the products of a kernel element over its pairs of active sites, added up
   in registers. Neighbours are read where they lie, so that nothing is gathered, and no product is ever stored.

   rows (n, channels). neighbours (n, 9): the row of each site's neighbours in the order of a kernel's elements, n where
   inactive. Kernels come packed by `pack_float32`. */

#include "values.h"

/* A register tile has ROWS x VECTORS sums; a panel is the outputs that it covers. */
#if defined(__AVX512F__)
#define ROWS 6
#define VECTORS 4
#else
#define ROWS 4
#define VECTORS 2
#endif
#define PANEL (LANES * VECTORS)
_Static_assert(PANEL_ROOM % PANEL == 0, "a packed kernel has room for whole panels");
/* Of the weights' gradient: four divides every width, so that no row of a tile is wasted. */
#define GRADIENT_ROWS 4
/* Outputs whose gradient is made at a time, and pairs whose rows stay in the first cache meanwhile. */
#define GROUP 128
#define CHUNK 64
#define MOST_ROWS 512

/* (outputs, 9, channels) -> (9, panels, channels, PANEL), zeros behind the last output. Where `turned`, of the
   convolution that the gradient of the rows is: outputs and channels change places, the kernel is turned round. */
void pack_float32(long outputs, long channels, int turned, const float *weight, float *packed, int threads)
{
    long in = turned ? outputs : channels, out = turned ? channels : outputs;
    long panels = (out + PANEL - 1) / PANEL;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (long element = 0; element < ELEMENTS; element++)
        for (long panel = 0; panel < panels; panel++) {
            float *to = packed + (element * panels + panel) * in * PANEL;
            long width = out - panel * PANEL < PANEL ? out - panel * PANEL : PANEL;
            if (width < PANEL)
                memset(to, 0, sizeof(float) * in * PANEL);
            if (turned)
                for (long i = 0; i < in; i++)
                    memcpy(to + i * PANEL, weight + (i * ELEMENTS + ELEMENTS - 1 - element) * channels + panel * PANEL,
                           sizeof(float) * width);
            else
                for (long first = 0; first < in; first += LANES)
                    for (long j = 0; j < width; j++) {
                        const float *from = weight + ((panel * PANEL + j) * ELEMENTS + element) * channels;
                        for (long i = first; i < in && i < first + LANES; i++)
                            to[i * PANEL + j] = from[i];
                    }
        }
}

static ALWAYS_INLINE void multiply(int vectors, const float *const *in, const float *kernel, long channels,
                                   float *const *out, int add)
{
    vec sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            sum[i][j] = add ? *(const vec *)(out[i] + j * LANES) : (vec){0};
    for (long c = 0; c < channels; c++) {
        vec k[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            k[j] = *(const vec *)(kernel + c * PANEL + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                sum[i][j] += in[i][c] * k[j];
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            *(vec *)(out[i] + j * LANES) = sum[i][j];
}

static void multiply_by_width(int vectors, const float *const *in, const float *kernel, long channels,
                              float *const *out, int add)
{
    switch (vectors) {
#if VECTORS == 4
    case 4: multiply(4, in, kernel, channels, out, add); break;
    case 3: multiply(3, in, kernel, channels, out, add); break;
#endif
    case 2: multiply(2, in, kernel, channels, out, add); break;
    default: multiply(1, in, kernel, channels, out, add);
    }
}

/* out (n, outputs); outputs: a multiple of 16. Every output is written. */
void convolve_float32(long n, long channels, long outputs, const float *rows, const float *packed,
                      const int32_t *neighbours, float *out, int threads)
{
    long panels = (outputs + PANEL - 1) / PANEL;
    long block = n / (8 * threads) + 1;
    block = block < 64 ? 64 : block > MOST_ROWS ? MOST_ROWS : block;
    /* One panel of the kernel after the other, so that it stays in the cache over all rows. */
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (long panel = 0; panel < panels; panel++)
        for (long start = 0; start < n; start += block) {
            long stop = start + block < n ? start + block : n;
            long width = outputs - panel * PANEL < PANEL ? outputs - panel * PANEL : PANEL;
            float spare[PANEL] = {0};
            for (int step = 0; step < ELEMENTS; step++) {
                /* The site itself first: every row has it, so that it begins the sums. */
                int element = step == 0 ? CENTRE : step <= CENTRE ? step - 1 : step;
                const float *kernel = packed + (element * panels + panel) * channels * PANEL;
                const float *in[MOST_ROWS + ROWS];
                float *to[MOST_ROWS + ROWS];
                int count = 0;
                for (long row = start; row < stop; row++) {
                    int32_t source = neighbours[row * ELEMENTS + element];
                    in[count] = rows + source * channels;
                    to[count] = out + row * outputs + panel * PANEL;
                    count += source < n;
                }
                if (count == 0)
                    continue;
                for (int i = count; i < count + ROWS; i++) {
                    in[i] = in[0];
                    to[i] = spare;
                }
                for (int i = 0; i < count; i += ROWS)
                    multiply_by_width((int)(width / LANES), in + i, kernel, channels, to + i, element != CENTRE);
            }
        }
}

/* Of the usual size without a call. */
static ALWAYS_INLINE void copy(float *to, const float *from, long count, long usual)
{
    if (count == usual)
        memcpy(to, from, sizeof(float) * usual);
    else
        memcpy(to, from, sizeof(float) * count);
}

/* sums (GRADIENT_ROWS, vectors) += grad.T x over `count` rows; grad (count, GROUP), x (count, PANEL). */
static ALWAYS_INLINE void add_products(int vectors, int count, const float *grad, const float *x, float *const *out)
{
    vec sum[GRADIENT_ROWS][VECTORS];
#pragma GCC unroll 4
    for (int i = 0; i < GRADIENT_ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            sum[i][j] = *(const vec *)(out[i] + j * LANES);
    for (int row = 0; row < count; row++) {
        vec own[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            own[j] = *(const vec *)(x + row * PANEL + j * LANES);
#pragma GCC unroll 4
        for (int i = 0; i < GRADIENT_ROWS; i++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                sum[i][j] += grad[row * GROUP + i] * own[j];
    }
#pragma GCC unroll 4
    for (int i = 0; i < GRADIENT_ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            *(vec *)(out[i] + j * LANES) = sum[i][j];
}

/* The gradient of the kernel: out (outputs, 9, channels), of grad (n, outputs) and rows (n, channels); channels: a
   multiple of 16. Every element's sums are made in the order of the rows, whatever `threads` is. */
void weight_gradient_float32(long n, long channels, long outputs, const float *rows, const float *grad,
                             const int32_t *neighbours, float *out, int threads)
{
    long groups = (outputs + GROUP - 1) / GROUP;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (long element = 0; element < ELEMENTS; element++)
        for (long group = 0; group < groups; group++) {
            long first = group * GROUP, height = outputs - first < GROUP ? outputs - first : GROUP;
            for (long o = first; o < first + height; o++)
                memset(out + (o * ELEMENTS + element) * channels, 0, sizeof(float) * channels);
            /* What a chunk's products read lies side by side: rows that are a power of two apart would push each other
               out of the cache. */
            float own[CHUNK * PANEL] __attribute__((aligned(64))), of[CHUNK * GROUP] __attribute__((aligned(64)));
            const float *in[CHUNK];
            float spare[PANEL] = {0};
            memset(of, 0, sizeof of);
            for (long row = 0; row < n;) {
                int count = 0;
                for (; row < n && count < CHUNK; row++) {
                    int32_t source = neighbours[row * ELEMENTS + element];
                    if (source >= n)
                        continue;
                    in[count] = rows + source * channels;
                    copy(of + count++ * GROUP, grad + row * outputs + first, height, GROUP);
                }
                for (long c = 0; c < channels; c += PANEL) {
                    long width = channels - c < PANEL ? channels - c : PANEL;
                    for (int i = 0; i < count; i++)
                        copy(own + i * PANEL, in[i] + c, width, PANEL);
                    for (long o = 0; o < height; o += GRADIENT_ROWS) {
                        float *to[GRADIENT_ROWS];
                        for (int i = 0; i < GRADIENT_ROWS; i++)
                            to[i] = o + i < height ? out + ((first + o + i) * ELEMENTS + element) * channels + c : spare;
                        switch (width / LANES) {
#if VECTORS == 4
                        case 4: add_products(4, count, of + o, own, to); break;
                        case 3: add_products(3, count, of + o, own, to); break;
#endif
                        case 2: add_products(2, count, of + o, own, to); break;
                        default: add_products(1, count, of + o, own, to);
                        }
                    }
                }
            }
        }
}
