#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace btnet {

/// Images of one branch that run together: order[begin .. end) of the plan.
struct Chunk {
  int resolution;
  std::size_t begin, end;
};

/// How a batch of mixed resolution is worked off.
struct Plan {
  std::vector<std::size_t> order;  ///< indices of the images, grouped by branch, in the caller's order within a branch
  std::vector<Chunk> chunks;       ///< together they cover `order`, each image once
};

/// Groups images by branch and cuts each group into chunks of nearly equal size.
///
/// branch_of: the resolution that serves each image. max_chunk(r): the most images a chunk of resolution r may have.
/// A group is cut into at least `workers` chunks where it has that many images, so that no worker idles. Chunks of high
/// resolutions come first: they take longest, and what is started last should be short.
Plan plan_chunks(const std::vector<int>& branch_of, const std::function<int(int)>& max_chunk, int workers);

}  // namespace btnet
