/* The maximum over windows of four rows. channels: a multiple of 16.

   members (windows, 4): the rows of each window, n where inactive; at least one is active. Without members the map is
   dense: rows are those of maps of height x width, windows are 2 x 2, and an odd last row or column is left out. */

#include "values.h"

typedef struct {
    long windows, n, channels, height, width;
    const int64_t *members;
} Windows;

static ALWAYS_INLINE void rows_of(Windows of, long window, int64_t *rows)
{
    if (of.members) {
        memcpy(rows, of.members + window * 4, 4 * sizeof(int64_t));
        return;
    }
    long across = of.width / 2, down = of.height / 2;
    long x = window % across, y = window / across % down, image = window / across / down;
    rows[0] = (image * of.height + 2 * y) * of.width + 2 * x;
    rows[1] = rows[0] + 1;
    rows[2] = rows[0] + of.width;
    rows[3] = rows[2] + 1;
}

static ALWAYS_INLINE void most(int half, int width, long first, Windows of, long window, const int64_t *rows,
                               const void *x, void *out)
{
    for (long c = first; c < first + width * LANES; c += LANES) {
        vec best = {0};
        int found = 0;
        for (int i = 0; i < 4; i++) {
            if (rows[i] >= of.n)
                continue;
            vec value = load(x, rows[i] * of.channels + c, half);
            /* A NaN wins, as it does in torch. */
            best = found ? choose((value > best) | (value != value), value, best) : value;
            found = 1;
        }
        store_unrounded(out, window * of.channels + c, best, half);
    }
}

void pool_forward(long windows, long n, long channels, long height, long width, int half, const int64_t *members,
                  const void *x, void *out, int threads)
{
    Windows of = {windows, n, channels, height, width, members};
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long window = 0; window < windows; window++) {
        int64_t rows[4];
        rows_of(of, window, rows);
        IN_STRIPS(most, half, channels, of, window, rows, x, out);
    }
}

static ALWAYS_INLINE void hand_back(int half, int width, long first, Windows of, long window, const int64_t *rows,
                                    const void *x, const void *out, const void *grad, void *grad_x)
{
    for (long c = first; c < first + width * LANES; c += LANES) {
        vec best = load(out, window * of.channels + c, half), rest = load(grad, window * of.channels + c, half);
        for (int i = 0; i < 4; i++) {
            if (rows[i] >= of.n)
                continue;
            /* Of equal ones the first takes all of it. */
            vec value = load(x, rows[i] * of.channels + c, half);
            mask taken = (value == best) | ((value != value) & (best != best));
            store_unrounded(grad_x, rows[i] * of.channels + c, choose(taken, rest, (vec){0}), half);
            rest = choose(taken, (vec){0}, rest);
        }
    }
}

/* The gradient of x; rows in no window stay as they are. */
void pool_backward(long windows, long n, long channels, long height, long width, int half, const int64_t *members,
                   const void *x, const void *out, const void *grad, void *grad_x, int threads)
{
    Windows of = {windows, n, channels, height, width, members};
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long window = 0; window < windows; window++) {
        int64_t rows[4];
        rows_of(of, window, rows);
        IN_STRIPS(hand_back, half, channels, of, window, rows, x, out, grad, grad_x);
    }
}
