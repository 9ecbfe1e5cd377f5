// The kernels for AVX2 with FMA: 8 floats per vector.
#include "includes.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define SPN_CPU_CAPABILITY avx2
#define SPN_VECTOR_BYTES 32
#include "capability.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
