// The kernel of `cuda_pack`, as a function for the CPU.

#include "cuda_device.cuh"
#include "cuda_pack.cu"

extern "C" void run_pack(const Arguments* a, int blocks, int heads, int batch) {
  launch([&] { pack_signs(*a); }, {blocks, heads, batch}, THREADS, 1, SHARED_BYTES);
}
