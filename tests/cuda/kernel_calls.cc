#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/dispatch.h"
#include "cuda/resample.h"

/// The kernels for kernels.py, on the emulated device or on a GPU: images come from host memory, travel to the device,
/// each into an allocation of exactly its size, and the results travel back. Every function returns null, or what went
/// wrong.
namespace {

using namespace btnet;
using namespace btnet::cuda;

/// An image in host memory, and where its results go; field for field as in kernels.py.
struct HostImage {
  const void* bytes;         // all that the view can reach,
  std::int64_t size, first;  // how many, and which of them is the first pixel
  std::int64_t height, width, channels;
  std::int64_t row_stride, column_stride, channel_stride;
  std::int64_t shift;       // of the address on the device, away from a multiple of 256
  std::int64_t resolution;  // of degrade
  std::int64_t side;        // of the result
  void* out;
  void* mirrored;  // or null
};

ImageView view(const HostImage& image, const void* bytes) {
  return {static_cast<const std::uint8_t*>(bytes) + image.first,
          static_cast<int>(image.height),
          static_cast<int>(image.width),
          static_cast<int>(image.channels),
          image.row_stride,
          image.column_stride,
          image.channel_stride};
}

/// A stream with the device memory that its work uses. AddressSanitizer sees what goes beyond an allocation.
class Device {
 public:
  ~Device() { cudaStreamSynchronize(stream()); }  // after an exception: what is in it uses the memory

  void* allocate(std::size_t bytes) { return memory_.emplace_back(std::make_unique<DeviceMemory>())->reserve(bytes); }

  void* copy_in(const void* host, std::size_t bytes, std::size_t shift = 0) {
    void* memory = static_cast<std::uint8_t*>(allocate(bytes + shift)) + shift;
    if (bytes > 0) check(cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, stream()), "copying in");
    return memory;
  }

  ImageView copy_in(const HostImage& image) { return view(image, copy_in(image.bytes, image.size, image.shift)); }

  /// Device memory that is copied to `host` at the end; null for null.
  void* result(void* host, std::size_t bytes) {
    if (host == nullptr) return nullptr;
    void* memory = allocate(bytes);
    results_.push_back({host, memory, bytes});
    return memory;
  }

  void finish() {
    for (const Result& result : results_) {
      check(cudaMemcpyAsync(result.host, result.device, result.bytes, cudaMemcpyDeviceToHost, stream()), "copying out");
    }
    Event done;
    done.record(stream());
    done.synchronize();
  }

  cudaStream_t stream() const { return stream_.get(); }

 private:
  struct Result {
    void* host;
    const void* device;
    std::size_t bytes;
  };
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  std::vector<Result> results_;
  Stream stream_;
};

template <class Call>
const char* report(const Call& call) {
  static std::string message;
  try {
    call();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

}  // namespace

extern "C" {

const char* call_resize_normalize(const HostImage* images, int count, int filter, const float* mean, const float* std,
                                  int swap_red_blue, int element) {
  return report([&] {
    Device device;
    std::vector<Resize> resizes;
    for (int i = 0; i < count; ++i) {
      const HostImage& image = images[i];
      const std::size_t bytes = 3 * image.side * image.side * (element == 0 ? 4 : 2);
      const ImageView pixels = device.copy_in(image);
      void* out = device.result(image.out, bytes);
      resizes.push_back({pixels, static_cast<int>(image.side), out, device.result(image.mirrored, bytes)});
    }
    const ResizePlan plan(resizes, static_cast<Filter>(filter));
    const Normalization normalization{{mean[0], mean[1], mean[2]}, {std[0], std[1], std[2]}};
    resize_normalize(plan, normalization, swap_red_blue != 0, static_cast<Element>(element),
                     device.copy_in(plan.bytes().data(), plan.bytes().size()),
                     device.allocate(plan.taps().workspace_bytes()), device.stream());
    device.finish();
  });
}

int call_count_tables(const HostImage* images, int count) {
  std::vector<Resize> resizes;
  for (int i = 0; i < count; ++i) {
    resizes.push_back({view(images[i], images[i].bytes), static_cast<int>(images[i].side), nullptr, nullptr});
  }
  return static_cast<int>(ResizePlan(resizes, Filter::bicubic).taps().tables().size());
}

const char* call_degrade(const HostImage* images, int count, int filter) {
  return report([&] {
    Device device;
    std::vector<Degrade> degrades;
    for (int i = 0; i < count; ++i) {
      const HostImage& image = images[i];
      const ImageView pixels = device.copy_in(image);
      void* out = device.result(image.out, image.side * image.side * image.channels);
      degrades.push_back(
          {pixels, static_cast<int>(image.resolution), static_cast<int>(image.side), static_cast<std::uint8_t*>(out)});
    }
    const DegradePlan plan(degrades, static_cast<Filter>(filter));
    degrade(plan, device.copy_in(plan.bytes().data(), plan.bytes().size()),
            device.allocate(plan.taps().workspace_bytes()), device.stream());
    device.finish();
  });
}

/// rows: row_count x dim; mirrored: the same, or null. Row i goes to destinations[i] of `out`, out_count x dim.
const char* call_scatter_rows(const float* rows, const float* mirrored, const std::int64_t* destinations, int row_count,
                              int dim, int shift, int normalize, float* out, int out_count) {
  return report([&] {
    Device device;
    const std::size_t row_bytes = dim * sizeof(float);
    std::vector<ScatterRow> table;
    for (int i = 0; i < row_count; ++i) {
      const auto copy = [&](const float* from) {
        if (from == nullptr) return static_cast<const float*>(nullptr);
        return static_cast<const float*>(device.copy_in(from + std::size_t(i) * dim, row_bytes, shift));
      };
      table.push_back({copy(rows), copy(mirrored), destinations[i]});
    }
    auto* scattered = static_cast<float*>(device.result(out, out_count * row_bytes));
    check(cudaMemcpyAsync(scattered, out, out_count * row_bytes, cudaMemcpyHostToDevice, device.stream()),
          "copying in");
    const auto* entries = static_cast<const ScatterRow*>(device.copy_in(table.data(), table.size() * sizeof(table[0])));
    scatter_rows(entries, row_count, dim, normalize != 0, scattered, device.stream());
    device.finish();
  });
}

}  // extern "C"
