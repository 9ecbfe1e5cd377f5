// The baseline of the fused kernels: one launch per line, the hidden state in global memory, one thread per pixel of
// the line. It computes the same sweep, "abs" rule and maximum with the simplest schedule.
#include <cuda_runtime.h>

#include <cstdint>

namespace {

__global__ void line(const float* x, const float* gates, float* h, int64_t planes, int64_t plane, int64_t gate_sample,
                     int64_t channels, int positions, int64_t offset, int64_t line_stride, int64_t position_stride,
                     bool first) {
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (thread >= planes * positions) return;
  const int64_t index = thread / positions, n = index / channels, c = index % channels;
  const int j = static_cast<int>(thread % positions);
  const int64_t pixel = offset + j * position_stride;
  const float value = x[index * plane + pixel];
  float result = value;
  if (!first) {
    const float* g = gates + n * gate_sample + c * plane + pixel;
    const int64_t tap = channels * plane;
    const float a = g[0], b = g[tap], d = g[2 * tap];
    const float scale = 1.f / fmaxf(1.f, fabsf(a) + fabsf(b) + fabsf(d));
    const float* before = h + index * plane + pixel - line_stride;
    float sum = b * (before[0] - value);
    if (j > 0) sum += a * (before[-position_stride] - value);
    if (j + 1 < positions) sum += d * (before[position_stride] - value);
    result += scale * sum;
  }
  h[index * plane + pixel] = result;
}

__global__ void merge(const float* h, float* out, int64_t values, bool first) {
  const int64_t o = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (o < values) out[o] = first ? h[o] : fmaxf(out[o], h[o]);
}

}  // namespace

// x, out, hidden (N, C, H, W) and gates (N, 4, 3, C, H, W) in float32; `sweeps` is 4, or 1 for left to right only.
extern "C" int per_column_forward(const float* x, const float* gates, float* hidden, float* out, int64_t batch,
                                  int64_t channels, int64_t height, int64_t width, int sweeps, void* stream) {
  constexpr int kThreads = 256;
  const auto s = static_cast<cudaStream_t>(stream);
  const int64_t planes = batch * channels, plane = height * width;
  for (int d = 0; d < sweeps; ++d) {
    const bool horizontal = d < 2, reversed = d % 2;
    const int64_t lines = horizontal ? width : height, positions = horizontal ? height : width;
    const int64_t position_stride = horizontal ? width : 1;
    const int64_t line_stride = (horizontal ? 1 : width) * (reversed ? -1 : 1);
    const int64_t origin = reversed ? (horizontal ? width - 1 : plane - width) : 0;
    const unsigned blocks = static_cast<unsigned>((planes * positions + kThreads - 1) / kThreads);
    for (int64_t t = 0; t < lines; ++t) {
      line<<<blocks, kThreads, 0, s>>>(x, gates + d * 3 * channels * plane, hidden, planes, plane,
                                       sweeps * 3 * channels * plane, channels, static_cast<int>(positions),
                                       origin + t * line_stride, line_stride, position_stride, t == 0);
    }
    const unsigned merge_blocks = static_cast<unsigned>((planes * plane + kThreads - 1) / kThreads);
    merge<<<merge_blocks, kThreads, 0, s>>>(hidden, out, planes * plane, d == 0);
  }
  return static_cast<int>(cudaGetLastError());
}
