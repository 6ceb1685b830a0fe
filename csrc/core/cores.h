#pragma once

namespace btnet {

/// How many threads of computation this process can keep busy, at least 1: the physical cores that its affinity mask
/// allows (two hyper-threads of a core share its arithmetic units), and no more than its container's CPU quota.
int available_cores();

}  // namespace btnet
