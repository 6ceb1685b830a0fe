#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace btnet {

/// Base of every error that btnet throws for something a caller can act on.
/// Each message is one sentence that names the argument, what came and what was expected.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An image that cannot be embedded: no pixels, a wrong number of channels, a null pointer.
class InvalidImage : public Error {
 public:
  using Error::Error;
};

/// A bundle that is missing, damaged, of another format, or that points outside itself.
class BundleError : public Error {
 public:
  using Error::Error;
};

/// A device or precision that this machine or this build cannot serve.
class BackendUnavailable : public Error {
 public:
  using Error::Error;
};

/// An option with a value outside the documented ones.
class InvalidOption : public Error {
 public:
  using Error::Error;
};

/// Not enough memory on a GPU, or not enough on the host that can be pinned for it.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

}  // namespace btnet
