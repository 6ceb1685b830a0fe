#include "core/cores.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace btnet {
namespace {

/// The mask of the CPUs that this process may use; the kernel's own may be longer than a cpu_set_t. Empty if it does
/// not say.
std::vector<cpu_set_t> allowed_cpus() {
  constexpr std::size_t kMostSets = 64;
  for (std::size_t sets = 1; sets <= kMostSets; sets *= 2) {
    std::vector<cpu_set_t> allowed(sets);
    if (::sched_getaffinity(0, sets * sizeof(cpu_set_t), allowed.data()) == 0) return allowed;
  }
  return {};
}

int cores_by_affinity() {
  const std::vector<cpu_set_t> allowed = allowed_cpus();
  if (allowed.empty()) return static_cast<int>(std::thread::hardware_concurrency());
  std::set<std::string> cores;
  for (int cpu = 0; cpu < static_cast<int>(allowed.size()) * CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu % CPU_SETSIZE, &allowed[cpu / CPU_SETSIZE])) continue;
    const std::string name = std::to_string(cpu);
    std::ifstream file("/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
    std::string siblings;
    // Where the kernel does not say which threads share a core, each counts as one.
    cores.insert(std::getline(file, siblings) ? siblings : name);
  }
  return static_cast<int>(cores.size());
}

}  // namespace

int cores_by_quota(const std::string& cpu_max, int otherwise) {
  std::ifstream file(cpu_max);
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return otherwise;
  return static_cast<int>(quota / period + 0.5);
}

int available_cores() {
  const int cores = cores_by_affinity();
  return std::max(1, std::min(cores, cores_by_quota("/sys/fs/cgroup/cpu.max", cores)));
}

}  // namespace btnet
