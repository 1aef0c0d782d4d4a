// The kernel of `cuda_merge`, as a function for the CPU.

#include "cuda_device.cuh"
#include "cuda_merge.cu"

extern "C" void run_merge(const Arguments* a, int heads, int batch) {
  launch([&] { merge(*a); }, {heads, batch, 1}, THREADS, 1, SHARED_BYTES);
}
