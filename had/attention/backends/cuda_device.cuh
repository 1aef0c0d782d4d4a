// What CUDA C++ has no words for: asynchronous copies, clusters of thread blocks, one-bit products,
// and the order of kernels that follow each other.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__
#define SHARED_MEMORY(name) extern __shared__ __align__(128) char name[]

constexpr u32 ALL = 0xffffffffu;

DEVICE u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// x, which the compiler keeps in registers where it would rather compute it again.
template <class T>
DEVICE T* kept(T* x) {
  asm("" : "+l"(x));
  return x;
}
DEVICE int kept(int x) {
  asm("" : "+r"(x));
  return x;
}

// ---- kernels that follow each other --------------------------------------------------------------

// For a kernel whose launch overlaps with those ahead of it in the stream: what these write may be
// read, and what they read may be written, after this.
DEVICE void wait_for_earlier_kernels() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// The next kernel's blocks may take what is left of the multiprocessors, and wait there.
DEVICE void let_next_kernel_start() { asm volatile("griddepcontrol.launch_dependents;"); }

// ---- copies from global to shared memory in the background, in groups ----------------------------

// Copies 16 bytes, or `bytes` of them and fills up with zeros.
DEVICE void copy_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}

DEVICE void copy_16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}

DEVICE void copy_4(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}

DEVICE void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until no more than the newest N groups of this thread are under way.
template <int N>
DEVICE void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- products ------------------------------------------------------------------------------------

// Four matrices of eight rows of 16 bytes: lane 8i + r points to row r of matrix i, and lane 4g + t
// receives word t of row g of each.
DEVICE void load_matrices(u32 (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

// One-bit product of 16 x 256 and 256 x 8 bits, added to c. Lane 4g + t gives word t of each half of
// rows g (low0, high0) and g + 8 (low1, high1), and of column g; it receives the elements (g, 2t),
// (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
DEVICE void and_popc(int (&c)[4], u32 low0, u32 low1, u32 high0, u32 high1, u32 low, u32 high) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc"
      " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(low0), "r"(low1), "r"(high0), "r"(high1), "r"(low), "r"(high));
}

// ---- values --------------------------------------------------------------------------------------

// 16 bytes that no other block is likely to read.
DEVICE uint4 load_once(const void* pointer) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(pointer));
  return v;
}

// Brings bytes to the L2 cache, a multiple of 16 at such an address.
DEVICE void bring_closer(const void* global, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
}

DEVICE float2 from_bfloat16(u32 pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

// Two e4m3 floats, as float16.
DEVICE u32 from_float8(u32 pair) {
  u32 v;
  asm("{.reg .b16 a, b; mov.b32 {a, b}, %1; cvt.rn.f16x2.e4m3x2 %0, a;}" : "=r"(v) : "r"(pair));
  return v;
}

DEVICE float2 from_float16(u32 pair) {
  float2 v;
  asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
      : "=f"(v.x), "=f"(v.y)
      : "r"(pair));
  return v;
}

DEVICE unsigned short to_bfloat16(float x) {
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

DEVICE unsigned short to_float16(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

// ---- words that blocks of one launch hand to each other ------------------------------------------

// Writes a word where other blocks will see it.
DEVICE void post(u32* place, u32 word) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(place), "r"(word) : "memory");
}

// Reads words as other blocks have left them.
DEVICE u32 look(const u32* place) {
  u32 word;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(word) : "l"(place) : "memory");
  return word;
}

DEVICE uint2 look(const uint2* place) {
  uint2 words;
  asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];"
               : "=r"(words.x), "=r"(words.y)
               : "l"(place)
               : "memory");
  return words;
}

// Ends the kernel, and with it all work on the device, with an error.
DEVICE void give_up() { asm volatile("trap;"); }

// ---- clusters ------------------------------------------------------------------------------------

DEVICE int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Barrier of the cluster in two halves: what a thread wrote to its own block's shared memory before
// `cluster_arrive` may be read by other blocks after `cluster_wait`. The restricted fences leave out
// the wait for global memory, about a microsecond, that the default ones bring.
DEVICE void cluster_arrive() {
  __syncwarp();  // the barrier wants whole warps
  asm volatile(
      "fence.release.sync_restrict::shared::cta.cluster;\n\t"
      "barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

DEVICE void cluster_wait() {
  __syncwarp();
  asm volatile(
      "barrier.cluster.wait.aligned;\n\t"
      "fence.acquire.sync_restrict::shared::cluster.cluster;" ::: "memory");
}

DEVICE void cluster_barrier() {
  cluster_arrive();
  cluster_wait();
}

// The address that block `rank` of the cluster knows as the local `pointer`.
DEVICE u32 remote_address(const void* pointer, int rank) {
  u32 address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(shared_address(pointer)), "r"(rank));
  return address;
}

DEVICE int load_remote(const int* pointer, int rank) {
  int value;
  asm volatile("ld.shared::cluster.u32 %0, [%1];"
               : "=r"(value)
               : "r"(remote_address(pointer, rank))
               : "memory");
  return value;
}

DEVICE float load_remote(const float* pointer, int rank) {
  return __int_as_float(load_remote((const int*)pointer, rank));
}

DEVICE int4 load_remote4(const int* pointer, int rank) {
  int4 v;
  asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(remote_address(pointer, rank))
               : "memory");
  return v;
}
