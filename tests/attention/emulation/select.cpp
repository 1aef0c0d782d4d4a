// The kernel of `cuda_select`, as a function for the CPU.

#include "cuda_device.cuh"
#include "cuda_select.cu"

extern "C" void run_select(const Arguments* a, int blocks, int rows) {
  launch([&] { topn_indices(*a); }, {blocks, rows, 1}, THREADS, blocks, SHARED_BYTES);
}
