/* What the kernels share. */

#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A 3x3 kernel's elements in raster order; the fifth is the site itself. */
#define ELEMENTS 9
#define CENTRE 4
#define ALWAYS_INLINE inline __attribute__((always_inline))
