// The kernels for AVX-512: 16 floats per vector.
#include "includes.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif
#define SPN_CPU_CAPABILITY avx512
#define SPN_VECTOR_BYTES 64
#include "capability.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
