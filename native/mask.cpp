// What a mask says of whole rows, without the kernels: read up to the first key a row may attend, so hardly at all.
#include "dispatch.h"

namespace clearhead {

namespace {

template <class Number, class Blocked>
bool row_without(const Tensor& m, const int64_t (&sizes)[4], const Blocked& blocked) {
  const Number* const data = static_cast<const Number*>(m.data);
  // An axis that is broadcast says the same everywhere.
  const int64_t batches = m.batch == 0 ? 1 : sizes[0], heads = m.head == 0 ? 1 : sizes[1];
  const int64_t rows = m.row == 0 ? 1 : sizes[2], keys = m.column == 0 ? 1 : sizes[3];
  for (int64_t b = 0; b < batches; b++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t i = 0; i < rows; i++) {
        const Number* const row = data + b * m.batch + h * m.head + i * m.row;
        int64_t j = 0;
        while (j < keys && blocked(row[j * m.column])) j++;
        if (j == keys) return true;
      }
  return false;
}

}  // namespace

bool has_empty_row(const Tensor& mask, const int64_t (&sizes)[4], bool is_bool) {
  for (const int64_t size : sizes)
    if (size == 0) return true;
  if (is_bool) return row_without<uint8_t>(mask, sizes, [](uint8_t x) { return x == 0; });
  // Of numbers that are added the kernels' limit is not -inf but this: forward.h keeps a row's maximum above it.
  return row_without<double>(mask, sizes, [](double x) { return x < -1e37; });
}

}  // namespace clearhead
