/* The scores of eq. 1 and 2 over rows (n, channels), image after image: tanh and the product with the score's weights in
   one pass each way. channels: a multiple of 16. first (images + 1): where each image's rows begin. */

#include "values.h"

static ALWAYS_INLINE vec inverse(vec x)
{
#if defined(__AVX512F__)
    /* A division takes as long as all else here: 14 bits, and one step of Newton's that doubles them. */
    vec near = (vec)_mm512_rcp14_ps((__m512)x);
    return near * (2 - x * near);
#else
    return 1 / x;
#endif
}

/* Within 3e-7 of tanh; a NaN stays one. */
static ALWAYS_INLINE vec tanh_of(vec x)
{
    vec ten = (vec){0} + 10;
    x = choose(x > ten, ten, choose(x < -ten, -ten, x));
    /* exp(2 x) = 2^whole exp(rest), |rest| <= ln 2 / 2. */
    vec scaled = x * 2.885390082f;
    mask whole = __builtin_convertvector(scaled + choose(scaled < 0, (vec){0} - 0.5f, (vec){0} + 0.5f), mask);
    vec rest = (scaled - __builtin_convertvector(whole, vec)) * 0.6931471806f;
    vec power = 1 + rest * (1 + rest * (0.5f + rest * (1.f / 6 + rest * (1.f / 24 + rest * (1.f / 120 + rest / 720)))));
    vec grown = power * (vec)((whole + 127) << 23);
    return 1 - 2 * inverse(grown + 1);
}

static ALWAYS_INLINE float sum_of(vec x)
{
    float parts[LANES];
    memcpy(parts, &x, sizeof parts);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            parts[i] += parts[i + half];
    return parts[0];
}

static ALWAYS_INLINE void score(int half, long row, long channels, void *hidden, const float *shift,
                                const float *weight, float *scores)
{
    vec sum = {0};
    for (long c = 0; c < channels; c += LANES) {
        vec h = tanh_of(load(hidden, row * channels + c, half) + *(const vec *)(shift + c));
        store(hidden, row * channels + c, h, half);
        sum += h * *(const vec *)(weight + c);
    }
    scores[row] = sum_of(sum);
}

/* hidden: the products of rows and weights, becomes tanh(hidden + shift of its image). shift (images, channels). */
void attend_forward(long images, long channels, int half, const int64_t *first, void *hidden, const float *shift,
                    const float *weight, float *scores, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long image = 0; image < images; image++)
        for (long row = first[image]; row < first[image + 1]; row++)
            if (half)
                score(1, row, channels, hidden, shift + image * channels, weight, scores);
            else
                score(0, row, channels, hidden, shift + image * channels, weight, scores);
}

static ALWAYS_INLINE void hand_back(int half, long row, long channels, const void *hidden, const float *weight, float g,
                                    void *out, float *of_shift, float *of_weight)
{
    for (long c = 0; c < channels; c += LANES) {
        vec h = load(hidden, row * channels + c, half);
        vec d = g * *(const vec *)(weight + c) * (1 - h * h);
        store(out, row * channels + c, d, half);
        *(vec *)(of_shift + c) += d;
        *(vec *)(of_weight + c) += g * h;
    }
}

/* out: the gradient before tanh. of_shift, of_weight (images, channels): sums over each image's rows, of that gradient
   and of the score's weights'. */
void attend_backward(long images, long channels, int half, const int64_t *first, const void *hidden,
                     const float *weight, const float *grad, void *out, float *of_shift, float *of_weight, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long image = 0; image < images; image++) {
        float *shift = of_shift + image * channels, *own = of_weight + image * channels;
        memset(shift, 0, sizeof(float) * channels);
        memset(own, 0, sizeof(float) * channels);
        for (long row = first[image]; row < first[image + 1]; row++)
            if (half)
                hand_back(1, row, channels, hidden, weight, grad[row], out, shift, own);
            else
                hand_back(0, row, channels, hidden, weight, grad[row], out, shift, own);
    }
}

static ALWAYS_INLINE float product(int half, long row, long channels, const void *left, const void *right)
{
    vec sum = {0};
    for (long c = 0; c < channels; c += LANES)
        sum += load(left, row * channels + c, half) * load(right, row * channels + c, half);
    return sum_of(sum);
}

/* out (n): each row of `left` times that of `right`. */
void row_products(long n, long channels, int half, const void *left, const void *right, float *out, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < n; row++)
        out[row] = half ? product(1, row, channels, left, right) : product(0, row, channels, left, right);
}
