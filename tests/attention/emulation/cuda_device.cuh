// Stand-in for the header of the same name: runs CUDA kernels on a CPU, to check what they compute.
//
// Every thread is a fiber with a stack of its own. One runs until it meets the others of its warp,
// block or cluster; then another's turn comes, in an order that changes. If all wait, the kernel is
// stuck and the program aborts. Shared memory begins as garbage. Copies in the background land at once
// (`eager`) or not before they are waited for. All that makes results wrong where barriers are missing.

#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
using std::max;
using std::min;

struct alignas(8) uint2 { u32 x, y; };
struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { int x = 1, y = 1, z = 1; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define DEVICE inline
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
#define SHARED_MEMORY(name) char* name = current->block->memory
constexpr u32 ALL = 0xffffffffu;

// Where threads meet: the last to arrive lets all go on. Each leaves some words for the others.
struct Meeting {
  static constexpr int ROOM = 8;
  int size = 0, arrived = 0, turn = 0, kind = 0;
  std::vector<u32> words[2];
};

struct Block {
  char* memory;
  int rank;
  struct Cluster* cluster;
  Meeting all;
  std::vector<Meeting> warps;
};

struct Cluster {
  std::vector<Block> blocks;
  Meeting all;
};

struct Copy {
  void* to;
  const void* from;
  int size, bytes;
  void land() const { memset(to, 0, size), memcpy(to, from, bytes); }
};

struct Thread {
  void* stack_pointer;
  std::vector<char> stack;
  dim3 threadIdx, blockIdx;
  Block* block;
  bool done = false;
  std::vector<std::vector<Copy>> copies{1};
};

inline Thread* current;
inline void* scheduler;
inline dim3 gridDim;
inline const std::function<void()>* body;
inline i64 progress;
inline bool eager;  // copies in the background land at once
#define threadIdx (current->threadIdx)
#define blockIdx (current->blockIdx)

extern "C" void switch_stack(void** from, void* to);
asm(R"(
.text
.globl switch_stack
switch_stack:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

inline void yield() { switch_stack(&current->stack_pointer, scheduler); }

inline void run_thread() {
  (*body)();
  current->done = true;
  progress++;
  yield();
}

// Meets the others and returns all their words, ROOM for each.
inline const u32* meet(Meeting& m, int place, int kind, const u32* own, int count) {
  const int turn = m.turn;
  std::vector<u32>& words = m.words[turn & 1];
  words.resize(m.size * Meeting::ROOM);
  if (m.arrived && m.kind != kind) fprintf(stderr, "threads meet at different places\n"), abort();
  m.kind = kind;
  for (int i = 0; i < count; i++) words[place * Meeting::ROOM + i] = own[i];
  progress++;
  if (++m.arrived == m.size) {
    m.arrived = 0, m.turn++;
  } else {
    while (m.turn == turn) yield();
  }
  return words.data();
}

inline const u32* meet_warp(int kind, const u32* own, int count) {
  return meet(current->block->warps[threadIdx.x / 32], threadIdx.x % 32, kind, own, count);
}

inline u32 of_lane(const u32* words, int lane, int word = 0) {
  return words[lane * Meeting::ROOM + word];
}

template <class T>
u32 bits_of(T x) {
  u32 bits;
  memcpy(&bits, &x, 4);
  return bits;
}

template <class T>
T shuffled(T x, int kind, const std::function<int(int)>& source) {
  u32 own[2] = {};
  memcpy(own, &x, sizeof(T));
  const u32* words = meet_warp(kind, own, 2);
  const int lane = source(threadIdx.x % 32);
  if (lane >= 0 && lane < 32) memcpy(&x, words + lane * Meeting::ROOM, sizeof(T));
  return x;
}

template <class T> T __shfl_sync(u32, T x, int from) {
  return shuffled(x, 1, [&](int) { return from & 31; });
}
template <class T> T __shfl_up_sync(u32, T x, int step) {
  return shuffled(x, 2, [&](int lane) { return lane - step; });
}
template <class T> T __shfl_down_sync(u32, T x, int step) {
  return shuffled(x, 3, [&](int lane) { return lane + step; });
}
template <class T> T __shfl_xor_sync(u32, T x, int step) {
  return shuffled(x, 4, [&](int lane) { return lane ^ step; });
}
template <class T, class Combine>
T reduced(T x, int kind, Combine combine) {
  const u32 own = bits_of(x);
  const u32* words = meet_warp(kind, &own, 1);
  T sum = (T)of_lane(words, 0);
  for (int lane = 1; lane < 32; lane++) sum = combine(sum, (T)of_lane(words, lane));
  return sum;
}
template <class T> T __reduce_add_sync(u32, T x) {
  return reduced(x, 5, [](T a, T b) { return a + b; });
}
template <class T> T __reduce_max_sync(u32, T x) {
  return reduced(x, 6, [](T a, T b) { return max(a, b); });
}
template <class T> T __reduce_min_sync(u32, T x) {
  return reduced(x, 7, [](T a, T b) { return min(a, b); });
}
inline u32 __ballot_sync(u32, bool x) {
  const u32 own = x;
  const u32* words = meet_warp(8, &own, 1);
  u32 bits = 0;
  for (int lane = 0; lane < 32; lane++) bits |= of_lane(words, lane) << lane;
  return bits;
}
inline bool __any_sync(u32, u32 x) { return __ballot_sync(ALL, x != 0); }
inline void __syncwarp() { meet_warp(9, nullptr, 0); }
inline void __syncthreads() { meet(current->block->all, threadIdx.x, 1, nullptr, 0); }

inline int __popc(u32 x) { return __builtin_popcount(x); }
inline int __ffs(u32 x) { return __builtin_ffs(x); }
inline int __ffsll(u64 x) { return __builtin_ffsll(x); }
inline int __clz(u32 x) { return x ? __builtin_clz(x) : 32; }
inline u32 __umulhi(u32 x, u32 y) { return (u64)x * y >> 32; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline u32 __byte_perm(u32 x, u32 y, u32 selector) {
  const u64 bytes = (u64)y << 32 | x;
  u32 out = 0;
  for (int i = 0; i < 4; i++) out |= (u32)(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return out;
}
inline float __uint_as_float(u32 x) { float f; memcpy(&f, &x, 4); return f; }
inline u32 __float_as_uint(float x) { return bits_of(x); }
inline int atomicAdd(int* place, int x) { const int old = *place; *place += x; return old; }
template <class T> T __ldg(const T* place) { return *place; }

template <class T> T kept(T x) { return x; }
inline void wait_for_earlier_kernels() {}
inline void let_next_kernel_start() {}

inline void copy(void* shared, const void* global, int size, int bytes) {
  const Copy c = {shared, global, size, bytes};
  if (eager)
    c.land();
  else
    current->copies.back().push_back(c);
}
inline void copy_16(void* shared, const void* global) { copy(shared, global, 16, 16); }
inline void copy_16(void* shared, const void* global, int bytes) { copy(shared, global, 16, bytes); }
inline void copy_4(void* shared, const void* global) { copy(shared, global, 4, 4); }
inline void close_copies() { current->copies.emplace_back(); }
template <int N>
void wait_for_copies() {
  auto& groups = current->copies;  // the last one is still open
  while ((int)groups.size() - 1 > N) {
    for (const Copy& c : groups.front()) c.land();
    groups.erase(groups.begin());
  }
}

inline void load_matrices(u32 (&out)[4], const void* row) {
  u32 own[2];
  memcpy(own, &row, 8);
  const u32* words = meet_warp(11, own, 2);
  for (int i = 0; i < 4; i++) {
    const u32* of_row;
    memcpy(&of_row, words + (8 * i + threadIdx.x % 32 / 4) * Meeting::ROOM, 8);
    out[i] = of_row[threadIdx.x % 4];
  }
}
inline void and_popc(int (&c)[4], u32 low0, u32 low1, u32 high0, u32 high1, u32 low, u32 high) {
  const u32 own[6] = {low0, low1, high0, high1, low, high};
  const u32* words = meet_warp(10, own, 6);
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < 4; k++) {
      const int row = 4 * g + k, column = 4 * (2 * t + i % 2) + k;
      c[i] += __popc(of_lane(words, row, i / 2) & of_lane(words, column, 4));
      c[i] += __popc(of_lane(words, row, 2 + i / 2) & of_lane(words, column, 5));
    }
}

inline void bring_closer(const void*, int) {}
inline uint4 load_once(const void* pointer) { return *(const uint4*)pointer; }
inline float2 from_bfloat16(u32 pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
inline u32 from_float8(u32 pair) {
  u32 out = 0;
  for (int i = 0; i < 2; i++) {
    const int bits = pair >> 8 * i & 255, exponent = bits >> 3 & 15, fraction = bits & 7;
    const float size = exponent ? std::ldexp(8 + fraction, exponent - 10) : std::ldexp(fraction, -9);
    const _Float16 v = bits & 128 ? -size : size;
    unsigned short half;
    memcpy(&half, &v, 2);
    out |= (u32)half << 16 * i;
  }
  return out;
}
inline float2 from_float16(u32 pair) {
  _Float16 v[2];
  memcpy(v, &pair, 4);
  return {(float)v[0], (float)v[1]};
}
inline unsigned short to_bfloat16(float x) {
  const u32 bits = bits_of(x);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline unsigned short to_float16(float x) {
  const _Float16 v = (_Float16)x;
  unsigned short bits;
  memcpy(&bits, &v, 2);
  return bits;
}

inline void post(u32* place, u32 word) { *place = word; }
template <class T>
T look(const T* place) {
  yield();
  return *place;
}
inline void give_up() { fprintf(stderr, "a word did not come\n"), abort(); }

inline int cluster_rank() { return current->block->rank; }
inline void cluster_arrive() {}
inline void cluster_wait() {
  Block& block = *current->block;
  const int threads = block.all.size;
  meet(block.cluster->all, block.rank * threads + threadIdx.x, 1, nullptr, 0);
}
inline void cluster_barrier() { cluster_wait(); }
template <class T>
T load_remote(const T* pointer, int rank) {
  Block& block = *current->block;
  return *(const T*)((const char*)pointer - block.memory + block.cluster->blocks[rank].memory);
}
inline int4 load_remote4(const int* pointer, int rank) {
  return load_remote((const int4*)pointer, rank);
}

// Runs one cluster's threads in turns until all have ended.
inline void run_cluster(Cluster& cluster, std::vector<Thread>& threads) {
  static u32 turns = 0;
  int idle = 0;  // turns of all in which none got further; they may have looked for others' words
  for (size_t done = 0; done < threads.size(); turns = turns * 1664525 + 1013904223) {
    const i64 before = progress;
    done = 0;
    for (size_t i = 0; i < threads.size(); i++) {
      Thread& thread = threads[(i * 5167 + turns) % threads.size()];  // another order each time
      current = &thread;
      if (!thread.done) switch_stack(&scheduler, thread.stack_pointer);
      done += thread.done;
    }
    idle = progress == before ? idle + 1 : 0;
    if (done < threads.size() && idle > 1000) fprintf(stderr, "kernel is stuck\n"), abort();
  }
}

inline void launch(const std::function<void()>& kernel, dim3 grid, int threads, int cluster_size,
                   size_t shared_bytes) {
  body = &kernel, gridDim = grid;
  std::vector<std::vector<char>> memories(cluster_size);
  for (int z = 0; z < grid.z; z++)
    for (int y = 0; y < grid.y; y++)
      for (int x = 0; x < grid.x; x += cluster_size) {
        Cluster cluster;
        cluster.blocks.resize(cluster_size);
        cluster.all.size = cluster_size * threads;
        std::vector<Thread> all(cluster_size * threads);
        for (int rank = 0; rank < cluster_size; rank++) {
          memories[rank].assign(shared_bytes + 128, 0x5a);
          Block& block = cluster.blocks[rank];
          block.memory = (char*)(((u64)memories[rank].data() + 127) & ~127ull);
          block.rank = rank, block.cluster = &cluster, block.all.size = threads;
          block.warps.resize(threads / 32);
          for (Meeting& warp : block.warps) warp.size = 32;
          for (int i = 0; i < threads; i++) {
            Thread& t = all[rank * threads + i];
            current = &t;
            threadIdx = {i, 0, 0}, blockIdx = {x + rank, y, z}, t.block = &block;
            t.stack.resize(16384);
            u64* top = (u64*)(((u64)t.stack.data() + t.stack.size()) & ~15ull) - 2;
            top[0] = (u64)run_thread;
            t.stack_pointer = top - 6;
          }
        }
        run_cluster(cluster, all);
      }
}
