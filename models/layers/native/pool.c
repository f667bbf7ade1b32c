/* The maximum over each window's active rows. channels: a multiple of 16. members (windows, 4): rows of a window, n where
   inactive; a window has at least one. */

#include "values.h"

static ALWAYS_INLINE void most(int half, int width, long first, long window, long n, long channels, const void *x,
                               const int64_t *members, void *out)
{
    for (long c = first; c < first + width * LANES; c += LANES) {
        vec best = {0};
        int found = 0;
        for (int i = 0; i < 4; i++) {
            int64_t row = members[window * 4 + i];
            if (row >= n)
                continue;
            vec value = load(x, row * channels + c, half);
            /* A NaN wins, as it does in torch. */
            best = found ? choose((value > best) | (value != value), value, best) : value;
            found = 1;
        }
        store(out, window * channels + c, best, half);
    }
}

void pool_forward(long windows, long n, long channels, int half, const void *x, const int64_t *members, void *out,
                  int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long window = 0; window < windows; window++)
        IN_STRIPS(most, half, channels, window, n, channels, x, members, out);
}

static ALWAYS_INLINE void hand_back(int half, int width, long first, long window, long n, long channels, const void *x,
                                    const int64_t *members, const void *out, const void *grad, void *grad_x)
{
    for (long c = first; c < first + width * LANES; c += LANES) {
        vec best = load(out, window * channels + c, half), rest = load(grad, window * channels + c, half);
        for (int i = 0; i < 4; i++) {
            int64_t row = members[window * 4 + i];
            if (row >= n)
                continue;
            /* Of equal ones the first takes all of it. */
            mask taken = load(x, row * channels + c, half) == best;
            store(grad_x, row * channels + c, choose(taken, rest, (vec){0}), half);
            rest = choose(taken, (vec){0}, rest);
        }
    }
}

/* The gradient of x; rows in no window stay as they are. */
void pool_backward(long windows, long n, long channels, int half, const void *x, const int64_t *members,
                   const void *out, const void *grad, void *grad_x, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long window = 0; window < windows; window++)
        IN_STRIPS(hand_back, half, channels, window, n, channels, x, members, out, grad, grad_x);
}
