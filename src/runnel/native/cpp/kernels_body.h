// The kernels, compiled once for each instruction set with its own flags. Nothing with external linkage may be used in
// here but plain C: an inline function of the standard library compiled with these flags could be the one that the
// linker keeps for everybody.

#include <cstdint>
#include <cstring>

#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define RUNNEL_JOIN_(a, b) a##b
#define RUNNEL_JOIN(a, b) RUNNEL_JOIN_(a, b)
#define RUNNEL_TEXT_(a) #a
#define RUNNEL_TEXT(a) RUNNEL_TEXT_(a)

namespace runnel {
namespace {

#include "body_vector.h"
#include "body_products.h"
#include "body_maps.h"
#include "body_steps.h"
#include "body_scans.h"

const Kernels table = {
    RUNNEL_TEXT(RUNNEL_ISA),
    to_bf16,
    to_bytes,
    {product<FloatTiles<DotF32>>, product<FloatTiles<DotBf16>>, product<ByteTiles<4>>, product<ByteTiles<8>>},
    map_row,
    reduce_row,
    normalise,
    small_product,
    conv_step,
    shift_step,
    diagonal_step,
    complex_diagonal_step,
    lti_step,
    selective_step,
    outer_step,
    delta_step,
    dplr_step,
    log_linear_step,
    attend_step,
    selective_scan_forward,
    selective_scan_backward,
    diagonal_scan_forward,
    diagonal_scan_backward,
    causal_convolution_forward,
    causal_convolution_backward,
    decays_forward,
    decays_backward,
};

}  // namespace

const Kernels* RUNNEL_JOIN(RUNNEL_ISA, _kernels)() { return &table; }

}  // namespace runnel
