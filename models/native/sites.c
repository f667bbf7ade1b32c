/* Who neighbours whom among the active sites of a stack of maps. */

#include "native.h"

/* neighbours (n, 9): the row of each active site's neighbours in the order of a kernel's elements, n where inactive.
   active (images, height, width), one byte each. first (images + 1): where each image's rows begin. */
void find_neighbours(long images, long height, long width, const uint8_t *active, const int64_t *first,
                     int32_t *neighbours, int threads)
{
    long across = width + 2;
    int32_t n = (int32_t)first[images];
#pragma omp parallel num_threads(threads)
    {
        /* The row of each site, with a border of none. */
        int32_t *rows = malloc(sizeof(int32_t) * (height + 2) * across);
        for (long i = 0; i < (height + 2) * across; i++)
            rows[i] = n;
#pragma omp for schedule(static)
        for (long image = 0; image < images; image++) {
            const uint8_t *here = active + image * height * width;
            int32_t row = (int32_t)first[image];
            for (long y = 0; y < height; y++)
                for (long x = 0; x < width; x++)
                    rows[(y + 1) * across + x + 1] = here[y * width + x] ? row++ : n;
            int32_t *to = neighbours + first[image] * ELEMENTS;
            for (long y = 0; y < height; y++)
                for (long x = 0; x < width; x++)
                    if (here[y * width + x])
                        for (long i = 0; i < ELEMENTS; i++)
                            *to++ = rows[(y + i / 3) * across + x + i % 3];
        }
        free(rows);
    }
}

/* to (n rows) has the rows of `from` at `places` (count), which rise, and zeros elsewhere; each byte is written once. */
void place_rows(long n, long count, long bytes, const int64_t *places, const char *from, char *to, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int part = 0; part < threads; part++) {
        long first = count * part / threads, stop = count * (part + 1) / threads;
        long row = first == 0 ? 0 : places[first - 1] + 1;
        for (long i = first; i < stop; row = places[i++] + 1) {
            memset(to + row * bytes, 0, (places[i] - row) * bytes);
            memcpy(to + places[i] * bytes, from + i * bytes, bytes);
        }
        if (part == threads - 1)
            memset(to + row * bytes, 0, (n - row) * bytes);
    }
}
