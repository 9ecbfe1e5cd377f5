// Directions: a sweep maps its lines t and positions j to the pixels of a plane (H, W) by signed strides. Other code
// works with lines and positions; a few places also test whether a sweep is horizontal or mirrored.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SPN_HD __host__ __device__ __forceinline__
#else
#define SPN_HD inline __attribute__((always_inline))
#endif

namespace spn {

enum class Direction : int { left_to_right, right_to_left, top_to_bottom, bottom_to_top };
constexpr int kDirections = 4;

// Pixel (t, j) of a sweep lies at origin + t * line_stride + j * position_stride in a contiguous plane.
struct Sweep {
  int64_t lines;      // T: steps along the sweep
  int64_t positions;  // M: pixels of one line, across the sweep
  int64_t line_stride;
  int64_t position_stride;
  int64_t origin;

  SPN_HD int64_t offset(int64_t t, int64_t j) const { return origin + t * line_stride + j * position_stride; }
};

// Return the sweep over planes whose rows begin `pitch` values apart.
SPN_HD Sweep make_sweep(Direction direction, int64_t height, int64_t width, int64_t pitch) {
  switch (direction) {
    case Direction::left_to_right: return {width, height, 1, pitch, 0};
    case Direction::right_to_left: return {width, height, -1, pitch, width - 1};
    case Direction::top_to_bottom: return {height, width, pitch, 1, 0};
    default: return {height, width, -pitch, 1, (height - 1) * pitch};
  }
}

SPN_HD Sweep make_sweep(Direction direction, int64_t height, int64_t width) {
  return make_sweep(direction, height, width, width);
}

}  // namespace spn
