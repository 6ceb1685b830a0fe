#include "python/dlpack.h"

#include <cstdint>
#include <string_view>

#include "btnet/error.h"

namespace py = pybind11;

namespace {

// The part of dlpack.h (DLPack 0.6 to 1.x, capsules named "dltensor") that is read here.
struct DLDevice {
  std::int32_t type, id;
};

struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: C order
  std::uint64_t byte_offset;
};

constexpr int kBitsOfByte = 8;

}  // namespace

py::tuple read_dlpack(const py::capsule& capsule) {
  if (capsule.name() == nullptr || std::string_view(capsule.name()) != "dltensor") {
    throw btnet::InvalidImage("the DLPack capsule is not a fresh one named 'dltensor'");
  }
  const auto& tensor = *capsule.get_pointer<DLTensor>();
  const std::int64_t element = tensor.bits * tensor.lanes / kBitsOfByte;
  py::tuple shape(tensor.ndim), strides(tensor.ndim);
  std::int64_t packed = element;
  for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
    shape[axis] = tensor.shape[axis];
    strides[axis] = tensor.strides == nullptr ? packed : tensor.strides[axis] * element;
    packed *= tensor.shape[axis];
  }
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
  return py::make_tuple(address, shape, strides, static_cast<int>(tensor.code), static_cast<int>(tensor.bits),
                        static_cast<int>(tensor.lanes), tensor.device.type, tensor.device.id);
}
