// All headers of the standard library and torch that the kernels use. They are included before a file changes its
// target, so that no inline function of a library is compiled for an instruction set that the machine may lack.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#ifdef SPN_X86
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
