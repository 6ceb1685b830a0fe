#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace btnet {

/// A fixed number of threads that work off the jobs of any number of callers, in the order in which they came.
class WorkerPool {
 public:
  explicit WorkerPool(int workers);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Runs task(index, worker) for every index in [0, count), each on one of the workers 0 .. workers - 1, started in
  /// ascending order, and returns when all have ended.
  ///
  /// The first exception of a task, or of `poll` (if any), which is called in this thread every 50 ms meanwhile,
  /// cancels the indices that have not started; once those that have are through, it is thrown here.
  void run(std::size_t count, const std::function<void(std::size_t, int)>& task, const std::function<void()>& poll);

  int workers() const { return static_cast<int>(threads_.size()); }

 private:
  struct Job;

  void work(int worker);
  void cancel(Job& job, std::exception_ptr why);
  void stop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job*> jobs_;  // those with indices left to start; each lives in its caller's run()
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace btnet
