#include "program.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace runnel {
namespace {

constexpr int64_t kSerialNumbers = 1 << 14;  // less work than this is not worth sharing
constexpr int64_t kChannelsAtOnce = 256;

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
    int64_t in_loops = 0;  // the leaves of a loop are worked on together, so each has its own part of a slot
    for (const Operation& op : program.operations_) {
      if (op.operands.empty() || op.operands[0].space != View::state_after) continue;
      leaf_in_slot_[op.operands[0].index] = in_loops;
      in_loops += padded(program.leaves_[op.operands[0].index]);
    }
    slot_numbers_ = std::max(slot_numbers_, in_loops);
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
        std::memcpy(at<float>(call_.state_after[leaf]) + row * size,
                    at<const float>(call_.state_before[leaf]) + row * size, size * sizeof(float));
      }
  }

  // states_only: what a commit repeats. write_keys: new keys and values go to their memory.
  void run(bool states_only, bool write_keys) {
    const auto& operations = program_.operations_;
    for (size_t i = 0; i < operations.size(); ++i) {
      const Operation& op = operations[i];
      switch (op.kind) {
        case Kind::product:
          if (!states_only) product(op);
          break;
        case Kind::map:
        case Kind::reduce:
        case Kind::normalise:
        case Kind::small_product:
        case Kind::best:
        case Kind::put:
          if (!states_only) stateless(op);
          break;
        case Kind::loop:
          loop(i, static_cast<size_t>(op.ints[0]));
          i += static_cast<size_t>(op.ints[0]);
          break;
        case Kind::attend:
          if (!states_only) attend(op);
          if (write_keys) keep_keys(op);
          break;
        default:
          walk(op);
      }
    }
  }

 private:
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

  void stateless(const Operation& op) {
    const int64_t each = std::max<int64_t>(1, numel(op.operands[0]) * (op.ints.empty() ? 1 : op.ints[0]));
    const int64_t at_once = std::max<int64_t>(1, kSerialNumbers / each);
    lease_.run((nodes_.count + at_once - 1) / at_once, [&](int64_t chunk) {
      const int64_t end = std::min(nodes_.count, (chunk + 1) * at_once);
      for (int64_t node = chunk * at_once; node < end; ++node) for_node(op, node);
    });
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

  void walk(const Operation& op) {
    const auto& in = op.operands;
    const int64_t leaf = op.ints[0], channels = op.ints[1];
    const auto head_of = [&](const View& view, int64_t node, int64_t step, int64_t head) {
      return of(view, node) + step * view.strides[0] + head * view.strides[1];
    };
    const auto by_channels = [&](int64_t numbers, auto&& step) {
      walk_parts((channels + kChannelsAtOnce - 1) / kChannelsAtOnce, numbers, [&](int64_t node, int64_t part) {
        step(node, part * kChannelsAtOnce, std::min(channels, (part + 1) * kChannelsAtOnce));
      });
    };
    switch (op.kind) {
      case Kind::conv: {  // ints: leaf, channels, width; data: weight [width, channels], bias
        const ConvStep s{op.ints[2], channels, at<const float>(op.data[0]), at<const float>(op.data[1])};
        return by_channels(channels * op.ints[2], [&](int64_t node, int64_t begin, int64_t end) {
          table_.conv(s, of(in[1], node), before(leaf, node), after(leaf, node), of(in[0], node), begin, end);
        });
      }
      case Kind::shift:  // ints: leaf, channels
        return by_channels(channels, [&](int64_t node, int64_t begin, int64_t end) {
          table_.shift(of(in[1], node), before(leaf, node), after(leaf, node), of(in[0], node), begin, end);
        });
      case Kind::diagonal:  // ints: leaf, channels; operands: y, a, b
        return by_channels(2 * channels, [&](int64_t node, int64_t begin, int64_t end) {
          table_.diagonal(of(in[1], node), of(in[2], node), before(leaf, node), after(leaf, node), of(in[0], node), begin,
                          end);
        });
      case Kind::complex_diagonal:  // ints: leaf, numbers, two a pair; operands: y, a, b
        return by_channels(2 * channels, [&](int64_t node, int64_t begin, int64_t end) {
          table_.complex_diagonal(of(in[1], node), of(in[2], node), before(leaf, node), after(leaf, node),
                                  of(in[0], node), begin, end);
        });
      case Kind::lti: {  // ints: leaf, channels, numbers; data: keep, turn, read; operands: y, x
        const LtiStep s{op.ints[2], at<const float>(op.data[0]), at<const float>(op.data[1]),
                        at<const float>(op.data[2])};
        return by_channels(channels * op.ints[2], [&](int64_t node, int64_t begin, int64_t end) {
          table_.lti(s, of(in[1], node), before(leaf, node), after(leaf, node), of(in[0], node), begin, end);
        });
      }
      case Kind::selective:  // ints: leaf, channels, n; data: a; operands: y, x, dt, b, c
        return by_channels(channels * op.ints[2] * 4, [&](int64_t node, int64_t begin, int64_t end) {
          table_.selective(op.ints[2], of(in[1], node), of(in[2], node), at<const float>(op.data[0]), of(in[3], node),
                           of(in[4], node), before(leaf, node), after(leaf, node), of(in[0], node), begin, end);
        });
      default: {  // ints: leaf, heads, keys, values, decays, steps or buckets; operands: y [1, heads, values], then
                  // q, k, v, ..., log decay, each [steps, heads, width]
        const MatrixStep s{op.ints[2], op.ints[3], op.ints[4]};
        const int64_t heads = op.ints[1], size = s.keys * s.values, most = op.ints[5];
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
    }
  }

  // The operations after `index`, for one node after another.
  void loop(size_t index, size_t count) {
    walk_parts(1, kSerialNumbers, [&](int64_t node, int64_t) {
      for (size_t i = index + 1; i <= index + count; ++i) for_node(program_.operations_[i], node);
    });
  }

  // ---- attention ----------------------------------------------------------------------------------------------------

  // The node and those before it in this call, first to last; whether they begin at the memory.
  bool path_to(int64_t node, std::vector<int64_t>& path) const {
    path.clear();
    int64_t at = node;
    for (; at >= 0; at = nodes_.parents[at]) path.push_back(at);
    std::reverse(path.begin(), path.end());
    return at == Nodes::kFromState;
  }

  void attend(const Operation& op) {  // ints: memory, groups, width, window or -1, sinks, values;
                                      // floats: scale, cap; operands: y [H, V], q [H, K], k [G, K], v [G, V]
    const KeyValues& held = call_.key_values[op.ints[0]];
    const int64_t groups = op.ints[1], width = op.ints[2], window = op.ints[3], sinks = op.ints[4];
    const int64_t heads = op.operands[0].sizes[0], each = heads / groups;
    const int64_t values_width = op.ints[5];
    const AttendStep s{width, values_width, op.floats[0], op.floats[1]};
    lease_.run(nodes_.count * groups, [&](int64_t task) {
      thread_local std::vector<int64_t> path;
      thread_local std::vector<const float*> keys, values;
      thread_local std::vector<float> scores;
      const int64_t node = task / groups, group = task % groups, row = nodes_.rows[node];
      const int64_t own = nodes_.positions[node];
      const auto visible = [&](int64_t position) {
        return position >= 0 && (window < 0 || own - position < window || position < sinks);
      };
      keys.clear();
      values.clear();
      if (path_to(node, path)) {
        for (int64_t j = 0; j < held.held; ++j) {
          if (!visible(held.positions[row * held.position_row + j])) continue;
          keys.push_back(held.k + row * held.k_row + (j * groups + group) * width);
          values.push_back(held.v + row * held.v_row + (j * groups + group) * values_width);
        }
      }
      for (const int64_t other : path) {
        if (!visible(nodes_.positions[other])) continue;
        keys.push_back(of(op.operands[2], other) + group * op.operands[2].strides[0]);
        values.push_back(of(op.operands[3], other) + group * op.operands[3].strides[0]);
      }
      scores.resize(keys.size());
      for (int64_t head = group * each; head < (group + 1) * each; ++head)
        table_.attend(s, of(op.operands[1], node) + head * op.operands[1].strides[0], keys.data(),
                      values.data(), static_cast<int64_t>(keys.size()), scores.data(),
                      of(op.operands[0], node) + head * op.operands[0].strides[0]);
    });
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
  std::vector<float> zeros_;
  std::unique_ptr<float[]> slots_;
  Workspace space_;
};

void Program::run(const Call& call) const {
  Run run(*this, call, false, places_of_chains(call.nodes), nullptr, call.nodes.count);
  run.load_inputs();
  run.keep_idle_rows();
  run.run(false, true);
  run.store_outputs();
}

void Program::verify(const Call& call) const {
  Run run(*this, call, true, places_of_tree(call.nodes), nullptr, call.nodes.count);
  run.load_inputs();
  run.run(false, false);
  run.store_outputs();
}

void Program::commit(const Call& call, const int64_t* where, int64_t tree_nodes) const {
  Run run(*this, call, true, places_of_chains(call.nodes), where, tree_nodes);
  run.keep_idle_rows();
  run.run(true, true);
}

}  // namespace runnel
