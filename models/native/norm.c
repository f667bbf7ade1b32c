/* Batch norm and ReLU of rows (n, channels), in two passes over memory forward and two backward, where torch makes four
   and more.

   channels: a multiple of 16. Statistics are summed over CHUNK rows at a time and then over chunks in their order, so
   that the number of threads changes no bit. The ReLU lets a NaN through. */

#include "values.h"

#define CHUNK SUM_ROWS

/* What is the same for every row of a channel. */
typedef struct {
    const float *mean, *scale, *bias; /* the output is ReLU((x - mean) scale + bias) */
    const float *of_all, *slope;      /* backward: means over all rows, see norm_backward */
} Constants;

static ALWAYS_INLINE void read_strip(int width, long c, Constants of, vec *mean, vec *scale, vec *bias)
{
    for (int i = 0; i < width; i++) {
        mean[i] = *(const vec *)(of.mean + c + i * LANES);
        scale[i] = *(const vec *)(of.scale + c + i * LANES);
        bias[i] = *(const vec *)(of.bias + c + i * LANES);
    }
}

static ALWAYS_INLINE void sum_rows(int half, int width, long c, long start, long stop, long channels, const void *x,
                                   float *sums)
{
    /* Of the distance from the first row: squares of numbers far from zero would lose what makes their spread. */
    vec first[4], sum[4] = {{0}}, squares[4] = {{0}};
    for (int i = 0; i < width; i++)
        first[i] = load(x, c + i * LANES, half);
    for (long row = start; row < stop; row++)
#pragma GCC unroll 4
        for (int i = 0; i < width; i++) {
            vec far = load(x, row * channels + c + i * LANES, half) - first[i];
            sum[i] += far;
            squares[i] += far * far;
        }
    for (int i = 0; i < width; i++) {
        *(vec *)(sums + c + i * LANES) = sum[i];
        *(vec *)(sums + channels + c + i * LANES) = squares[i];
    }
}

/* (chunks, 2, channels) -> (2, channels), in `sums` itself. */
static void add_chunks(long chunks, long channels, float *sums)
{
    for (long c = 0; c < 2 * channels; c++) {
        double total = 0;
        for (long chunk = 0; chunk < chunks; chunk++)
            total += sums[chunk * 2 * channels + c];
        sums[c] = (float)total;
    }
}

/* Mean and variance (over n) of each channel. sums: room for (n / SUM_ROWS rounded up, 2, channels). */
void norm_statistics(long n, long channels, int half, const void *x, float *sums, float *mean, float *variance,
                     int threads)
{
    long chunks = (n + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long chunk = 0; chunk < chunks; chunk++) {
        long start = chunk * CHUNK, stop = start + CHUNK < n ? start + CHUNK : n;
        IN_STRIPS(sum_rows, half, channels, start, stop, channels, x, sums + chunk * 2 * channels);
    }
    add_chunks(chunks, channels, sums);
    for (long c = 0; c < channels; c += LANES) {
        vec far = *(vec *)(sums + c) / (float)n;
        *(vec *)(mean + c) = load(x, c, half) + far;
        vec spread = *(vec *)(sums + channels + c) / (float)n - far * far;
        *(vec *)(variance + c) = choose(spread < 0, (vec){0}, spread);
    }
}

static ALWAYS_INLINE void apply(int half, int width, long c, long start, long stop, long channels, const void *x,
                                Constants of, void *y)
{
    vec mean[4], scale[4], bias[4];
    read_strip(width, c, of, mean, scale, bias);
    for (long row = start; row < stop; row++)
#pragma GCC unroll 4
        for (int i = 0; i < width; i++) {
            long at = row * channels + c + i * LANES;
            vec value = (load(x, at, half) - mean[i]) * scale[i] + bias[i];
            store(y, at, choose(value < 0, (vec){0}, value), half);
        }
}

/* y = ReLU((x - mean) scale + bias). */
void norm_apply(long n, long channels, int half, const void *x, const float *mean, const float *scale,
                const float *bias, void *y, int threads)
{
    Constants of = {mean, scale, bias, 0, 0};
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long start = 0; start < n; start += CHUNK) {
        long stop = start + CHUNK < n ? start + CHUNK : n;
        IN_STRIPS(apply, half, channels, start, stop, channels, x, of, y);
    }
}

static ALWAYS_INLINE void sum_gradients(int half, int width, long c, long start, long stop, long channels,
                                        const void *x, const void *grad, Constants of, float *sums)
{
    vec mean[4], scale[4], bias[4], sum[4] = {{0}}, products[4] = {{0}};
    read_strip(width, c, of, mean, scale, bias);
    for (long row = start; row < stop; row++)
#pragma GCC unroll 4
        for (int i = 0; i < width; i++) {
            long at = row * channels + c + i * LANES;
            vec far = load(x, at, half) - mean[i];
            vec g = choose(far * scale[i] + bias[i] <= 0, (vec){0}, load(grad, at, half));
            sum[i] += g;
            products[i] += g * far;
        }
    for (int i = 0; i < width; i++) {
        *(vec *)(sums + c + i * LANES) = sum[i];
        *(vec *)(sums + channels + c + i * LANES) = products[i];
    }
}

static ALWAYS_INLINE void give_gradient(int half, int width, long c, long start, long stop, long channels,
                                        const void *x, const void *grad, Constants of, void *out)
{
    vec mean[4], scale[4], bias[4], of_all[4], slope[4];
    read_strip(width, c, of, mean, scale, bias);
    for (int i = 0; i < width; i++) {
        of_all[i] = *(const vec *)(of.of_all + c + i * LANES);
        slope[i] = *(const vec *)(of.slope + c + i * LANES);
    }
    for (long row = start; row < stop; row++)
#pragma GCC unroll 4
        for (int i = 0; i < width; i++) {
            long at = row * channels + c + i * LANES;
            vec far = load(x, at, half) - mean[i];
            vec g = choose(far * scale[i] + bias[i] <= 0, (vec){0}, load(grad, at, half));
            store(out, at, scale[i] * (g - of_all[i] - far * slope[i]), half);
        }
}

/* out: the gradient of x, where mean and variance are those of x itself and scale is weight / sqrt(variance + eps).
   sums: as in norm_statistics; its first 2 x channels numbers become the sums over all rows of the gradient behind the
   ReLU and of its products with x - mean. */
void norm_backward(long n, long channels, int half, const void *x, const void *grad, const float *mean,
                   const float *variance, const float *scale, const float *bias, double eps, float *sums, void *out,
                   int threads)
{
    long chunks = (n + CHUNK - 1) / CHUNK;
    Constants of = {mean, scale, bias, 0, 0};
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long chunk = 0; chunk < chunks; chunk++) {
        long start = chunk * CHUNK, stop = start + CHUNK < n ? start + CHUNK : n;
        IN_STRIPS(sum_gradients, half, channels, start, stop, channels, x, grad, of, sums + chunk * 2 * channels);
    }
    add_chunks(chunks, channels, sums);
    float *of_all = malloc(2 * sizeof(float) * channels), *slope = of_all + channels;
    for (long c = 0; c < channels; c++) {
        of_all[c] = sums[c] / (float)n;
        slope[c] = sums[channels + c] / ((variance[c] + (float)eps) * (float)n);
    }
    of.of_all = of_all;
    of.slope = slope;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long chunk = 0; chunk < chunks; chunk++) {
        long start = chunk * CHUNK, stop = start + CHUNK < n ? start + CHUNK : n;
        IN_STRIPS(give_gradient, half, channels, start, stop, channels, x, grad, of, out);
    }
    free(of_all);
}
