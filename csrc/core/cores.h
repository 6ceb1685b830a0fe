#pragma once

#include <string>

namespace btnet {

/// How many threads of computation this process can keep busy, at least 1: the physical cores that its affinity mask
/// allows (two hyper-threads of a core share its arithmetic units), and no more than its container's CPU quota (cgroup
/// v2).
int available_cores();

/// What a container's quota comes to, rounded. cpu_max: the file in which Linux says it, "max 100000", or microseconds
/// of CPU time in each such period; `otherwise` where there is no such file, or no quota.
int cores_by_quota(const std::string& cpu_max, int otherwise);

}  // namespace btnet
