#define RUNNEL_ISA portable
#include "kernels_body.h"
