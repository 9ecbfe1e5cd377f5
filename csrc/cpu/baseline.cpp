// The instruction set every machine of the platform has.
#include "includes.h"

#define SPN_CPU_CAPABILITY baseline
#define SPN_VECTOR_BYTES 16
#include "capability.h"
