// The kernels for the baseline instruction set, which every machine of the platform supports.
#include "includes.h"

#define SPN_CPU_CAPABILITY baseline
#define SPN_VECTOR_BYTES 16
#include "capability.h"
