#include "core/batching.h"

#include <algorithm>
#include <map>

namespace btnet {

Plan plan_chunks(const std::vector<int>& branch_of, const std::function<int(int)>& max_chunk, int workers) {
  std::map<int, std::vector<std::size_t>, std::greater<>> groups;
  for (std::size_t i = 0; i < branch_of.size(); ++i) groups[branch_of[i]].push_back(i);

  Plan plan;
  plan.order.reserve(branch_of.size());
  for (const auto& [resolution, group] : groups) {
    const std::size_t most = static_cast<std::size_t>(max_chunk(resolution));
    const std::size_t needed = (group.size() + most - 1) / most;
    const std::size_t count = std::max(needed, std::min<std::size_t>(group.size(), workers));
    const std::size_t first = plan.order.size();
    for (std::size_t k = 0; k < count; ++k) {
      plan.chunks.push_back({resolution, first + group.size() * k / count, first + group.size() * (k + 1) / count});
    }
    plan.order.insert(plan.order.end(), group.begin(), group.end());
  }
  return plan;
}

}  // namespace btnet
