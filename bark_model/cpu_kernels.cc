// Kernels for a CPU: a few rows times a weight matrix, one query a row over a KV cache, attention over sequences.
//
// Numbers are float32 or bfloat16 (T is float or Bits) and sums float32. Each result is summed in an order that
// depends neither on the rows beside it nor on the number of threads. Handlers of XLA's foreign function
// interface, called by cpu_kernels.py, which has checked shapes: head sizes are multiples of 16, depths are even.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define PAIRED_PRODUCTS 1
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Bits = uint16_t;  // of a bfloat16: the upper half of a float32

constexpr int64_t LANES = 16;
typedef float Floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), aligned(4), may_alias));
typedef Bits Halves __attribute__((vector_size(32), aligned(2), may_alias));

constexpr float NONE = -std::numeric_limits<float>::infinity();

inline Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }
inline Floats load(const Bits* from) {
  const Words words = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16;
  return reinterpret_cast<const Floats&>(words);
}
inline void store(float* to, Floats x) { *reinterpret_cast<Floats*>(to) = x; }
inline Floats all(float x) { return Floats{} + x; }

inline float widen(float x) { return x; }
inline float widen(Bits x) {
  const uint32_t word = static_cast<uint32_t>(x) << 16;
  float wide;
  std::memcpy(&wide, &word, sizeof wide);
  return wide;
}

inline void store(Bits* to, Floats x) {
  const Words words = reinterpret_cast<const Words&>(x);  // rounded to the nearest, ties to even
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector((words + 0x7fff + ((words >> 16) & 1)) >> 16, Halves);
}

inline float sum(Floats x) {
  for (int64_t half = LANES / 2; half; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) x[lane] += x[lane + half];
  return x[0];
}

// The largest of scores [count], whole vectors; they are filled up with NONE.
inline float highest(const float* scores, int64_t count) {
  Floats most = load(scores);
  for (int64_t t = LANES; t < count; t += LANES) {
    const Floats x = load(scores + t);
    most = x > most ? x : most;
  }
  for (int64_t half = LANES / 2; half; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) most[lane] = std::max(most[lane], most[lane + half]);
  return most[0];
}

// exp(x) for x <= 0, to two units in the last place; 0 below -87, as exp's float32 nearly is. NaN stays NaN.
inline Floats exponent(Floats x) {
  const Floats bounded = x < all(-87.0f) ? all(-87.0f) : x;
  const Ints twos = __builtin_convertvector(bounded * 1.44269504f - 0.5f, Ints);  // cut towards 0: the nearest
  const Floats n = __builtin_convertvector(twos, Floats);
  const Floats r = bounded - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts
  Floats p = all(1.98756915e-4f);
  p = p * r + 1.39819995e-3f;
  p = p * r + 8.33345190e-3f;
  p = p * r + 4.16657959e-2f;
  p = p * r + 1.66666655e-1f;
  p = p * r + 5.00000012e-1f;
  p = p * (r * r) + r + 1.0f;
  const Ints power = (twos + 127) << 23;
  const Floats result = p * reinterpret_cast<const Floats&>(power);
  return x < all(-87.0f) ? Floats{} : result;
}

inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// Runs task(0) .. task(count - 1) on XLA's threads and on this one, which works itself and so waits for nobody idle:
// programs of several devices share these threads, and each may be in here.
template <typename Task>
void parallel(ffi::ThreadPool& pool, int64_t count, const Task& task) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto state = std::make_shared<State>();
  auto work = [state, count, &task] {  // a helper that comes late finds no number left and never looks at `task`
    for (int64_t number; (number = state->next.fetch_add(1)) < count;) {
      task(number);
      state->done.fetch_add(1, std::memory_order_release);
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([work] { work(); });
  work();
  while (state->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

// ---- A product of a few rows -------------------------------------------------------------------------------------

constexpr int64_t ROWS = 8, COLUMNS = 2 * LANES;  // of a tile: its 16 sums and what they need fit the registers
constexpr int64_t DEPTH = 64;                     // rows of weights read side by side; the next ones are on their way

inline void prefetch(const void* where) { __builtin_prefetch(where, 0, 2); }  // into the second cache

// y [R, 32] += x [R, depth] w [depth, 32], from 0 if `fresh`; steps are the distances between rows.
template <int64_t R, typename T>
inline void tile(const T* x, int64_t x_step, const T* w, int64_t w_step, int64_t depth, float* y, int64_t y_step,
                 bool fresh) {
#ifdef PAIRED_PRODUCTS
  if constexpr (std::is_same_v<T, Bits>) {
    // The processor multiplies pairs: of weights below one another, [a0 b0 a1 b1 ...], with a row's two numbers.
    alignas(64) static constexpr Bits LOW[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low = _mm512_load_si512(LOW), high = _mm512_add_epi16(low, _mm512_set1_epi16(LANES));
    __m512 left[R], right[R];
    for (int64_t r = 0; r < R; ++r) {
      left[r] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(y + r * y_step);
      right[r] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(y + r * y_step + LANES);
    }
    for (int64_t k = 0; k < depth; k += 2) {
      const Bits *first = w + k * w_step, *second = first + w_step;
      prefetch(first + DEPTH * w_step);
      prefetch(second + DEPTH * w_step);
      const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
      const __m512bh lower = (__m512bh)_mm512_permutex2var_epi16(a, low, b);
      const __m512bh upper = (__m512bh)_mm512_permutex2var_epi16(a, high, b);
      for (int64_t r = 0; r < R; ++r) {
        int32_t two;
        std::memcpy(&two, x + r * x_step + k, sizeof two);
        const __m512bh pair = (__m512bh)_mm512_set1_epi32(two);
        left[r] = _mm512_dpbf16_ps(left[r], lower, pair);
        right[r] = _mm512_dpbf16_ps(right[r], upper, pair);
      }
    }
    for (int64_t r = 0; r < R; ++r) {
      _mm512_storeu_ps(y + r * y_step, left[r]);
      _mm512_storeu_ps(y + r * y_step + LANES, right[r]);
    }
    return;
  }
#endif
  Floats left[R], right[R];
  for (int64_t r = 0; r < R; ++r) {
    left[r] = fresh ? Floats{} : load(y + r * y_step);
    right[r] = fresh ? Floats{} : load(y + r * y_step + LANES);
  }
  for (int64_t k = 0; k < depth; ++k) {
    prefetch(w + (k + DEPTH) * w_step);
    const Floats a = load(w + k * w_step), b = load(w + k * w_step + LANES);
    for (int64_t r = 0; r < R; ++r) {
      const float number = widen(x[r * x_step + k]);
      left[r] += a * number;
      right[r] += b * number;
    }
  }
  for (int64_t r = 0; r < R; ++r) {
    store(y + r * y_step, left[r]);
    store(y + r * y_step + LANES, right[r]);
  }
}

// `tile` for any number of rows.
template <typename T>
void tiles(int64_t rows, const T* x, int64_t x_step, const T* w, int64_t w_step, int64_t depth, float* y,
           int64_t y_step, bool fresh) {
  for (; rows >= ROWS; rows -= ROWS, x += ROWS * x_step, y += ROWS * y_step)
    tile<ROWS>(x, x_step, w, w_step, depth, y, y_step, fresh);
  switch (rows) {
    case 1: return tile<1>(x, x_step, w, w_step, depth, y, y_step, fresh);
    case 2: return tile<2>(x, x_step, w, w_step, depth, y, y_step, fresh);
    case 3: return tile<3>(x, x_step, w, w_step, depth, y, y_step, fresh);
    case 4: return tile<4>(x, x_step, w, w_step, depth, y, y_step, fresh);
    case 5: return tile<5>(x, x_step, w, w_step, depth, y, y_step, fresh);
    case 6: return tile<6>(x, x_step, w, w_step, depth, y, y_step, fresh);
    case 7: return tile<7>(x, x_step, w, w_step, depth, y, y_step, fresh);
  }
}

// y [rows, count] = x [rows, depth] w[:, first : first + count], w [depth, width]: each weight is read once.
void product(ffi::ThreadPool& pool, const Bits* x, const Bits* w, float* y, int64_t rows, int64_t depth, int64_t width,
             int64_t first, int64_t count) {
  const int64_t tasks = std::max<int64_t>(1, pool.num_threads());  // long runs of a row are read fastest
  const int64_t each = round_up((count + tasks - 1) / tasks, COLUMNS);
  parallel(pool, (count + each - 1) / each, [=](int64_t task) {
    const int64_t start = task * each, columns = std::min(each, count - start), step = round_up(columns, COLUMNS);
    static thread_local std::vector<float> sums;
    sums.resize(rows * step);
    for (int64_t k = 0; k < depth; k += DEPTH) {
      const int64_t deep = std::min(DEPTH, depth - k);
      const Bits* weights = w + k * width + first + start;
      for (int64_t c = 0; c < columns; c += COLUMNS) {
        if (c + COLUMNS <= columns) {
          tiles(rows, x + k, depth, weights + c, width, deep, sums.data() + c, step, k == 0);
          continue;
        }
        Bits edge[DEPTH * COLUMNS] = {};  // the last columns, filled up with zeros
        for (int64_t d = 0; d < deep; ++d) std::copy_n(weights + d * width + c, columns - c, edge + d * COLUMNS);
        tiles(rows, x + k, depth, edge, COLUMNS, deep, sums.data() + c, step, k == 0);
      }
    }
    for (int64_t r = 0; r < rows; ++r) std::copy_n(sums.data() + r * step, columns, y + r * count + start);
  });
}

// ---- Attention of one query a row over a cache -------------------------------------------------------------------

// Scores, softmax and weighted sum of one head of one row: query [H], keys and values [filled, H], H = V lanes.
template <int64_t V, typename T>
void attend_head(const T* query, const T* keys, const T* values, int64_t filled, float* scores, float* out) {
  constexpr int64_t H = V * LANES;
  Floats q[V], result[V] = {}, total = {};
  for (int64_t v = 0; v < V; ++v) q[v] = load(query + v * LANES) / std::sqrt(static_cast<float>(H));
  for (int64_t t = 0; t < filled; ++t) {
    Floats products = q[0] * load(keys + t * H);
    for (int64_t v = 1; v < V; ++v) products += q[v] * load(keys + t * H + v * LANES);
    scores[t] = sum(products);
  }
  std::fill(scores + filled, scores + round_up(filled, LANES), NONE);
  const float most = highest(scores, filled);
  for (int64_t t = 0; t < filled; t += LANES) {
    const Floats weights = exponent(load(scores + t) - most);
    store(scores + t, weights);
    total += weights;
  }
  for (int64_t t = 0; t < filled; ++t)
    for (int64_t v = 0; v < V; ++v) result[v] += load(values + t * H + v * LANES) * scores[t];
  for (int64_t v = 0; v < V; ++v) store(out + v * LANES, result[v] / sum(total));
}

// query and out [rows, heads, H], keys and values [rows, heads, positions, H]; row s looks at 0 .. place[s].
template <int64_t V, typename T>
void attend_cache(ffi::ThreadPool& pool, const T* query, const T* keys, const T* values, const int32_t* place,
                  float* out, int64_t rows, int64_t heads, int64_t positions) {
  constexpr int64_t H = V * LANES;
  parallel(pool, rows * heads, [=](int64_t task) {
    static thread_local std::vector<float> scores;
    scores.resize(round_up(positions, LANES));
    const int64_t at = task * positions * H;
    attend_head<V>(query + task * H, keys + at, values + at, place[task / heads] + 1, scores.data(), out + task * H);
  });
}

// ---- Attention over whole sequences ------------------------------------------------------------------------------

constexpr int64_t QUERIES = 32;       // of a task: their scores of 1024 positions fit the second cache
constexpr int64_t VALUE_DEPTH = 128;  // values read together

// query, keys, values and out lie as [batch, length, heads, H]. Weights are rounded to T before they meet the values.
//
// causal, length 4 in blocks of 2 queries:  [1 0 . .]  [1 1 . .]  [1 1 1 0]  [1 1 1 1]   (.: not computed)
template <typename T>
void attend(ffi::ThreadPool& pool, const T* query, const T* keys, const T* values, T* out, int64_t batch,
            int64_t heads, int64_t length, int64_t H, bool causal) {
  const int64_t blocks = (length + QUERIES - 1) / QUERIES, next = heads * H;  // from a position to the next
  // One piece more than needed: numbers 4 KiB apart would take each other's place in the first cache.
  const int64_t positions = round_up(length, COLUMNS) + COLUMNS, width = round_up(H, COLUMNS);
  const auto begin = [=](int64_t head) { return head / heads * length * next + head % heads * H; };
  std::vector<T> turned(batch * heads * H * positions);      // keys [H, T]
  std::vector<T> padded(batch * heads * positions * width);  // values [T, H], zeros behind
  parallel(pool, batch * heads, [=, &turned, &padded](int64_t head) {
    const T *key = keys + begin(head), *value = values + begin(head);
    T *key_to = turned.data() + head * H * positions, *value_to = padded.data() + head * positions * width;
    for (int64_t start = 0; start < length; start += COLUMNS)
      for (int64_t h = 0; h < H; ++h)
        for (int64_t t = start; t < std::min(start + COLUMNS, length); ++t)
          key_to[h * positions + t] = key[t * next + h];
    for (int64_t t = 0; t < length; ++t) std::copy_n(value + t * next, H, value_to + t * width);
  });
  parallel(pool, batch * heads * blocks, [=, &turned, &padded](int64_t task) {
    const int64_t head = task / blocks, start = task % blocks * QUERIES, count = std::min(QUERIES, length - start);
    const int64_t seen = round_up(causal ? start + count : length, COLUMNS), step = seen + LANES;
    const T* key = turned.data() + head * H * positions;
    const T* value = padded.data() + head * positions * width;
    static thread_local std::vector<float> scores, sums;
    static thread_local std::vector<T> weights;
    scores.resize(count * step);
    weights.resize(count * step);
    sums.resize(count * width);
    for (int64_t t = 0; t < seen; t += COLUMNS)
      tiles(count, query + begin(head) + start * next, next, key + t, positions, H, scores.data() + t, step, true);
    float totals[QUERIES];
    const float scale = 1 / std::sqrt(static_cast<float>(H));
    for (int64_t q = 0; q < count; ++q) {
      float* row = scores.data() + q * step;
      std::fill(row + (causal ? start + q + 1 : length), row + seen, NONE);
      const float most = highest(row, seen);
      Floats total = {};
      for (int64_t t = 0; t < seen; t += LANES) {
        const Floats e = exponent((load(row + t) - most) * scale);
        total += e;
        store(weights.data() + q * step + t, e);
      }
      totals[q] = sum(total);
    }
    for (int64_t t = 0; t < seen; t += VALUE_DEPTH)
      for (int64_t h = 0; h < width; h += COLUMNS)
        tiles(count, weights.data() + t, step, value + t * width + h, width, std::min(VALUE_DEPTH, seen - t),
              sums.data() + h, width, t == 0);
    for (int64_t q = 0; q < count; ++q)
      for (int64_t h = 0; h < H; h += LANES)
        store(out + begin(head) + (start + q) * next + h, load(sums.data() + q * width + h) / totals[q]);
  });
}

// ---- What XLA calls ----------------------------------------------------------------------------------------------

using Out = ffi::Result<ffi::Buffer<ffi::F32>>;

// Calls function(T{}) with the type of a buffer's numbers; 16-bit ones may come as bits.
template <typename Function>
void of_type(const ffi::AnyBuffer& buffer, const Function& function) {
  buffer.element_type() == ffi::F32 ? function(float{}) : function(Bits{});
}

template <typename T>
const T* numbers(const ffi::AnyBuffer& buffer) {
  return static_cast<const T*>(buffer.untyped_data());
}

ffi::Error Product(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer w, Out y, int64_t first) {
  product(pool, numbers<Bits>(x), numbers<Bits>(w), y->typed_data(), x.dimensions()[0], x.dimensions()[1],
          w.dimensions()[1], first, y->dimensions()[1]);
  return ffi::Error::Success();
}

ffi::Error AttendCache(ffi::ThreadPool pool, ffi::AnyBuffer query, ffi::AnyBuffer keys, ffi::AnyBuffer values,
                       ffi::Buffer<ffi::S32> place, Out out) {
  const auto shape = keys.dimensions();
  of_type(keys, [&](auto zero) {
    using T = decltype(zero);
    auto run = [&](auto lanes) {
      attend_cache<decltype(lanes)::value>(pool, numbers<T>(query), numbers<T>(keys), numbers<T>(values),
                                           place.typed_data(), out->typed_data(), shape[0], shape[1], shape[2]);
    };
    switch (shape[3] / LANES) {
      case 1: return run(std::integral_constant<int64_t, 1>());
      case 2: return run(std::integral_constant<int64_t, 2>());
      case 3: return run(std::integral_constant<int64_t, 3>());
      case 4: return run(std::integral_constant<int64_t, 4>());
      case 5: return run(std::integral_constant<int64_t, 5>());
      case 6: return run(std::integral_constant<int64_t, 6>());
      case 7: return run(std::integral_constant<int64_t, 7>());
      case 8: return run(std::integral_constant<int64_t, 8>());
    }
  });
  return ffi::Error::Success();
}

ffi::Error Attend(ffi::ThreadPool pool, ffi::AnyBuffer query, ffi::AnyBuffer keys, ffi::AnyBuffer values,
                  ffi::Result<ffi::AnyBuffer> out, bool causal) {
  const auto shape = keys.dimensions();  // [B, N, T, H]; cpu_kernels.py asks for memory in the order [B, T, N, H]
  of_type(keys, [&](auto zero) {
    using T = decltype(zero);
    attend(pool, numbers<T>(query), numbers<T>(keys), numbers<T>(values), static_cast<T*>(out->untyped_data()),
           shape[0], shape[1], shape[2], shape[3], causal);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(bark_beam_product, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("first"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bark_beam_attend_cache, AttendCache,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(bark_beam_attend, Attend,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("causal"));
