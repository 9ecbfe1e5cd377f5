// AVX2 with FMA: 8 floats at a time.
#include "includes.h"

#pragma GCC target("avx2,fma,f16c")
#define SPN_CPU_CAPABILITY avx2
#define SPN_VECTOR_BYTES 32
#include "capability.h"
