// The launchers. The caller plans the pass and allocates its workspace.
#pragma once

#include "backward_plan.h"
#include "forward_plan.h"
#include "simt.h"

namespace spn {
namespace cuda {

cudaError_t forward(const ForwardArgs& f, Plan plan, void* workspace, cudaStream_t stream);
cudaError_t backward(const BackwardArgs& b, Plan plan, void* workspace, cudaStream_t stream);

}  // namespace cuda
}  // namespace spn
