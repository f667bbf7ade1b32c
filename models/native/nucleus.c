/* The order of an image's sites by falling weight, and the mass before each: what top-p decides by. */

#include "native.h"

/* before (images, sites): the weights of all sites that come before each one, by falling weight, of equal ones the first
   first; of inactive sites the sum of all. weights: 0 or more, or NaN, which comes first. */
void mass_before(long images, long sites, const float *weights, const uint8_t *active, float *before, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        uint32_t *keys[2] = {malloc(sizeof(uint32_t) * sites), malloc(sizeof(uint32_t) * sites)};
        int32_t *places[2] = {malloc(sizeof(int32_t) * sites), malloc(sizeof(int32_t) * sites)};
#pragma omp for schedule(static)
        for (long image = 0; image < images; image++) {
            const float *own = weights + image * sites;
            float *to = before + image * sites;
            long count = 0;
            for (long i = 0; i < sites; i++)
                if (active[image * sites + i]) {
                    uint32_t bits;
                    memcpy(&bits, own + i, 4);
                    /* Bits of floats that are not negative rise with them: turned round, the largest comes first. */
                    keys[0][count] = ~(bits & 0x7fffffff);
                    places[0][count++] = (int32_t)i;
                }
            /* Radix sort, 11 bits at a time, which keeps the order of equal ones. */
            int from = 0;
            for (int shift = 0; shift < 32; shift += 11, from = !from) {
                int32_t ends[2048] = {0};
                for (long i = 0; i < count; i++)
                    ends[keys[from][i] >> shift & 2047]++;
                for (int32_t digit = 0, sum = 0; digit < 2048; digit++) {
                    int32_t here = ends[digit];
                    ends[digit] = sum;
                    sum += here;
                }
                for (long i = 0; i < count; i++) {
                    int32_t at = ends[keys[from][i] >> shift & 2047]++;
                    keys[!from][at] = keys[from][i];
                    places[!from][at] = places[from][i];
                }
            }
            double mass = 0;
            for (long i = 0; i < count; i++) {
                int32_t place = places[from][i];
                to[place] = (float)mass;
                mass += own[place];
            }
            for (long i = 0; i < sites; i++)
                if (!active[image * sites + i])
                    to[i] = (float)mass;
        }
        for (int i = 0; i < 2; i++) {
            free(keys[i]);
            free(places[i]);
        }
    }
}
