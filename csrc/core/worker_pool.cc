#include "core/worker_pool.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>

#include "btnet/error.h"

namespace btnet {

struct WorkerPool::Job {
  std::size_t count;
  const std::function<void(std::size_t, int)>& task;
  std::size_t next = 0;     // the first index that has not started
  std::size_t running = 0;  // indices that have started and not ended
  std::exception_ptr failure = nullptr;
  std::condition_variable ended = {};

  bool done() const { return next == count && running == 0; }
};

WorkerPool::WorkerPool(int workers) {
  try {
    for (int worker = 0; worker < workers; ++worker) threads_.emplace_back([this, worker] { work(worker); });
  } catch (const std::system_error& error) {
    stop();
    throw Error("cannot start " + std::to_string(workers) + " threads: " + error.code().message());
  } catch (...) {
    stop();
    throw;
  }
}

WorkerPool::~WorkerPool() { stop(); }

void WorkerPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::run(std::size_t count, const std::function<void(std::size_t, int)>& task,
                     const std::function<void()>& poll) {
  if (count == 0) return;
  Job job{count, task};
  std::unique_lock lock(mutex_);
  jobs_.push_back(&job);
  wake_.notify_all();
  while (!job.done()) {
    const bool ended = job.ended.wait_for(lock, std::chrono::milliseconds(50), [&] { return job.done(); });
    if (ended || !poll) continue;
    lock.unlock();
    std::exception_ptr interruption;
    try {
      poll();
    } catch (...) {
      interruption = std::current_exception();
    }
    lock.lock();
    if (interruption) cancel(job, interruption);
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

void WorkerPool::cancel(Job& job, std::exception_ptr why) {
  if (!job.failure) job.failure = std::move(why);
  job.next = job.count;
  jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
}

void WorkerPool::work(int worker) {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    Job& job = *jobs_.front();
    const std::size_t index = job.next++;
    if (job.next == job.count) jobs_.pop_front();
    ++job.running;
    lock.unlock();
    std::exception_ptr failure;
    try {
      job.task(index, worker);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    --job.running;
    if (failure) cancel(job, failure);
    if (job.done()) job.ended.notify_one();
  }
}

}  // namespace btnet
