// What is asked of torch: its tensors, read through DLPack's C interface in about 50 ns each, and what it does around a call.
// Reading addresses, strides and dtypes from Python takes longer than a small attention does.
#pragma once
#include <nanobind/nanobind.h>

#include "arguments.h"

namespace clearhead {

// Kinds beyond the dtypes of the kernels: masks, and everything else.
enum Kind { kBool = 4, kOther = 5 };

// One tensor: its numbers, the sizes of its last four axes, and its dtype, a Dtype or a Kind.
struct View {
  Tensor tensor;
  int64_t axes, sizes[4];
  int kind;
};

// Registers the two classes that are read, the interface they are read by, and the functions that are asked below; false if
// the interface is missing or of another version.
bool register_torch(nanobind::handle tensor, nanobind::handle parameter, nanobind::handle api, nanobind::tuple watchers,
                    nanobind::handle grad_mode, nanobind::handle threads);

// Whether a mode, a transform, a tracer or autocast has to see a call; whether autograd records; torch.get_num_threads().
bool is_watched();
bool is_grad_enabled();
int num_threads();

// Reads a torch.Tensor or Parameter in CPU memory with up to four axes; missing leading axes have size 1 and stride 0.
// Returns false for everything else, including views whose memory holds the negatives of the tensor's numbers; look()
// leaves out that question, which takes as long as the rest.
bool read(nanobind::handle object, View* view);
bool look(nanobind::handle object, View* view);
bool is_negated(nanobind::handle tensor);
View must_read(nanobind::handle object);

// Whether autograd records operations on a tensor, a plain one.
bool requires_grad(nanobind::handle tensor);

// Whether each row of a mask, bool or of numbers, leaves some key in. Where 4,096 entries do not show it: false.
bool opens_every_row(const View& mask);

// Writes 0 to `numbers` where a bool mask of the same sizes is true, and -inf elsewhere.
void write_as_numbers(const View& mask, const View& numbers);

// Whether the first number of a tensor, which is not empty, is 0 or 1.
bool starts_with_0_or_1(const View& view);

}  // namespace clearhead
