// The kernels of `cuda_decode`, as functions for the CPU.

#include "cuda_device.cuh"

namespace score {
#define THREADS SCORE_THREADS
#define SHARED_BYTES SCORE_SHARED_BYTES
#include "cuda_decode_score.cu"
#undef THREADS
#undef SHARED_BYTES
}

namespace gather {
#define THREADS GATHER_THREADS
#define SHARED_BYTES GATHER_SHARED_BYTES
#include "cuda_decode_gather.cu"
#undef THREADS
#undef SHARED_BYTES
}

namespace fused {
#define THREADS FUSED_THREADS
#include "cuda_decode_fused.cu"
}

extern "C" void copy_eagerly(bool on) { eager = on; }

extern "C" void run_score(const score::Arguments* a, int splits, int groups, int batch) {
  launch([&] { score::score_keys(*a); }, {splits, groups, batch}, SCORE_THREADS, 1, SCORE_SHARED_BYTES);
}

extern "C" void run_gather(const gather::Arguments* a, int blocks, int rows, int batch) {
  launch([&] { gather::gather_values(*a); }, {blocks, rows, batch}, GATHER_THREADS, blocks,
         GATHER_SHARED_BYTES);
}

// The blocks of a head run together, as a cluster does.
extern "C" void run_fused(const fused::Arguments* a, int splits, int groups, int batch, int shared_bytes) {
  launch([&] { fused::attend(*a); }, {splits, groups, batch}, FUSED_THREADS, splits, shared_bytes);
}
