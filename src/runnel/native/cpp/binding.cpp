// What Python sees. Tensors come as addresses: the thin layer in Python has checked shapes, types and contiguity.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "kernels.h"
#include "noise.h"
#include "packed.h"
#include "pool.h"
#include "program.h"
#include "scans.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const char* const* name = runnel::available(); *name != nullptr; ++name) names.emplace_back(*name);
  return names;
}

void to_bf16(uintptr_t x, uintptr_t out, int64_t count, int threads) {
  constexpr int64_t kChunk = 1 << 16;
  runnel::Lease lease(threads);
  lease.run((count + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t begin = chunk * kChunk, size = count - begin < kChunk ? count - begin : kChunk;
    runnel::kernels().to_bf16(at<const float>(x) + begin, at<uint16_t>(out) + begin, size);
  });
}

using runnel::Layout;

Layout layout_of(int kind, int64_t outputs, int64_t inputs, int64_t group) {
  return Layout{static_cast<runnel::Weights>(kind), outputs, inputs, group};
}

void multiply(const Layout& layout, uintptr_t packed, uintptr_t bias, uintptr_t x, int64_t x_stride, int64_t rows,
              uintptr_t y, int64_t y_stride, int threads) {
  thread_local runnel::Workspace space;
  runnel::Lease lease(threads);
  runnel::multiply(layout, at<const void>(packed), at<const float>(bias), at<const float>(x), x_stride, rows,
                   at<float>(y), y_stride, space, lease);
}

using runnel::Operation;
using runnel::Program;
using runnel::View;

// (space, index, offset, sizes, strides)
using ViewTuple = std::tuple<int, int64_t, int64_t, std::vector<int64_t>, std::vector<int64_t>>;
// (kind, code, operands, ints, floats, data)
using OperationTuple = std::tuple<int, int, std::vector<ViewTuple>, std::vector<int64_t>, std::vector<float>,
                                  std::vector<uintptr_t>>;
// (keys, values, positions, held, k_row, v_row, position_row, new_k, new_v, new_k_row, new_v_row)
using KeyValuesTuple = std::tuple<uintptr_t, uintptr_t, uintptr_t, int64_t, int64_t, int64_t, int64_t, uintptr_t,
                                  uintptr_t, int64_t, int64_t>;

Operation operation_of(const OperationTuple& given) {
  Operation op{static_cast<runnel::Kind>(std::get<0>(given)), std::get<1>(given), {}, std::get<3>(given),
               std::get<4>(given), std::get<5>(given)};
  for (const auto& [space, index, offset, sizes, strides] : std::get<2>(given))
    op.operands.push_back(View{static_cast<View::Space>(space), index, offset, sizes, strides});
  return op;
}

runnel::Call call_of(int64_t count, int64_t batch, const std::vector<uintptr_t>& nodes,
                     const std::vector<uintptr_t>& before, const std::vector<uintptr_t>& after,
                     const std::vector<KeyValuesTuple>& memories, uintptr_t arena, uintptr_t input, uintptr_t output,
                     int threads) {
  runnel::Call call{{count, batch, at<const int64_t>(nodes[0]), at<const int64_t>(nodes[1]),
                     at<const int64_t>(nodes[2]), at<const int64_t>(nodes[3])},
                    before, after, {}, arena, input, output, threads};
  for (const auto& [k, v, positions, held, k_row, v_row, position_row, new_k, new_v, new_k_row, new_v_row] : memories)
    call.key_values.push_back({at<const float>(k), at<const float>(v), at<const int64_t>(positions), held, k_row, v_row,
                               position_row, at<float>(new_k), at<float>(new_v), new_k_row, new_v_row});
  return call;
}

// (address, batch stride, time stride)
using RowsTuple = std::tuple<uintptr_t, int64_t, int64_t>;
using Addresses = std::vector<uintptr_t>;

std::vector<runnel::Rows> rows_of(const std::vector<RowsTuple>& given) {
  std::vector<runnel::Rows> rows;
  for (const auto& [address, batch, time] : given) rows.push_back({at<float>(address), batch, time});
  return rows;
}

using Scan = void(const std::vector<int64_t>& sizes, const std::vector<RowsTuple>& rows, const Addresses& data,
                  int threads);

// sizes (batch, length, channels, states); rows (x, dt, b, c, y, z, and backward dx, ddt, dz);
// data (a, memory, reset, last, kept, skip, dt_bias, and backward da, db, dc, dmemory, dskip, ddt_bias)
template <void (*run)(const runnel::SelectiveScan&, int)>
void selective(const std::vector<int64_t>& sizes, const std::vector<RowsTuple>& given, const Addresses& data,
               int threads) {
  std::vector<runnel::Rows> rows = rows_of(given);
  runnel::SelectiveScan s{};
  s.batch = sizes[0], s.length = sizes[1], s.channels = sizes[2], s.states = sizes[3];
  s.x = rows[0], s.dt = rows[1], s.b = rows[2], s.c = rows[3], s.y = rows[4], s.z = rows[5];
  s.a = at<const float>(data[0]), s.memory = at<const float>(data[1]), s.reset = at<const uint8_t>(data[2]);
  s.last = at<float>(data[3]), s.kept = at<float>(data[4]);
  s.skip = at<const float>(data[5]), s.dt_bias = at<const float>(data[6]);
  if (rows.size() > 6) {
    s.dx = rows[6], s.ddt = rows[7], s.dz = rows[8];
    s.da = at<float>(data[7]), s.db = at<float>(data[8]), s.dc = at<float>(data[9]), s.dmemory = at<float>(data[10]);
    s.dskip = at<float>(data[11]), s.ddt_bias = at<float>(data[12]);
  }
  run(s, threads);
}

// sizes (batch, length, channels); rows (a, b or db, h, and backward dh, da); data (memory, and backward dmemory)
template <void (*run)(const runnel::DiagonalScan&, int)>
void diagonal(const std::vector<int64_t>& sizes, const std::vector<RowsTuple>& given, const Addresses& data,
              int threads) {
  std::vector<runnel::Rows> rows = rows_of(given);
  const bool backward = rows.size() > 3;
  run({sizes[0], sizes[1], sizes[2], rows[0], rows[1], rows[2], at<const float>(data[0]),
       backward ? rows[3] : runnel::Rows{}, backward ? rows[4] : runnel::Rows{}, at<float>(backward ? data[1] : 0)},
      threads);
}

// sizes (batch, length, channels, width, silu); rows (x, y, and backward dy, dx);
// data (weight, bias, tail, taps, and backward dtail, dweight, dbias)
template <void (*run)(const runnel::Convolution&, int)>
void convolution(const std::vector<int64_t>& sizes, const std::vector<RowsTuple>& given, const Addresses& data,
                 int threads) {
  std::vector<runnel::Rows> rows = rows_of(given);
  runnel::Convolution s{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4] != 0, rows[0], rows[1],
                        at<const float>(data[0]), at<const float>(data[1]), at<const float>(data[2]),
                        at<const int64_t>(data[3]), {}, {}, nullptr, nullptr, nullptr};
  if (rows.size() > 2) {
    s.dy = rows[2], s.dx = rows[3];
    s.dtail = at<float>(data[4]), s.dweight = at<float>(data[5]), s.dbias = at<float>(data[6]);
  }
  run(s, threads);
}

void define_scan(nb::module_& m, const char* name, Scan* scan) {
  m.def(name, scan, "sizes"_a, "rows"_a, "data"_a, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

NB_MODULE(_kernels, m) {
  m.def("instruction_sets", &instruction_sets);
  m.def("chosen", [] { return std::string(runnel::kernels().name); });
  m.def("use", [](const std::string& name) { return runnel::use(name.c_str()); }, "name"_a);
  m.def("to_bf16", &to_bf16, "x"_a, "out"_a, "count"_a, "threads"_a, nb::call_guard<nb::gil_scoped_release>());

  m.def("uniform", [](const std::vector<uint64_t>& seeds, const std::vector<uint64_t>& positions, uint64_t high,
                      uint64_t low, int64_t outcomes, uintptr_t out) {
    runnel::uniform(seeds, positions, high, low, outcomes, at<double>(out));
  }, "seeds"_a, "positions"_a, "high"_a, "low"_a, "outcomes"_a, "out"_a);

  nb::class_<Layout>(m, "Layout")
      .def("__init__", [](Layout* self, int kind, int64_t outputs, int64_t inputs, int64_t group) {
        new (self) Layout(layout_of(kind, outputs, inputs, group));
      }, "kind"_a, "outputs"_a, "inputs"_a, "group"_a)
      .def_prop_ro("nbytes", &Layout::nbytes)
      .def("pack", [](const Layout& self, uintptr_t w, int64_t stride, uintptr_t packed, int threads) {
        runnel::Lease lease(threads);
        runnel::pack(self, at<const float>(w), stride, at<void>(packed), lease);
      }, "w"_a, "stride"_a, "packed"_a, "threads"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("unpack", [](const Layout& self, uintptr_t packed, uintptr_t w) {
        runnel::unpack(self, at<const void>(packed), at<float>(w));
      }, "packed"_a, "w"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("multiply", &multiply, "packed"_a, "bias"_a, "x"_a, "x_stride"_a, "rows"_a, "y"_a, "y_stride"_a, "threads"_a,
           nb::call_guard<nb::gil_scoped_release>());

  nb::class_<Program>(m, "Program")
      .def("__init__", [](Program* self, std::vector<int64_t> sizes, std::vector<std::vector<int64_t>> offsets,
                          std::vector<int64_t> totals, std::vector<int64_t> leaves, std::vector<uintptr_t> constants,
                          const std::vector<std::tuple<const Layout*, uintptr_t>>& matrices,
                          const std::vector<OperationTuple>& operations, int64_t input, int64_t output,
                          int64_t position) {
        std::vector<runnel::Matrix> owned;
        for (const auto& [layout, data] : matrices) owned.push_back({*layout, data});
        std::vector<Operation> steps;
        for (const auto& operation : operations) steps.push_back(operation_of(operation));
        new (self) Program(std::move(sizes), std::move(offsets), std::move(totals), std::move(leaves),
                           std::move(constants), std::move(owned), std::move(steps), input, output, position);
      })
      .def("run", [](const Program& self, int64_t count, int64_t batch, const std::vector<uintptr_t>& nodes,
                     const std::vector<uintptr_t>& before, const std::vector<uintptr_t>& after,
                     const std::vector<KeyValuesTuple>& memories, uintptr_t arena, uintptr_t input, uintptr_t output,
                     int threads, uintptr_t seconds) {
        nb::gil_scoped_release release;
        runnel::Call call = call_of(count, batch, nodes, before, after, memories, arena, input, output, threads);
        call.seconds = at<double>(seconds);
        self.run(call);
      })
      .def("verify", [](const Program& self, int64_t count, int64_t batch, const std::vector<uintptr_t>& nodes,
                        const std::vector<uintptr_t>& before, const std::vector<uintptr_t>& after,
                        const std::vector<KeyValuesTuple>& memories, uintptr_t arena, uintptr_t input, uintptr_t output,
                        int threads, uintptr_t seconds) {
        nb::gil_scoped_release release;
        runnel::Call call = call_of(count, batch, nodes, before, after, memories, arena, input, output, threads);
        call.seconds = at<double>(seconds);
        self.verify(call);
      })
      .def("commit", [](const Program& self, int64_t count, int64_t batch, const std::vector<uintptr_t>& nodes,
                        const std::vector<uintptr_t>& before, const std::vector<uintptr_t>& after,
                        const std::vector<KeyValuesTuple>& memories, uintptr_t arena, uintptr_t where,
                        int64_t tree_nodes, int threads, uintptr_t seconds) {
        nb::gil_scoped_release release;
        runnel::Call call = call_of(count, batch, nodes, before, after, memories, arena, 0, 0, threads);
        call.seconds = at<double>(seconds);
        self.commit(call, at<const int64_t>(where), tree_nodes);
      })
      .def("arena_numbers", &Program::arena_numbers, "keep"_a);

  m.attr("SCAN_LANES") = runnel::kScanLanes;
  m.def("scan_chunks", &runnel::chunks_of, "length"_a);
  m.def("scan_parts", &runnel::parts_of, "channels"_a);
  define_scan(m, "selective_forward", selective<runnel::selective_forward>);
  define_scan(m, "selective_backward", selective<runnel::selective_backward>);
  define_scan(m, "diagonal_forward", diagonal<runnel::diagonal_forward>);
  define_scan(m, "diagonal_backward", diagonal<runnel::diagonal_backward>);
  define_scan(m, "convolution_forward", convolution<runnel::convolution_forward>);
  define_scan(m, "convolution_backward", convolution<runnel::convolution_backward>);
  m.def("decays_forward", [](int64_t chunks, int64_t size, uintptr_t log, uintptr_t decay, int threads) {
    runnel::decays_forward(chunks, size, at<const float>(log), at<float>(decay), threads);
  }, "chunks"_a, "size"_a, "log"_a, "decay"_a, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
  m.def("decays_backward",
        [](int64_t chunks, int64_t size, uintptr_t decay, uintptr_t ddecay, uintptr_t dlog, int threads) {
    runnel::decays_backward(chunks, size, at<const float>(decay), at<const float>(ddecay), at<float>(dlog), threads);
  }, "chunks"_a, "size"_a, "decay"_a, "ddecay"_a, "dlog"_a, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
}
