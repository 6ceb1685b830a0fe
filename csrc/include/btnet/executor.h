#pragma once

namespace btnet {

/// Runs the networks of one bundle: all that the engine knows of a backend.
///
/// run() is called by several threads at once, each with a slot of its own; two calls never share a slot at a time.
/// Whatever run() throws reaches the caller of Engine::embed, and the executor must stay usable after it.
class Executor {
 public:
  virtual ~Executor() = default;

  /// How many run() calls may be in progress at once; at least 1.
  virtual int slots() const = 0;

  /// The largest `count` that run() takes for this resolution; at least 2, an image and its mirror image.
  virtual int max_batch(int resolution) const = 0;

  /// Length D of an embedding.
  virtual int dim() const = 0;

  /// input: count x 3 x resolution x resolution, normalised. output: count x dim(), raw embeddings. Both 64-byte
  /// aligned, not overlapping, and the executor's only for the duration of the call. 1 <= count <=
  /// max_batch(resolution).
  virtual void run(int resolution, int count, const float* input, float* output, int slot) = 0;
};

}  // namespace btnet
