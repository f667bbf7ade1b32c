/* Rows of float32 or bfloat16 numbers, read and written as vectors of float32. */

#pragma once
#include "native.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef int32_t mask __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

/* half: 1 for bfloat16. at: in numbers, not bytes. */
static ALWAYS_INLINE vec load(const void *from, long at, int half)
{
    if (half)
        return (vec)(__builtin_convertvector(*(const halves *)((const uint16_t *)from + at), bits) << 16);
    return *(const vec *)((const float *)from + at);
}

/* Rounded to the nearest bfloat16, halves to even; a NaN stays one. */
static ALWAYS_INLINE void store(void *to, long at, vec x, int half)
{
    if (!half) {
        *(vec *)((float *)to + at) = x;
        return;
    }
#if defined(__AVX512BF16__) && defined(__AVX512VL__)
    *(__m256i_u *)((uint16_t *)to + at) = (__m256i)_mm512_cvtneps_pbh((__m512)x);
#else
    bits raw = (bits)x, rounded = (raw + 0x7fff + ((raw >> 16) & 1)) >> 16;
    mask nan = x != x;
    rounded = ((bits)nan & ((raw >> 16) | 0x40)) | (~(bits)nan & rounded);
    *(halves *)((uint16_t *)to + at) = __builtin_convertvector(rounded, halves);
#endif
}

/* Of numbers that were bfloat16 before. */
static ALWAYS_INLINE void store_unrounded(void *to, long at, vec x, int half)
{
    if (half)
        *(halves *)((uint16_t *)to + at) = __builtin_convertvector((bits)x >> 16, halves);
    else
        *(vec *)((float *)to + at) = x;
}

static ALWAYS_INLINE vec choose(mask where, vec yes, vec no)
{
    return (vec)(((bits)where & (bits)yes) | (~(bits)where & (bits)no));
}

/* Calls `function(half, width, c, ...)` for strips of `channels`, four vectors wide as long as there are as many: a
   strip's constants and sums stay in registers. Each combination is compiled apart. */
#define IN_STRIPS(function, half, channels, ...)                                \
    do {                                                                        \
        long c_ = 0;                                                            \
        if (half) {                                                             \
            for (; c_ + 4 * LANES <= (channels); c_ += 4 * LANES)               \
                function(1, 4, c_, __VA_ARGS__);                                \
            for (; c_ < (channels); c_ += LANES)                                \
                function(1, 1, c_, __VA_ARGS__);                                \
        } else {                                                                \
            for (; c_ + 4 * LANES <= (channels); c_ += 4 * LANES)               \
                function(0, 4, c_, __VA_ARGS__);                                \
            for (; c_ < (channels); c_ += LANES)                                \
                function(0, 1, c_, __VA_ARGS__);                                \
        }                                                                       \
    } while (0)
