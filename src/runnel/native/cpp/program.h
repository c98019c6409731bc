// A recorded model step: a list of operations over per-node vectors, run for many nodes at once without Python.
//
// Nodes are the tokens of one call, of all rows: the next token of each row, a chunk of a prefill, or a draft tree.
// Operations that look at one node only are done for all nodes; products stream their weights once for all of them.
// Operations with a state walk the nodes of a row in order, each from its parent's state. A node's numbers therefore do
// not depend on which other nodes are there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "packed.h"

namespace runnel {

enum class Kind {
  map, reduce, normalise, product, small_product, conv, shift, diagonal, selective, outer, delta, dplr, attend, loop,
  complex_diagonal, lti, log_linear, best, put, channels,
};

// Where the numbers of an operand are, for one node.
struct View {
  enum Space { buffer, constant, state_before, state_after };
  Space space = buffer;
  int64_t index = 0, offset = 0;
  std::vector<int64_t> sizes, strides;
};

// operands[0] is written, the others are read. What ints and floats mean depends on the kind: see program.cpp.
struct Operation {
  Kind kind;
  int code;  // Map or Reduce
  std::vector<View> operands;
  std::vector<int64_t> ints;
  std::vector<float> floats;
  std::vector<uintptr_t> data;  // addresses of constants, 0 for none
};

struct Matrix {
  Layout layout;
  uintptr_t data;
};

// Keys and values held by the rows of a batch, and where those of the new nodes go: column c of a row is written at
// new_k + row * new_k_row + c * (numbers of a token). Strides in numbers.
struct KeyValues {
  const float *k, *v;
  const int64_t* positions;
  int64_t held, k_row, v_row, position_row;
  float *new_k, *new_v;
  int64_t new_k_row, new_v_row;
};

// The tokens of one call. parents: the node before each, kFromState or kFromZero.
struct Nodes {
  static constexpr int64_t kFromState = -1, kFromZero = -2;
  int64_t count, batch;
  const int64_t *rows, *parents, *positions, *columns;
};

struct Call {
  Nodes nodes;
  std::vector<uintptr_t> state_before, state_after;  // a leaf each, [batch, size]
  std::vector<KeyValues> key_values;
  uintptr_t arena, input, output;
  int threads;
  double* seconds = nullptr;  // what every operation took is added here, where it is given
};

class Program {
 public:
  // sizes: numbers per node of each buffer. offsets: where each begins in an arena of total[0] numbers per node whose
  // room is used again and again, or total[1] numbers where what a commit needs later stays. leaves: numbers per row.
  Program(std::vector<int64_t> sizes, std::vector<std::vector<int64_t>> offsets, std::vector<int64_t> totals,
          std::vector<int64_t> leaves, std::vector<uintptr_t> constants, std::vector<Matrix> matrices,
          std::vector<Operation> operations, int64_t input, int64_t output, int64_t position)
      : sizes_(std::move(sizes)), offsets_(std::move(offsets)), totals_(std::move(totals)), leaves_(std::move(leaves)),
        constants_(std::move(constants)), matrices_(std::move(matrices)), operations_(std::move(operations)),
        input_(input), output_(output), position_(position) {}

  // A chain per row: writes the output of every node and the states after the rows' last nodes.
  void run(const Call& call) const;
  // A tree: writes outputs; keeps what `commit` needs in the arena. Where places for the states after it are given it is
  // a chain per row, and they are written.
  void verify(const Call& call) const;
  // The states after one path of a verified tree per row, where places for them are given, and the keys and values.
  // nodes: those on the paths, in order; where: their places in the tree of tree_nodes nodes.
  void commit(const Call& call, const int64_t* where, int64_t tree_nodes) const;

  int64_t arena_numbers(bool keep) const { return totals_[keep]; }

 private:
  friend class Run;
  std::vector<int64_t> sizes_;
  std::vector<std::vector<int64_t>> offsets_;
  std::vector<int64_t> totals_, leaves_;
  std::vector<uintptr_t> constants_;
  std::vector<Matrix> matrices_;
  std::vector<Operation> operations_;
  int64_t input_, output_, position_;
};

}  // namespace runnel
