#define RUNNEL_ISA avx2
#include "kernels_body.h"
