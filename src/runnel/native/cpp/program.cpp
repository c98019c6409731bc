#include "program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>

namespace runnel {
namespace {

constexpr int64_t kSerialNumbers = 1 << 14;  // less work than this is not worth sharing
constexpr int64_t kChannelsAtOnce = 256;
constexpr int64_t kQueriesAtOnce = 8;
constexpr int64_t kCurved = 8;  // simple operations that a function such as exp is worth

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

int64_t numel(const View& view) {
  int64_t count = 1;
  for (const int64_t size : view.sizes) count *= size;
  return count;
}

// Vectors of an arena begin at multiples of 64 bytes.
int64_t padded(int64_t numbers) { return (numbers + 15) / 16 * 16; }

// Where the state before and after a node is.
struct Places {
  static constexpr int64_t kBefore = -1, kZero = -2, kAfter = -3;  // others are slots
  std::vector<int64_t> from, to;
  int64_t slots = 0;
};

Places places_of_chains(const Nodes& nodes) {
  Places places;
  for (int64_t node = 0; node < nodes.count; ++node) {
    const int64_t parent = nodes.parents[node];
    places.from.push_back(parent == Nodes::kFromState ? Places::kBefore
                          : parent == Nodes::kFromZero ? Places::kZero
                                                       : Places::kAfter);
    places.to.push_back(Places::kAfter);
  }
  return places;
}

// The last child of a node takes over its parent's slot.
Places places_of_tree(const Nodes& nodes) {
  std::vector<int64_t> last(nodes.count, -1);
  for (int64_t node = 0; node < nodes.count; ++node)
    if (nodes.parents[node] >= 0) last[nodes.parents[node]] = node;
  Places places;
  for (int64_t node = 0; node < nodes.count; ++node) {
    const int64_t parent = nodes.parents[node];
    places.from.push_back(parent < 0 ? Places::kBefore : places.to[parent]);
    places.to.push_back(parent >= 0 && last[parent] == node ? places.to[parent] : places.slots++);
  }
  return places;
}

}  // namespace

// What of a program is done: numbers of nodes, states, and the keeping of keys and values.
struct Wanted {
  bool numbers, states, keys;
};

// One call of a program.
class Run {
 public:
  // where: for a commit, the places of the call's nodes in an arena of arena_nodes; null where they are the same.
  Run(const Program& program, const Call& call, bool keep, Places places, const int64_t* where, int64_t arena_nodes)
      : program_(program), call_(call), nodes_(call.nodes), table_(kernels()), offsets_(program.offsets_[keep]),
        where_(where), arena_nodes_(arena_nodes), places_(std::move(places)), lease_(call.threads),
        of_row_(static_cast<size_t>(call.nodes.batch)) {
    for (int64_t node = 0; node < nodes_.count; ++node) of_row_[nodes_.rows[node]].push_back(node);
    leaf_in_slot_.assign(program.leaves_.size(), 0);
    for (const int64_t size : program.leaves_) slot_numbers_ = std::max(slot_numbers_, size);
    const auto& operations = program.operations_;
    std::vector<bool> placed(program.leaves_.size());
    int64_t together = 0;  // leaves that are worked on together have a part of a slot each
    for (size_t begin = 0, end; begin < operations.size(); begin = end) {
      end = end_of(begin);
      std::vector<int64_t> leaves;
      for (size_t i = begin; i < end; ++i)
        if (const int64_t leaf = leaf_of(operations[i]); leaf >= 0) leaves.push_back(leaf);
      for (const int64_t leaf : leaves) {
        if (leaves.size() < 2 || placed[leaf]) continue;
        placed[leaf] = true;
        leaf_in_slot_[leaf] = together;
        together += padded(program.leaves_[leaf]);
      }
    }
    slot_numbers_ = std::max(slot_numbers_, together);
    zeros_.assign(static_cast<size_t>(slot_numbers_), 0.0f);
    slots_.reset(new float[static_cast<size_t>(places_.slots * slot_numbers_)]);
  }

  void load_inputs() {
    const int64_t width = program_.sizes_[program_.input_];
    for (int64_t node = 0; node < nodes_.count; ++node) {
      std::memcpy(buffer(program_.input_, node), at<const float>(call_.input) + node * width, width * sizeof(float));
      if (program_.position_ >= 0) *buffer(program_.position_, node) = static_cast<float>(nodes_.positions[node]);
    }
  }

  void store_outputs() {
    const int64_t width = program_.sizes_[program_.output_];
    for (int64_t node = 0; node < nodes_.count; ++node)
      std::memcpy(at<float>(call_.output) + node * width, buffer(program_.output_, node), width * sizeof(float));
  }

  // Rows without a node keep their states.
  void keep_idle_rows() {
    for (int64_t row = 0; row < nodes_.batch; ++row)
      for (size_t leaf = 0; leaf < program_.leaves_.size() && of_row_[row].empty(); ++leaf) {
        const int64_t size = program_.leaves_[leaf];
        if (size == 0) continue;  // such a leaf has no address
        std::memcpy(at<float>(call_.state_after[leaf]) + row * size,
                    at<const float>(call_.state_before[leaf]) + row * size, size * sizeof(float));
      }
  }

  void run(Wanted wanted) {
    for (size_t begin = 0, end; begin < program_.operations_.size(); begin = end) {
      end = end_of(begin);
      const auto begun = Clock::now();
      part(begin, end, wanted);
      if (call_.seconds != nullptr)
        call_.seconds[begin] += std::chrono::duration<double>(Clock::now() - begun).count();
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Where what is done in one go and begins with an operation ends.
  size_t end_of(size_t begin) const {
    const auto& operations = program_.operations_;
    const Operation& first = operations[begin];
    if (first.kind == Kind::loop || first.kind == Kind::channels) return begin + 1 + static_cast<size_t>(first.ints[0]);
    size_t end = begin + 1;
    if (!of_one_node(first.kind)) return end;
    while (end < operations.size() && of_one_node(operations[end].kind)) ++end;
    return end;
  }

  void part(size_t begin, size_t end, Wanted wanted) {
    const Operation& op = program_.operations_[begin];
    switch (op.kind) {
      case Kind::product:
        if (wanted.numbers) product(op);
        return;
      case Kind::loop:
        if (wanted.states) loop(begin + 1, end);
        return;
      case Kind::channels:
        if (wanted.states) channels(begin + 1, end, wanted.numbers);
        return;
      case Kind::conv:
      case Kind::shift:
      case Kind::diagonal:
      case Kind::complex_diagonal:
      case Kind::lti:
      case Kind::selective:
        if (wanted.states) channels(begin, end, wanted.numbers);
        return;
      case Kind::attend:
        if (wanted.numbers) attend(op);
        if (wanted.keys) keep_keys(op);
        return;
      case Kind::outer:
      case Kind::delta:
      case Kind::dplr:
      case Kind::log_linear:
        if (wanted.states) matrix_states(op);
        return;
      default:
        if (wanted.numbers) stateless(begin, end);
    }
  }

  // The leaf that an operation writes, or -1.
  static int64_t leaf_of(const Operation& op) {
    switch (op.kind) {
      case Kind::conv:
      case Kind::shift:
      case Kind::diagonal:
      case Kind::complex_diagonal:
      case Kind::lti:
      case Kind::selective:
      case Kind::outer:
      case Kind::delta:
      case Kind::dplr:
      case Kind::log_linear: return op.ints[0];
      default: return !op.operands.empty() && op.operands[0].space == View::state_after ? op.operands[0].index : -1;
    }
  }

  static bool of_one_node(Kind kind) {
    switch (kind) {
      case Kind::map:
      case Kind::reduce:
      case Kind::normalise:
      case Kind::small_product:
      case Kind::best:
      case Kind::put:
        return true;
      default:
        return false;
    }
  }

  float* buffer(int64_t index, int64_t node) {
    const int64_t place = where_ == nullptr ? node : where_[node];
    return at<float>(call_.arena) + arena_nodes_ * offsets_[index] + place * padded(program_.sizes_[index]);
  }

  float* of(const View& view, int64_t node) {
    switch (view.space) {
      case View::buffer: return buffer(view.index, node) + view.offset;
      case View::constant: return at<float>(program_.constants_[view.index]) + view.offset;
      case View::state_before: return before(view.index, node) + view.offset;
      default: return after(view.index, node) + view.offset;
    }
  }

  float* place(int64_t leaf, int64_t node, int64_t where) {
    const int64_t size = program_.leaves_[leaf], row = nodes_.rows[node];
    if (where == Places::kBefore) return at<float>(call_.state_before[leaf]) + row * size;
    if (where == Places::kZero) return zeros_.data();
    if (where == Places::kAfter) return at<float>(call_.state_after[leaf]) + row * size;
    return slots_.get() + where * slot_numbers_ + leaf_in_slot_[leaf];
  }
  float* before(int64_t leaf, int64_t node) { return place(leaf, node, places_.from[node]); }
  float* after(int64_t leaf, int64_t node) { return place(leaf, node, places_.to[node]); }

  // ---- operations that look at one node -----------------------------------------------------------------------------

  void product(const Operation& op) {
    const Matrix& matrix = program_.matrices_[op.ints[0]];
    const auto stride = [&](const View& view) { return padded(program_.sizes_[view.index]); };
    multiply(matrix.layout, at<const void>(matrix.data), at<const float>(op.data[0]), of(op.operands[1], 0),
             stride(op.operands[1]), nodes_.count, of(op.operands[0], 0), stride(op.operands[0]), space_, lease_);
  }

  // Operations that look at one node, one after another while its numbers are in cache.
  void stateless(size_t begin, size_t end) {
    int64_t each = 1;
    for (size_t i = begin; i < end; ++i) each += work_of(program_.operations_[i]);
    const int64_t at_once = std::max<int64_t>(1, kSerialNumbers / each);
    lease_.run((nodes_.count + at_once - 1) / at_once, [&](int64_t chunk) {
      const int64_t last = std::min(nodes_.count, (chunk + 1) * at_once);
      for (int64_t node = chunk * at_once; node < last; ++node)
        for (size_t i = begin; i < end; ++i) for_node(program_.operations_[i], node);
    });
  }

  // About how many simple operations of a number.
  static int64_t work_of(const Operation& op) {
    switch (op.kind) {
      case Kind::map: return numel(op.operands[0]) * (is_simple(static_cast<Map>(op.code)) ? 1 : kCurved);
      case Kind::conv: return op.ints[1] * op.ints[2];
      case Kind::lti: return op.ints[1] * op.ints[2];
      case Kind::selective: return op.ints[1] * op.ints[2] * 4;
      case Kind::shift: return op.ints[1];
      case Kind::diagonal:
      case Kind::complex_diagonal: return op.ints[1] * 2;
      default: return numel(op.operands[0]) * (op.ints.empty() ? 1 : op.ints[0]);
    }
  }

  static bool is_simple(Map code) {
    switch (code) {
      case Map::copy:
      case Map::neg:
      case Map::abs:
      case Map::relu:
      case Map::square:
      case Map::cube:
      case Map::affine:
      case Map::clamp:
      case Map::add:
      case Map::mul:
      case Map::maximum:
      case Map::minimum:
      case Map::addcmul:
      case Map::lerp:
      case Map::where: return true;
      default: return false;
    }
  }

  void for_node(const Operation& op, int64_t node) {
    switch (op.kind) {
      case Kind::map: return map(op, node);
      case Kind::reduce:  // ints: count, stride
        return over(op, node, [&](float* const* p) { *p[0] = table_.reduce(op.code, p[1], op.ints[0], op.ints[1]); });
      case Kind::normalise: {  // ints: count; data: weight, bias; operands: where the groups begin
        int64_t group = 0;
        return over(op, node, [&](float* const* p) {
          const auto part = [&](uintptr_t all) { return all == 0 ? nullptr : at<const float>(all) + group; };
          table_.normalise(p[1], op.ints[0], op.floats[0], part(op.data[0]), part(op.data[1]), p[0]);
          group += op.ints[0];
        });
      }
      case Kind::small_product: {  // ints: k; operands: [h, m, n], [h, m, k], [h, k, n]
        const View &out = op.operands[0], &a = op.operands[1], &b = op.operands[2];
        SmallProduct p{nullptr, nullptr, nullptr, out.sizes[1], op.ints[0], out.sizes[2], a.strides[1], a.strides[2],
                       b.strides[1], b.strides[2], out.strides[1], out.strides[2]};
        for (int64_t head = 0; head < out.sizes[0]; ++head) {
          p.a = of(a, node) + head * a.strides[0];
          p.b = of(b, node) + head * b.strides[0];
          p.out = of(out, node) + head * out.strides[0];
          table_.small_product(p);
        }
        return;
      }
      case Kind::best:  // operands: places [rows, k], x [rows, n]; ints: n
        return over(op, node, [&](float* const* p) {
          best_of(p[1], op.ints[0], op.operands[1].strides.back(), p[0], op.operands[0]);
        }, 1);
      case Kind::put: {  // operands: y [rows, n], places [rows, k], x [rows, k]; ints: k
        const int64_t to = op.operands[0].strides.back(), by = op.operands[1].strides.back(),
                      from = op.operands[2].strides.back();
        return over(op, node, [&](float* const* p) {
          for (int64_t i = 0; i < op.ints[0]; ++i) p[0][static_cast<int64_t>(p[1][i * by]) * to] = p[2][i * from];
        }, 1);
      }
      default: {  // a product of one node, inside a loop
        thread_local Workspace space;
        Lease alone(1);
        const Matrix& matrix = program_.matrices_[op.ints[0]];
        multiply(matrix.layout, at<const void>(matrix.data), at<const float>(op.data[0]), of(op.operands[1], node), 0, 1,
                 of(op.operands[0], node), 0, space, alone);
      }
    }
  }

  // The places of the largest of n numbers, the largest first and of equals the first first.
  static void best_of(const float* x, int64_t n, int64_t stride, float* places, const View& view) {
    const int64_t apart = view.strides.back();
    for (int64_t taken = 0; taken < view.sizes.back(); ++taken) {
      int64_t best = -1;
      for (int64_t i = 0; i < n; ++i) {
        bool is_taken = false;
        for (int64_t j = 0; j < taken; ++j) is_taken = is_taken || places[j * apart] == static_cast<float>(i);
        if (!is_taken && (best < 0 || x[i * stride] > x[best * stride])) best = i;
      }
      places[taken * apart] = static_cast<float>(best);
    }
  }

  // Calls `visit` with the operands' addresses for every index into their sizes.
  template <class Visit>
  void over(const Operation& op, int64_t node, Visit&& visit, size_t inner = 0) {
    constexpr size_t kMost = 4;
    float* p[kMost] = {};
    for (size_t i = 0; i < op.operands.size(); ++i) p[i] = of(op.operands[i], node);
    const auto& sizes = op.operands[0].sizes;
    const size_t dims = sizes.size() - inner;
    int64_t index[8] = {};
    for (;;) {
      visit(p);
      size_t d = dims;
      for (;;) {
        if (d-- == 0) return;
        for (size_t i = 0; i < op.operands.size(); ++i) p[i] += op.operands[i].strides[d];
        if (++index[d] < sizes[d]) break;
        for (size_t i = 0; i < op.operands.size(); ++i) p[i] -= op.operands[i].strides[d] * sizes[d];
        index[d] = 0;
      }
    }
  }

  void map(const Operation& op, int64_t node) {  // floats: two scalars
    MapRow row{};
    const View& out = op.operands[0];
    row.count = out.sizes.back();
    row.out_stride = out.strides.back();
    row.scalars[0] = op.floats[0];
    row.scalars[1] = op.floats[1];
    for (size_t i = 1; i < op.operands.size(); ++i) row.strides[i - 1] = op.operands[i].strides.back();
    over(op, node, [&](float* const* p) {
      row.out = p[0];
      for (size_t i = 1; i < op.operands.size(); ++i) row.in[i - 1] = p[i];
      table_.map(op.code, row);
    }, 1);
  }

  // ---- operations with a state --------------------------------------------------------------------------------------

  // For every row and every part, the row's nodes in order.
  template <class Step>
  void walk_parts(int64_t parts, int64_t numbers, Step&& step) {
    const auto task = [&](int64_t index) {
      for (const int64_t node : of_row_[index / parts]) step(node, index % parts);
    };
    const int64_t tasks = nodes_.batch * parts;
    if (numbers * nodes_.count < kSerialNumbers) {
      for (int64_t index = 0; index < tasks; ++index) task(index);
    } else {
      lease_.run(tasks, task);
    }
  }

  // Operations [begin, end) by channels: every channel of a node looks at the same channel of the others.
  void channels(size_t begin, size_t end, bool maps) {
    const auto& operations = program_.operations_;
    int64_t count = 0, work = 0;
    for (size_t i = begin; i < end; ++i) {
      work += work_of(operations[i]);
      count = operations[i].kind == Kind::map ? operations[i].operands[0].sizes.back() : operations[i].ints[1];
    }
    walk_parts((count + kChannelsAtOnce - 1) / kChannelsAtOnce, work, [&](int64_t node, int64_t part) {
      const int64_t first = part * kChannelsAtOnce, last = std::min(count, first + kChannelsAtOnce);
      if (node + 1 < nodes_.count) want(begin, end, node + 1, first, last);
      for (size_t i = begin; i < end; ++i) {
        if (operations[i].kind != Kind::map) {
          step(operations[i], node, first, last);
        } else if (maps) {
          map_part(operations[i], node, first, last);
        }
      }
    });
  }

  // What the next node will touch is asked for: a part of each of many vectors is no stretch that a machine foresees.
  void want(size_t begin, size_t end, int64_t node, int64_t first, int64_t last) {
    for (size_t i = begin; i < end; ++i)
      for (const View& view : program_.operations_[i].operands) {
        if (view.space != View::buffer || view.strides.back() != 1 || numel(view) < last) continue;
        const float* x = of(view, node);
        for (int64_t at = first; at < last; at += 16) __builtin_prefetch(x + at, 0, 3);
      }
  }

  void map_part(const Operation& op, int64_t node, int64_t begin, int64_t end) {
    MapRow row{};
    const auto at = [&](const View& view) { return of(view, node) + begin * view.strides[0]; };
    row.count = end - begin;
    row.out = at(op.operands[0]);
    row.out_stride = op.operands[0].strides[0];
    row.scalars[0] = op.floats[0];
    row.scalars[1] = op.floats[1];
    for (size_t i = 1; i < op.operands.size(); ++i) {
      row.in[i - 1] = at(op.operands[i]);
      row.strides[i - 1] = op.operands[i].strides[0];
    }
    table_.map(op.code, row);
  }

  // One token of the channels [begin, end).
  void step(const Operation& op, int64_t node, int64_t begin, int64_t end) {
    const int64_t leaf = op.ints[0], channels = op.ints[1];
    const auto given = [&](size_t i) { return of(op.operands[i], node); };
    const float* from = before(leaf, node);
    float *to = after(leaf, node), *y = given(0);
    switch (op.kind) {
      case Kind::conv: {  // ints: leaf, channels, width; data: weight [width, channels], bias; operands: y, x
        const ConvStep s{op.ints[2], channels, at<const float>(op.data[0]), at<const float>(op.data[1])};
        return table_.conv(s, given(1), from, to, y, begin, end);
      }
      case Kind::shift:  // ints: leaf, channels; operands: y, x
        return table_.shift(given(1), from, to, y, begin, end);
      case Kind::diagonal:  // ints: leaf, channels; operands: y, a, b
        return table_.diagonal(given(1), given(2), from, to, y, begin, end);
      case Kind::complex_diagonal:  // ints: leaf, numbers, two a pair; operands: y, a, b
        return table_.complex_diagonal(given(1), given(2), from, to, y, begin, end);
      case Kind::lti: {  // ints: leaf, channels, numbers; data: keep, turn, read; operands: y, x
        const LtiStep s{op.ints[2], at<const float>(op.data[0]), at<const float>(op.data[1]),
                        at<const float>(op.data[2])};
        return table_.lti(s, given(1), from, to, y, begin, end);
      }
      default:  // selective; ints: leaf, channels, n; data: a; operands: y, x, dt, b, c
        return table_.selective(op.ints[2], given(1), given(2), at<const float>(op.data[0]), given(3), given(4), from,
                                to, y, begin, end);
    }
  }

  // ints: leaf, heads, keys, values, decays, steps or buckets; operands: y [1, heads, values], then q, k, v, ..., log
  // decay, each [steps, heads, width]
  void matrix_states(const Operation& op) {
    const auto& in = op.operands;
    const int64_t leaf = op.ints[0], heads = op.ints[1], most = op.ints[5];
    const MatrixStep s{op.ints[2], op.ints[3], op.ints[4]};
    const int64_t size = s.keys * s.values;
    const auto head_of = [&](const View& view, int64_t node, int64_t step, int64_t head) {
      return of(view, node) + step * view.strides[0] + head * view.strides[1];
    };
    walk_parts(heads, heads * size * most, [&](int64_t node, int64_t head) {
      const float* from = before(leaf, node) + head * size;
      float *to = after(leaf, node) + head * size, *y = head_of(in[0], node, 0, head);
      const int64_t steps = op.kind == Kind::log_linear ? 1 : most;
      for (int64_t step = 0; step < steps; ++step, from = to) {
        const auto given = [&](size_t i) { return head_of(in[i], node, step, head); };
        const float *q = given(1), *k = given(2), *v = given(3);
        if (op.kind == Kind::outer) {
          table_.outer(s, q, k, v, given(4), from, to, y);
        } else if (op.kind == Kind::delta) {
          table_.delta(s, q, k, v, *given(4), given(5), from, to, y);
        } else if (op.kind == Kind::dplr) {
          table_.dplr(s, q, k, v, given(4), given(5), given(6), from, to, y);
        } else {
          const Buckets buckets{most, heads * size, nodes_.positions[node]};
          table_.log_linear(s, buckets, q, k, v, given(5), given(4), from, to, y);
        }
      }
    });
  }

  // Operations [begin, end) for one node after another.
  void loop(size_t begin, size_t end) {
    walk_parts(1, kSerialNumbers, [&](int64_t node, int64_t) {
      for (size_t i = begin; i < end; ++i) for_node(program_.operations_[i], node);
    });
  }

  // ---- attention ----------------------------------------------------------------------------------------------------

  // Keys and values of one group, those that the memory holds first.
  struct Seen {
    std::vector<const float*> keys, values;
    std::vector<int64_t> positions;
    int64_t held = 0;

    void clear() {
      keys.clear(), values.clear(), positions.clear();
      held = 0;
    }
  };

  void see_held(const Operation& op, int64_t row, int64_t group, Seen& seen) const {
    const KeyValues& memory = call_.key_values[op.ints[0]];
    const int64_t groups = op.ints[1], width = op.ints[2], values_width = op.ints[5];
    for (int64_t j = 0; j < memory.held; ++j) {
      const int64_t position = memory.positions[row * memory.position_row + j];
      if (position < 0) continue;
      seen.keys.push_back(memory.k + row * memory.k_row + (j * groups + group) * width);
      seen.values.push_back(memory.v + row * memory.v_row + (j * groups + group) * values_width);
      seen.positions.push_back(position);
    }
    seen.held = static_cast<int64_t>(seen.positions.size());
  }
  void see(const Operation& op, int64_t node, int64_t group, Seen& seen) {
    seen.keys.push_back(of(op.operands[2], node) + group * op.operands[2].strides[0]);
    seen.values.push_back(of(op.operands[3], node) + group * op.operands[3].strides[0]);
    seen.positions.push_back(nodes_.positions[node]);
  }

  // The node and those before it in this call, first to last; whether they begin at the memory.
  bool path_to(int64_t node, std::vector<int64_t>& path) const {
    path.clear();
    int64_t at = node;
    for (; at >= 0; at = nodes_.parents[at]) path.push_back(at);
    std::reverse(path.begin(), path.end());
    return at == Nodes::kFromState;
  }

  // Some nodes of a row that attend together: [begin, end) of them. chain: those of the row follow one another.
  struct Block {
    int64_t row, begin, end;
    bool chain, alone;  // alone: it is the only one of its row
  };

  std::vector<Block> blocks_of_rows() const {
    const int64_t most = std::clamp<int64_t>(nodes_.count / (2 * lease_.threads()), 1, kQueriesAtOnce);
    std::vector<Block> blocks;
    for (int64_t row = 0; row < nodes_.batch; ++row) {
      const auto& own = of_row_[row];
      const auto count = static_cast<int64_t>(own.size());
      bool chain = true;
      for (int64_t i = 1; i < count; ++i) chain = chain && nodes_.parents[own[i]] == own[i - 1];
      for (int64_t begin = 0; begin < count; begin += most)
        blocks.push_back({row, begin, std::min(count, begin + most), chain, count <= most});
    }
    return blocks;
  }

  // ints: memory, groups, width, window or -1, sinks, values; floats: scale, cap;
  // operands: y [H, V], q [H, K], k [G, K], v [G, V]
  void attend(const Operation& op) {
    const int64_t groups = op.ints[1];
    if (blocks_.empty()) blocks_ = blocks_of_rows();
    seen_.resize(static_cast<size_t>(nodes_.batch * groups));
    const auto look = [&](int64_t row, int64_t group) {
      Seen& seen = seen_[row * groups + group];
      seen.clear();
      const auto& own = of_row_[row];
      if (nodes_.parents[own[0]] == Nodes::kFromState) see_held(op, row, group, seen);
      for (const int64_t node : own) see(op, node, group, seen);
    };
    const auto is_shared = [](const Block& block) { return block.chain && !block.alone; };
    if (std::any_of(blocks_.begin(), blocks_.end(), is_shared))
      lease_.run(static_cast<int64_t>(blocks_.size()) * groups, [&](int64_t task) {
        const Block& block = blocks_[task / groups];
        if (is_shared(block) && block.begin == 0) look(block.row, task % groups);
      });
    lease_.run(static_cast<int64_t>(blocks_.size()) * groups, [&](int64_t task) {
      const Block& block = blocks_[task / groups];
      const int64_t group = task % groups;
      if (!block.chain) {
        for (int64_t i = block.begin; i < block.end; ++i) attend_alone(op, of_row_[block.row][i], group);
        return;
      }
      if (block.alone) look(block.row, group);
      attend_together(op, seen_[block.row * groups + group], group, block);
    });
  }

  // Nodes of a chain for one group of heads: each sees the list up to itself.
  void attend_together(const Operation& op, const Seen& seen, int64_t group, const Block& block) {
    const int64_t window = op.ints[3], sinks = op.ints[4];
    const auto& own = of_row_[block.row];
    std::vector<AttendQuery>& queries = queries_of_thread();
    int64_t first = 0;
    for (int64_t i = block.begin; i < block.end; ++i) {
      if (window >= 0 && sinks > 0) {  // what is seen is no stretch of the list
        attend_alone(op, own[i], group);
        continue;
      }
      while (window >= 0 && nodes_.positions[own[i]] - seen.positions[first] >= window) ++first;
      ask(op, own[i], group, first, seen.held + i + 1, queries);
    }
    if (!queries.empty()) answer(op, seen, queries);
  }

  // One node of any tree.
  void attend_alone(const Operation& op, int64_t node, int64_t group) {
    thread_local std::vector<int64_t> path;
    thread_local Seen all, seen;
    const int64_t window = op.ints[3], sinks = op.ints[4], own = nodes_.positions[node];
    all.clear();
    seen.clear();
    if (path_to(node, path)) see_held(op, nodes_.rows[node], group, all);
    for (const int64_t other : path) see(op, other, group, all);
    for (size_t j = 0; j < all.positions.size(); ++j) {
      const int64_t position = all.positions[j];
      if (window >= 0 && own - position >= window && position >= sinks) continue;
      seen.keys.push_back(all.keys[j]);
      seen.values.push_back(all.values[j]);
    }
    std::vector<AttendQuery>& queries = queries_of_thread();
    ask(op, node, group, 0, static_cast<int64_t>(seen.keys.size()), queries);
    answer(op, seen, queries);
  }

  static std::vector<AttendQuery>& queries_of_thread() {
    thread_local std::vector<AttendQuery> queries;
    queries.clear();
    return queries;
  }

  // The queries of a node's heads of a group.
  void ask(const Operation& op, int64_t node, int64_t group, int64_t begin, int64_t end,
           std::vector<AttendQuery>& queries) {
    const View &y = op.operands[0], &q = op.operands[1];
    const int64_t each = y.sizes[0] / op.ints[1];
    for (int64_t head = group * each; head < (group + 1) * each; ++head)
      queries.push_back({of(q, node) + head * q.strides[0], of(y, node) + head * y.strides[0], nullptr, 0.0f, begin, end});
  }

  void answer(const Operation& op, const Seen& seen, std::vector<AttendQuery>& queries) const {
    thread_local std::vector<float> scores;
    int64_t room = 0;
    for (const AttendQuery& query : queries) room += query.end - query.begin;
    scores.resize(std::max(scores.size(), static_cast<size_t>(room)));
    room = 0;
    for (AttendQuery& query : queries) {
      query.scores = scores.data() + room;
      room += query.end - query.begin;
    }
    const AttendStep s{op.ints[2], op.ints[5], op.floats[0], op.floats[1]};
    table_.attend(s, queries.data(), static_cast<int64_t>(queries.size()), seen.keys.data(), seen.values.data());
  }

  void keep_keys(const Operation& op) {
    const KeyValues& memory = call_.key_values[op.ints[0]];
    const int64_t groups = op.ints[1];
    const auto copy = [&](float* out, const View& view, int64_t width, int64_t node) {
      out += nodes_.columns[node] * groups * width;
      for (int64_t group = 0; group < groups; ++group)
        std::memcpy(out + group * width, of(view, node) + group * view.strides[0], width * sizeof(float));
    };
    for (int64_t node = 0; node < nodes_.count; ++node) {
      copy(memory.new_k + nodes_.rows[node] * memory.new_k_row, op.operands[2], op.ints[2], node);
      copy(memory.new_v + nodes_.rows[node] * memory.new_v_row, op.operands[3], op.ints[5], node);
    }
  }

  const Program& program_;
  const Call& call_;
  const Nodes& nodes_;
  const Kernels& table_;
  const std::vector<int64_t>& offsets_;
  const int64_t* where_;
  int64_t arena_nodes_, slot_numbers_ = 0;
  std::vector<int64_t> leaf_in_slot_;
  Places places_;
  Lease lease_;
  std::vector<std::vector<int64_t>> of_row_;
  std::vector<Seen> seen_;
  std::vector<Block> blocks_;
  std::vector<float> zeros_;
  std::unique_ptr<float[]> slots_;
  Workspace space_;
};

void Program::run(const Call& call) const {
  Run run(*this, call, false, places_of_chains(call.nodes), nullptr, call.nodes.count);
  run.load_inputs();
  run.keep_idle_rows();
  run.run({true, true, true});
  run.store_outputs();
}

void Program::verify(const Call& call) const {
  const bool chains = !call.state_after.empty();
  Run run(*this, call, true, chains ? places_of_chains(call.nodes) : places_of_tree(call.nodes), nullptr,
          call.nodes.count);
  run.load_inputs();
  if (chains) run.keep_idle_rows();
  run.run({true, true, false});
  run.store_outputs();
}

void Program::commit(const Call& call, const int64_t* where, int64_t tree_nodes) const {
  Run run(*this, call, true, places_of_chains(call.nodes), where, tree_nodes);
  const bool states = !call.state_after.empty();
  if (states) run.keep_idle_rows();
  run.run({false, states, true});
}

}  // namespace runnel
