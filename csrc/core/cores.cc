#include "core/cores.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>

namespace btnet {
namespace {

int cores_by_affinity() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 1;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string name = std::to_string(cpu);
    std::ifstream file("/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
    std::string siblings;
    // Where the kernel does not say which threads share a core, each counts as one.
    cores.insert(std::getline(file, siblings) ? siblings : name);
  }
  return static_cast<int>(cores.size());
}

int cores_by_quota(int otherwise) {
  std::ifstream file("/sys/fs/cgroup/cpu.max");  // "max 100000", or microseconds of CPU time in each such period
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return otherwise;
  return static_cast<int>(quota / period + 0.5);
}

}  // namespace

int available_cores() {
  const int cores = cores_by_affinity();
  return std::max(1, std::min(cores, cores_by_quota(cores)));
}

}  // namespace btnet
