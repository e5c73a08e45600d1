// Kernels for decoding on one or a few CPU cores: one token of each stream against weights and rows that are read once.
//
// Portable C++17 with the vector types of GCC and Clang; the widest registers of the processor are used. Compiled at
// first use by native.py with -march=native. A result depends on its own row or stream alone: the order of every sum is
// fixed, whatever the number of rows, streams or threads. All memory belongs to the caller. Every function returns 0,
// or a Status that says why nothing was done.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include <pthread.h>

namespace {

using Index = std::int64_t;

enum Status { DONE = 0, OUT_OF_RANGE = 1, NO_MEMORY = 2 };

// Vectors ------------------------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

// Processors with 32 vector registers hold 16 sums and what is added to them; others half as many.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int FEW = 4;
#else
constexpr int FEW = 2;
#endif

// Floats of a line of the cache.
constexpr int LINE = 16;

template <int N> struct Types {
  typedef float Floats __attribute__((vector_size(4 * N)));
  typedef std::int32_t Ints __attribute__((vector_size(4 * N)));
  typedef float Loose __attribute__((vector_size(4 * N), aligned(4), may_alias));
};

using Vec = Types<LANES>::Floats;
// Half a head is a multiple of 8 floats, not always of 16.
constexpr int NARROW = LANES < 8 ? LANES : 8;

template <int N = LANES> inline typename Types<N>::Floats load(const float* from) {
  return *reinterpret_cast<const typename Types<N>::Loose*>(from);
}

template <int N = LANES> inline void store(float* to, typename Types<N>::Floats value) {
  *reinterpret_cast<typename Types<N>::Loose*>(to) = value;
}

// The first `count` floats, and zeros behind them.
inline Vec load_part(const float* from, Index count) {
  Vec out = {};
  std::memcpy(&out, from, sizeof(float) * count);
  return out;
}

inline Vec broadcast(float value) { return Vec{} + value; }

inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// What keeps the compiler from making one operation of a product and the sum that it goes into.
template <class V> inline V rounded(V value) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(value));
#elif defined(__SSE__)
  __asm__("" : "+x"(value));
#elif defined(__aarch64__)
  __asm__("" : "+w"(value));
#else
  __asm__("" : "+m"(value));
#endif
  return value;
}

// Sums over lanes. A vector holds LANES / SIZE groups of SIZE partial sums each. `halve` adds the upper half of every
// group to its lower half and puts the groups of two vectors into one. However vectors are put together, lane i is
// added to lane i + LANES / 2, and so on: a sum's bits do not depend on its company.

template <int SIZE, bool UPPER> constexpr int lane_of(int lane) {
  constexpr int HALF = SIZE / 2, GROUPS = LANES / SIZE;
  const int group = lane / HALF, within = lane % HALF + (UPPER ? HALF : 0);
  return group < GROUPS ? group * SIZE + within : LANES + (group - GROUPS) * SIZE + within;
}

template <int SIZE, bool UPPER, int... LANE> inline Vec pick(Vec a, Vec b, std::integer_sequence<int, LANE...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, lane_of<SIZE, UPPER>(LANE)...);
#else
  return __builtin_shuffle(a, b, Types<LANES>::Ints{lane_of<SIZE, UPPER>(LANE)...});
#endif
}

template <int SIZE> inline Vec halve(Vec a, Vec b) {
  using All = std::make_integer_sequence<int, LANES>;
  return pick<SIZE, false>(a, b, All{}) + pick<SIZE, true>(a, b, All{});
}

// Groups of SIZE down to groups of one: lane k is the sum of group k.
template <int SIZE> inline Vec finish(Vec value) {
  if constexpr (SIZE == 1)
    return value;
  else
    return finish<SIZE / 2>(halve<SIZE>(value, value));
}

// COUNT vectors (a power of two, at most LANES) made one by one and added up as soon as two are there.
template <int COUNT, class Make> inline Vec fold(const Make& make, int first = 0) {
  if constexpr (COUNT == 1) {
    return make(first);
  } else {
    const Vec a = fold<COUNT / 2>(make, first), b = fold<COUNT / 2>(make, first + COUNT / 2);
    return halve<LANES / (COUNT / 2)>(a, b);
  }
}

inline float sum(Vec value) { return finish<LANES>(value)[0]; }

// e^x to about one unit in the last place: 2^n e^r with |r| <= ln 2 / 2, e^r by its series. 0 below -87.3; x above 88
// counts as 88.
inline Vec exponential(Vec x) {
  using Ints = Types<LANES>::Ints;
  const float shift = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
  const Ints vanishes = x < -87.3f;
  x = x > 88.0f ? broadcast(88.0f) : x;
  const Vec whole = (x * 1.44269504088896341f + shift) - shift;
  // ln 2 in two parts, the first with few enough bits that its product with `whole` is exact.
  Vec r = x - whole * 0.693359375f;
  r = r + whole * 2.12194440054690583e-4f;
  Vec p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Ints power = (__builtin_convertvector(whole, Ints) + 127) << 23;
  const Vec scaled = p * (Vec)power;
  const Ints kept = (Ints)scaled & ~vanishes;
  return (Vec)kept;
}

// Threads ------------------------------------------------------------------------------------------------------------

// Threads that wait for work and are never ended: they hold nothing that the end of a process would wait for.
class Pool {
 public:
  using Call = void (*)(const void*, Index);

  void run(Index threads, Index parts, Call call, const void* argument) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const int helpers = grow(static_cast<int>(std::min(threads, parts)) - 1);
      call_ = call, argument_ = argument, parts_ = parts, wanted_ = helpers;
      next_.store(0, std::memory_order_relaxed);
      for (int i = 0; i < helpers; ++i) wake_.notify_one();
    }
    take(call, argument, parts);
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;  // who has not come by now would find nothing left
    done_.wait(lock, [this] { return active_ == 0; });
  }

 private:
  int grow(int helpers) {
    try {
      for (; count_ < helpers; ++count_) std::thread([this] { work(); }).detach();
    } catch (const std::exception&) {
      // The system gives no more threads; those that are there and the caller do the work.
    }
    return std::min(count_, helpers);
  }

  void take(Call call, const void* argument, Index parts) {
    for (Index part; (part = next_.fetch_add(1, std::memory_order_relaxed)) < parts;) call(argument, part);
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return wanted_ > 0; });
      --wanted_, ++active_;
      const Call call = call_;
      const void* argument = argument_;
      const Index parts = parts_;
      lock.unlock();
      take(call, argument, parts);
      lock.lock();
      if (--active_ == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<Index> next_{0};
  Call call_ = nullptr;
  const void* argument_ = nullptr;
  Index parts_ = 0;
  int wanted_ = 0, active_ = 0, count_ = 0;
};

// One caller at a time has the pool; who finds it taken works alone. A forked child has none of its parent's threads:
// it starts with a pool of its own, and what its parent's held is left alone.
alignas(std::mutex) unsigned char taken_memory[sizeof(std::mutex)];
std::mutex* taken = new (taken_memory) std::mutex;
Pool* pool = nullptr;

void forget() {
  taken = new (taken_memory) std::mutex;
  pool = nullptr;
}

const int registered = pthread_atfork(nullptr, nullptr, forget);

// Bytes below which waking a thread takes longer than the work.
constexpr Index WORTHWHILE = 1 << 19;

// Calls run(part) for every part, on up to `threads` threads.
template <class Run> void spread(Index threads, Index parts, Index bytes, const Run& run) {
  if (threads > 1 && parts > 1 && bytes >= WORTHWHILE && registered == 0) {
    std::unique_lock<std::mutex> lock(*taken, std::try_to_lock);
    if (lock.owns_lock()) {
      if (pool == nullptr) pool = new (std::nothrow) Pool;
      if (pool != nullptr) {
        pool->run(threads, parts, [](const void* r, Index part) { (*static_cast<const Run*>(r))(part); }, &run);
        return;
      }
    }
  }
  for (Index part = 0; part < parts; ++part) run(part);
}

// Products -----------------------------------------------------------------------------------------------------------

// Memory is read at full speed only in order: the processor's own prefetching follows one stream. One or two rows keep
// up with it when every output is made by itself. More rows need several outputs at a time, to read each of their values
// once for all; what is ahead in memory is then asked for, in order, into the second cache.
// Both distances are in floats.
constexpr Index FAR = 8192, NEAR = 64;

// OUTS outputs of ROWS rows: one sum for each, over the input in order.
template <int ROWS, int OUTS, bool TOGETHER>
inline void product(const float* rows, const float* weight, const float* bias, float* out, Index in, Index outs) {
  constexpr int SUMS = ROWS * OUTS;
  constexpr int PADDED = SUMS <= 1 ? 1 : SUMS <= 2 ? 2 : SUMS <= 4 ? 4 : SUMS <= 8 ? 8 : 16;
  constexpr int STEP = PADDED < LANES ? PADDED : LANES;
  Vec sums[PADDED] = {};
  const Index whole = in / LANES * LANES;
  if constexpr (TOGETHER) {
    for (Index i = 0; i < whole; i += LANES) {
      Vec x[ROWS];
      for (int r = 0; r < ROWS; ++r) x[r] = load(rows + r * in + i);
      for (int o = 0; o < OUTS; ++o) {
        __builtin_prefetch(weight + FAR + i * OUTS + o * LANES, 0, 2);
        const Vec w = load(weight + o * in + i);
        for (int r = 0; r < ROWS; ++r) sums[r * OUTS + o] += x[r] * w;
      }
    }
  } else {
    for (int o = 0; o < OUTS; ++o) {
      Vec own[ROWS] = {};
      const float* from = weight + o * in;
      for (Index i = 0; i < whole; i += LANES) {
        __builtin_prefetch(from + i + NEAR, 0, 2);
        for (int r = 0; r < ROWS; ++r) own[r] += load(rows + r * in + i) * load(from + i);
      }
      for (int r = 0; r < ROWS; ++r) sums[r * OUTS + o] = own[r];
    }
  }
  if (whole < in)
    for (int o = 0; o < OUTS; ++o) {
      const Vec w = load_part(weight + o * in + whole, in - whole);
      for (int r = 0; r < ROWS; ++r) sums[r * OUTS + o] += load_part(rows + r * in + whole, in - whole) * w;
    }
  float totals[PADDED < LANES ? LANES : PADDED];
  for (int first = 0; first < PADDED; first += STEP)
    store(totals + first, finish<LANES / STEP>(fold<STEP>([&](int i) { return sums[i]; }, first)));
  for (int r = 0; r < ROWS; ++r)
    for (int o = 0; o < OUTS; ++o) out[r * outs + o] = bias ? totals[r * OUTS + o] + bias[o] : totals[r * OUTS + o];
}

// OUTS outputs of all rows: weights come from memory for the first rows, from a cache for the others.
template <int OUTS>
inline void products(const float* rows, const float* weight, const float* bias, float* out, Index n, Index in,
                     Index outs) {
  Index r = 0;
  const auto next = [&](auto make, Index count) {
    make(rows + r * in, weight, bias, out + r * outs, in, outs);
    r += count;
  };
  while (n - r >= 4) next(product<4, OUTS, true>, 4);
  if (n - r == 3) next(product<3, OUTS, true>, 3);
  if (n - r == 2) next(product<2, OUTS, false>, 2);
  if (n - r == 1) next(product<1, OUTS, false>, 1);
}

// A product that no sum is made one operation with.
inline float rounded_product(float a, float b) {
  float out = a * b;
#if defined(__SSE__)
  __asm__("" : "+x"(out));
#elif defined(__aarch64__)
  __asm__("" : "+w"(out));
#else
  __asm__("" : "+m"(out));
#endif
  return out;
}

// Integers without and with a sign: compilers know this sum as one instruction where the processor does.
inline std::int32_t dot(const std::uint8_t* a, const std::int8_t* b, Index count) {
  std::int32_t sum = 0;
  for (Index i = 0; i < count; ++i) sum += static_cast<std::int32_t>(a[i]) * static_cast<std::int32_t>(b[i]);
  return sum;
}

// Attention ----------------------------------------------------------------------------------------------------------

// Rows whose scores are kept at a time, and rows of one part: parts are added up in order whoever made them.
constexpr Index BLOCK = 128, PART = 2048;

// What a part of the rows says for one query: the largest score, the sum of the weights, the weighted values (dim).
struct Seen {
  float most, total;
};

// G queries (dim) over n rows of keys and values. D: dim where it is known when compiling, else 0. Scores lie row by
// row, those of the G queries side by side: every lane of a vector belongs to query lane % G.
template <int D, int G>
inline void attend_block(const float* queries, const float* keys, const float* values, Index n, Index size, Seen* seen,
                         float* out) {
  static_assert(LANES % G == 0);
  constexpr Index STEP = LANES / G;
  const Index dim = D > 0 ? D : size, whole = n / STEP * STEP, padded = (n + STEP - 1) / STEP * STEP * G;
  alignas(64) float scores[BLOCK * G];
  const auto dot = [=](Index row, int g) {
    const float *k = keys + row * dim, *q = queries + g * dim;
    Vec a = {}, b = {};
    Index i = 0;
    for (; i + 2 * LANES <= dim; i += 2 * LANES) {
      a += load(k + i) * load(q + i);
      b += load(k + i + LANES) * load(q + i + LANES);
    }
    if (i < dim) a += load(k + i) * load(q + i);
    return a + b;
  };
  for (Index row = 0; row < whole; row += STEP) {
    for (Index i = 0; i < STEP * dim; i += LINE) __builtin_prefetch(keys + (row + BLOCK) * dim + i, 0, 2);
    store(scores + row * G, fold<LANES>([=](int i) { return dot(row + i / G, i % G); }));
  }
  for (Index i = whole * G; i < padded; ++i)
    scores[i] = i < n * G ? sum(dot(i / G, i % G)) : -std::numeric_limits<float>::infinity();
  Vec high, total = {};
  for (int i = 0; i < LANES; ++i) high[i] = seen[i % G].most;
  for (Index i = 0; i < padded; i += LANES) high = larger(load(scores + i), high);
  float most[G], sums[G] = {};
  for (int g = 0; g < G; ++g) most[g] = high[g];
  for (int i = G; i < LANES; ++i) most[i % G] = std::max(most[i % G], high[i]);
  for (int i = 0; i < LANES; ++i) high[i] = most[i % G];
  for (Index i = 0; i < padded; i += LANES) {
    const Vec weights = exponential(load(scores + i) - high);
    store(scores + i, weights);
    total += weights;
  }
  for (int i = 0; i < LANES; ++i) sums[i % G] += total[i];
  for (int g = 0; g < G; ++g) {
    const float shrink = exponential(broadcast(seen[g].most - most[g]))[0];
    seen[g] = {most[g], seen[g].total * shrink + sums[g]};
    for (Index i = 0; i < dim; i += LANES) store(out + g * dim + i, load(out + g * dim + i) * shrink);
  }
  const auto gather = [&](Index first, auto count) {
    constexpr int COUNT = decltype(count)::value;
    Vec sums[G][COUNT];
    for (int g = 0; g < G; ++g)
      for (int i = 0; i < COUNT; ++i) sums[g][i] = load(out + g * dim + first + i * LANES);
    for (Index row = 0; row < n; ++row) {
      const float* from = values + row * dim + first;
      for (int i = 0; i < COUNT * LANES; i += LINE) __builtin_prefetch(from + BLOCK * dim + i, 0, 2);
      Vec v[COUNT];
      for (int i = 0; i < COUNT; ++i) v[i] = load(from + i * LANES);
      for (int g = 0; g < G; ++g)
        for (int i = 0; i < COUNT; ++i) sums[g][i] += v[i] * scores[row * G + g];
    }
    for (int g = 0; g < G; ++g)
      for (int i = 0; i < COUNT; ++i) store(out + g * dim + first + i * LANES, sums[g][i]);
  };
  Index first = 0;
  for (; first + 4 * LANES <= dim; first += 4 * LANES) gather(first, std::integral_constant<int, 4>{});
  for (; first < dim; first += LANES) gather(first, std::integral_constant<int, 1>{});
}

template <int D>
void attend_part(const float* queries, const float* keys, const float* values, Index n, Index size, Index group,
                 Seen* seen, float* out) {
  const Index dim = D > 0 ? D : size;
  for (Index g = 0; g < group; ++g) seen[g] = {-std::numeric_limits<float>::infinity(), 0};
  std::fill(out, out + group * dim, 0.0f);
  for (Index row = 0; row < n; row += BLOCK) {
    const Index rows = std::min(BLOCK, n - row);
    const float *k = keys + row * dim, *v = values + row * dim;
    Index g = 0;
    if constexpr (FEW == 4)
      for (; g + 4 <= group; g += 4) attend_block<D, 4>(queries + g * dim, k, v, rows, dim, seen + g, out + g * dim);
    for (; g + 2 <= group; g += 2) attend_block<D, 2>(queries + g * dim, k, v, rows, dim, seen + g, out + g * dim);
    for (; g < group; ++g) attend_block<D, 1>(queries + g * dim, k, v, rows, dim, seen + g, out + g * dim);
  }
}

void attend_part_of(Index dim, const float* queries, const float* keys, const float* values, Index n, Index group,
                    Seen* seen, float* out) {
  switch (dim) {
    case 64: return attend_part<64>(queries, keys, values, n, dim, group, seen, out);
    case 80: return attend_part<80>(queries, keys, values, n, dim, group, seen, out);
    case 96: return attend_part<96>(queries, keys, values, n, dim, group, seen, out);
    case 128: return attend_part<128>(queries, keys, values, n, dim, group, seen, out);
    default: return attend_part<0>(queries, keys, values, n, dim, group, seen, out);
  }
}

// Adds the parts of one query up, in order, into out (dim).
void add_parts(const Seen* seen, const float* parts, Index count, Index step, Index part_step, Index dim, float* out) {
  float most = seen[0].most;
  for (Index p = 1; p < count; ++p) most = std::max(most, seen[p * step].most);
  float total = 0;
  for (Index i = 0; i < dim; i += LANES) store(out + i, Vec{});
  for (Index p = 0; p < count; ++p) {
    const float weight = exponential(broadcast(seen[p * step].most - most))[0];
    total += seen[p * step].total * weight;
    for (Index i = 0; i < dim; i += LANES) store(out + i, load(out + i) + load(parts + p * part_step + i) * weight);
  }
  const float share = 1.0f / total;
  for (Index i = 0; i < dim; i += LANES) store(out + i, load(out + i) * share);
}

// Rows of the cache --------------------------------------------------------------------------------------------------

// The rotation of one row (dim) by cos and sin (dim), product by product as torch rounds it.
template <int N> inline void rotate_row(const float* from, const float* cos, const float* sin, Index dim, float* to) {
  const Index half = dim / 2;
  for (Index i = 0; i < half; i += N) {
    const auto a = load<N>(from + i), b = load<N>(from + half + i);
    store<N>(to + i, rounded(a * load<N>(cos + i)) - rounded(b * load<N>(sin + i)));
    store<N>(to + half + i, rounded(b * load<N>(cos + half + i)) + rounded(a * load<N>(sin + half + i)));
  }
}

inline void rotate_any(const float* from, const float* cos, const float* sin, Index dim, float* to) {
  if (dim % (2 * LANES) == 0)
    rotate_row<LANES>(from, cos, sin, dim, to);
  else
    rotate_row<NARROW>(from, cos, sin, dim, to);
}

// Rows of one head of one layer that move towards the front: read, written and rotated in one pass.
template <int D>
inline void move_head(float* keys, float* rotated, float* values, const Index* index, Index count, Index first,
                      const float* cos, const float* sin, Index size) {
  const Index dim = D > 0 ? D : size;
  for (Index i = 0; i < count; ++i) {
    const Index from = index[i] * dim, to = (first + i) * dim;
    rotate_any(keys + from, cos + i * dim, sin + i * dim, dim, rotated + to);
    if (from == to) continue;
    for (Index j = 0; j < dim; j += LANES) store(keys + to + j, load(keys + from + j));
    for (Index j = 0; j < dim; j += LANES) store(values + to + j, load(values + from + j));
  }
}

void move_head_of(Index dim, float* keys, float* rotated, float* values, const Index* index, Index count, Index first,
                  const float* cos, const float* sin) {
  switch (dim) {
    case 64: return move_head<64>(keys, rotated, values, index, count, first, cos, sin, dim);
    case 128: return move_head<128>(keys, rotated, values, index, count, first, cos, sin, dim);
    default: return move_head<0>(keys, rotated, values, index, count, first, cos, sin, dim);
  }
}

// Rows whose cosines and sines are used for all heads while they are in the cache.
constexpr Index MOVED = 256;

// Norms --------------------------------------------------------------------------------------------------------------

// 1 / sqrt(mean(x^2) + eps) of a row of any size.
inline float inverse_rms(const float* x, Index size, float eps) {
  Vec a = {}, b = {};
  Index i = 0;
  for (; i + 2 * LANES <= size; i += 2 * LANES) {
    const Vec u = load(x + i), v = load(x + i + LANES);
    a += u * u, b += v * v;
  }
  for (; i < size; i += LANES) {
    const Vec u = i + LANES <= size ? load(x + i) : load_part(x + i, size - i);
    a += u * u;
  }
  return 1.0f / std::sqrt(sum(a + b) / static_cast<float>(size) + eps);
}

// x * scale * weight; x and out may be the same.
inline void scale_row(const float* x, float scale, const float* weight, Index size, float* out) {
  Index i = 0;
  for (; i + LANES <= size; i += LANES) store(out + i, load(x + i) * scale * load(weight + i));
  for (; i < size; ++i) out[i] = x[i] * scale * weight[i];
}

inline Vec silu_times(Vec gate, Vec up) { return gate / (exponential(-gate) + 1.0f) * up; }

// Arguments ----------------------------------------------------------------------------------------------------------

// Every function takes one pointer to its arguments, eight bytes each: Python packs them faster than it passes them.
static_assert(sizeof(void*) == 8);

template <class Arguments> inline Arguments unpack(const void* packed) {
  Arguments out;
  std::memcpy(&out, packed, sizeof out);
  return out;
}

struct LinearRows {
  const float *rows, *weight, *bias;
  float* out;
  Index n, in, outs, threads;
};

struct LinearInt8 {
  const float* rows;
  const std::int8_t* weight;
  const float* scale;
  const std::int32_t* shift;
  const float* bias;
  float* out;
  std::uint8_t* integers;
  float* row_scale;
  Index n, in, padded, outs, threads;
};

struct AttendRows {
  const float *queries, *keys, *values;
  const Index *slot, *count;
  float* out;
  Index b, heads, key_heads, dim, slots, rows, slot_stride, head_stride;
  double scaling;
  Index threads;
};

struct MoveRows {
  float *keys, *rotated, *values;
  const Index* index;
  const float *cos, *sin;
  Index layers, slots, key_heads, rows, dim, slot, count, first, threads;
};

struct RotateStore {
  const float *qkv, *cos, *sin, *query_norm, *key_norm;
  float *queries, *keys, *rotated, *values;
  const Index *slot, *length;
  Index b, heads, key_heads, dim, slots, rows, slot_stride, head_stride;
  double eps;
};

struct AddNorm {
  const float *x, *delta, *weight;
  float *total, *normed;
  Index n, size;
  double eps;
  Index threads;
};

struct SiluMul {
  const float* gate_up;
  float* out;
  Index n, size, threads;
};

}  // namespace

// What Python calls: float32 tensors as pointers, sizes and strides in elements --------------------------------------

extern "C" {

// rows (n, in) times weight (outs, in), plus bias (outs) unless it is null: out (n, outs).
int svlm_linear_rows(const void* packed) {
  constexpr Index TILE = 32;
  const auto a = unpack<LinearRows>(packed);
  spread(a.threads, (a.outs + TILE - 1) / TILE, 4 * a.in * a.outs, [&a](Index tile) {
    const Index last = std::min(tile * TILE + TILE, a.outs);
    Index o = tile * TILE;
    const auto next = [&](auto make, Index count) {
      make(a.rows, a.weight + o * a.in, a.bias ? a.bias + o : nullptr, a.out + o, a.n, a.in, a.outs);
      o += count;
    };
    while (o + FEW <= last) next(products<FEW>, FEW);
    while (o < last) next(products<1>, 1);
  });
  return DONE;
}

// The same in integers: rows (n, in) are quantized one by one, with a scale for each, times weight (outs, padded) of
// integers with a scale (outs) for each output; zeros from `in` to `padded`. shift (outs): 128 times the sum of an
// output's integers. integers (n, padded) and row_scale (n) are room to work in. Sums of integers are exact: the bits
// are those of any other exact kernel that multiplies them by the scales in this order.
int svlm_linear_int8(const void* packed) {
  constexpr Index TILE = 32;
  const auto a = unpack<LinearInt8>(packed);
  for (Index r = 0; r < a.n; ++r) {
    const float* row = a.rows + r * a.in;
    std::uint8_t* to = a.integers + r * a.padded;
    float most = 0.0f;
    for (Index i = 0; i < a.in; ++i) {
      const float size = std::fabs(row[i]);
      most = size > most ? size : most;
    }
    const float scale = rounded_product(std::max(most, 1e-30f), 1.0f / 127);
    a.row_scale[r] = scale;
    const float magic = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number, halves to even
    for (Index i = 0; i < a.in; ++i) to[i] = static_cast<std::uint8_t>(static_cast<int>(row[i] / scale + magic - magic) + 128);
    std::memset(to + a.in, 128, a.padded - a.in);
  }
  spread(a.threads, (a.outs + TILE - 1) / TILE, a.padded * a.outs, [&a](Index tile) {
    for (Index o = tile * TILE; o < std::min(tile * TILE + TILE, a.outs); ++o)
      for (Index r = 0; r < a.n; ++r) {
        const std::int32_t sum = dot(a.integers + r * a.padded, a.weight + o * a.padded, a.padded) - a.shift[o];
        const float value = rounded_product(rounded_product(static_cast<float>(sum), a.scale[o]), a.row_scale[r]);
        a.out[r * a.outs + o] = a.bias ? value + a.bias[o] : value;
      }
  });
  return DONE;
}

// One query token per stream over its own rows. queries and out (b, heads, dim); keys and values start at slot 0 and
// lie slot_stride and head_stride apart; slot (b), count (b): whose rows, and how many of them.
int svlm_attend_rows(const void* packed) {
  const auto a = unpack<AttendRows>(packed);
  Index parts = 0, total = 0;
  for (Index s = 0; s < a.b; ++s) {
    if (a.slot[s] < 0 || a.slot[s] >= a.slots || a.count[s] < 1 || a.count[s] > a.rows) return OUT_OF_RANGE;
    parts += (a.count[s] + PART - 1) / PART;
    total += a.count[s];
  }
  const Index dim = a.dim, group = a.heads / a.key_heads, width = group * dim;
  // Scaled queries; of every part and key head the values; what is seen; and which stream a part is of.
  struct Work {
    Index stream, part;
  };
  const std::unique_ptr<float[]> scaled(new (std::nothrow) float[a.b * a.heads * dim]);
  const std::unique_ptr<float[]> sums(new (std::nothrow) float[parts * a.heads * dim]);
  const std::unique_ptr<Seen[]> seen(new (std::nothrow) Seen[parts * a.heads]);
  const std::unique_ptr<Work[]> work(new (std::nothrow) Work[parts]);
  if (!scaled || !sums || !seen || !work) return NO_MEMORY;
  const float scaling = static_cast<float>(a.scaling);
  for (Index i = 0; i < a.b * a.heads * dim; ++i) scaled[i] = a.queries[i] * scaling;
  for (Index s = 0, p = 0; s < a.b; ++s)
    for (Index part = 0; part * PART < a.count[s]; ++part) work[p++] = {s, part};
  spread(a.threads, parts * a.key_heads, 8 * total * a.key_heads * dim, [&](Index item) {
    const Index p = item / a.key_heads, k = item % a.key_heads, s = work[p].stream, first = work[p].part * PART;
    const Index base = a.slot[s] * a.slot_stride + k * a.head_stride + first * dim;
    attend_part_of(dim, scaled.get() + s * a.heads * dim + k * width, a.keys + base, a.values + base,
                   std::min(PART, a.count[s] - first), group, seen.get() + item * group, sums.get() + item * width);
  });
  for (Index s = 0, p = 0; s < a.b; ++s) {
    const Index own = (a.count[s] + PART - 1) / PART;
    for (Index h = 0; h < a.heads; ++h)
      add_parts(seen.get() + p * a.heads + h, sums.get() + (p * a.heads + h) * dim, own, a.heads, a.heads * dim, dim,
                a.out + (s * a.heads + h) * dim);
    p += own;
  }
  return DONE;
}

// In place, row first + i of one slot becomes its row index[i], in every layer and head of keys, rotated and values
// (layers, slots, key_heads, rows, dim). index[i] >= first + i: what is read has not been written. cos and sin (count, dim).
int svlm_move_rows(const void* packed) {
  const auto a = unpack<MoveRows>(packed);
  if (a.slot < 0 || a.slot >= a.slots || a.first < 0) return OUT_OF_RANGE;
  for (Index i = 0; i < a.count; ++i)
    if (a.index[i] < a.first + i || a.index[i] >= a.rows) return OUT_OF_RANGE;
  const Index heads = a.layers * a.key_heads, tasks = std::min(std::max<Index>(a.threads, 1), heads);
  spread(a.threads, tasks, 20 * heads * a.count * a.dim, [&](Index task) {
    for (Index i = 0; i < a.count; i += MOVED)
      for (Index head = heads * task / tasks; head < heads * (task + 1) / tasks; ++head) {
        const Index slot = head / a.key_heads * a.slots + a.slot;
        const Index at = (slot * a.key_heads + head % a.key_heads) * a.rows * a.dim;
        move_head_of(a.dim, a.keys + at, a.rotated + at, a.values + at, a.index + i, std::min(MOVED, a.count - i),
                     a.first + i, a.cos + i * a.dim, a.sin + i * a.dim);
      }
  });
  return DONE;
}

// One new row per stream. qkv (b, (heads + 2 key_heads) * dim), cos and sin (b, dim); query_norm and key_norm (dim) or
// null. Writes rotated queries (b, heads, dim), and one layer's raw key, rotated key and value at [slot, :, length].
int svlm_rotate_store(const void* packed) {
  const auto a = unpack<RotateStore>(packed);
  const Index dim = a.dim;
  const float eps = static_cast<float>(a.eps);
  for (Index s = 0; s < a.b; ++s)
    if (a.slot[s] < 0 || a.slot[s] >= a.slots || a.length[s] < 0 || a.length[s] >= a.rows) return OUT_OF_RANGE;
  for (Index s = 0; s < a.b; ++s) {
    const float* from = a.qkv + s * (a.heads + 2 * a.key_heads) * dim;
    const float *cos = a.cos + s * dim, *sin = a.sin + s * dim;
    for (Index h = 0; h < a.heads; ++h, from += dim) {
      float* to = a.queries + (s * a.heads + h) * dim;
      if (a.query_norm) scale_row(from, inverse_rms(from, dim, eps), a.query_norm, dim, to);
      // In place it reads both halves of a place before it writes them.
      rotate_any(a.query_norm ? to : from, cos, sin, dim, to);
    }
    for (Index k = 0; k < a.key_heads; ++k, from += dim) {
      const Index at = a.slot[s] * a.slot_stride + k * a.head_stride + a.length[s] * dim;
      if (a.key_norm)
        scale_row(from, inverse_rms(from, dim, eps), a.key_norm, dim, a.keys + at);
      else
        std::memcpy(a.keys + at, from, sizeof(float) * dim);
      rotate_any(a.keys + at, cos, sin, dim, a.rotated + at);
      std::memcpy(a.values + at, from + a.key_heads * dim, sizeof(float) * dim);
    }
  }
  return DONE;
}

// total = x + delta (unless delta is null) and normed = total / rms(total) * weight; (n, size). Without delta, total
// is not written.
int svlm_add_norm(const void* packed) {
  const auto a = unpack<AddNorm>(packed);
  spread(a.threads, a.n, 16 * a.n * a.size, [&a](Index row) {
    const float* x = a.x + row * a.size;
    if (a.delta) {
      const float* delta = a.delta + row * a.size;
      float* total = a.total + row * a.size;
      Index i = 0;
      for (; i + LANES <= a.size; i += LANES) store(total + i, load(x + i) + load(delta + i));
      for (; i < a.size; ++i) total[i] = x[i] + delta[i];
      x = total;
    }
    scale_row(x, inverse_rms(x, a.size, static_cast<float>(a.eps)), a.weight, a.size, a.normed + row * a.size);
  });
  return DONE;
}

// silu(gate) * up of gate_up (n, 2 size), gates first: out (n, size).
int svlm_silu_mul(const void* packed) {
  const auto a = unpack<SiluMul>(packed);
  spread(a.threads, a.n, 12 * a.n * a.size, [&a](Index row) {
    const float *gate = a.gate_up + 2 * row * a.size, *up = gate + a.size;
    float* out = a.out + row * a.size;
    Index i = 0;
    for (; i + LANES <= a.size; i += LANES) store(out + i, silu_times(load(gate + i), load(up + i)));
    if (i < a.size) {
      const Vec rest = silu_times(load_part(gate + i, a.size - i), load_part(up + i, a.size - i));
      std::memcpy(out + i, &rest, sizeof(float) * (a.size - i));
    }
  });
  return DONE;
}

}  // extern "C"
