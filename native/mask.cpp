// What a mask says of whole rows, without the kernels: read up to the first key a row may attend, so hardly at all.
#include "dispatch.h"

namespace clearhead {

namespace {

template <class Bits>
bool row_without(const Tensor& m, const int64_t (&sizes)[4], Bits blocked) {
  const Bits* const data = static_cast<const Bits*>(m.data);
  // An axis that is broadcast says the same everywhere.
  const int64_t batches = m.batch == 0 ? 1 : sizes[0], heads = m.head == 0 ? 1 : sizes[1];
  const int64_t rows = m.row == 0 ? 1 : sizes[2], keys = m.column == 0 ? 1 : sizes[3];
  for (int64_t b = 0; b < batches; b++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t i = 0; i < rows; i++) {
        const Bits* const row = data + b * m.batch + h * m.head + i * m.row;
        int64_t j = 0;
        while (j < keys && row[j * m.column] == blocked) j++;
        if (j == keys) return true;
      }
  return false;
}

}  // namespace

bool has_empty_row(const Tensor& mask, const int64_t (&sizes)[4], int bytes, uint64_t blocked) {
  for (const int64_t size : sizes)
    if (size == 0) return true;
  switch (bytes) {
    case 1: return row_without<uint8_t>(mask, sizes, uint8_t(blocked));
    case 2: return row_without<uint16_t>(mask, sizes, uint16_t(blocked));
    case 4: return row_without<uint32_t>(mask, sizes, uint32_t(blocked));
    default: return row_without<uint64_t>(mask, sizes, blocked);
  }
}

}  // namespace clearhead
