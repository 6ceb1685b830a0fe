#include "core/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "btnet/error.h"
#include "forked_child.h"
#include "scratch.h"

namespace btnet {
namespace {

using std::chrono::milliseconds;

const std::function<void()> kNoPoll = {};

/// A door that tasks wait at until somebody opens it.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

void expect_works(WorkerPool& pool) {
  std::vector<std::atomic<int>> calls(50);
  pool.run(calls.size(), [&](std::size_t index, int) { ++calls[index]; }, kNoPoll);
  for (const auto& count : calls) EXPECT_EQ(count, 1);
}

TEST(WorkerPool, EachIndexOnceOnAWorkerThatExists) {
  for (const int workers : {1, 2, 3, 8, 64}) {
    WorkerPool pool(workers);
    EXPECT_EQ(pool.workers(), workers);
    for (const std::size_t count : {1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(count);
      std::atomic<bool> in_range{true};
      pool.run(
          count,
          [&](std::size_t index, int worker) {
            ++calls.at(index);
            if (worker < 0 || worker >= workers) in_range = false;
          },
          kNoPoll);
      for (const auto& calls_of_one : calls) EXPECT_EQ(calls_of_one, 1);
      EXPECT_TRUE(in_range);
    }
  }
}

TEST(WorkerPool, NoTwoTasksShareAWorkerAtATime) {
  constexpr int kWorkers = 4;
  WorkerPool pool(kWorkers);
  std::vector<std::atomic<int>> inside(kWorkers);
  std::atomic<bool> shared{false};
  const auto task = [&](std::size_t, int worker) {
    if (++inside[worker] > 1) shared = true;
    std::this_thread::yield();
    --inside[worker];
  };
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) callers.emplace_back([&] { pool.run(500, task, kNoPoll); });
  for (std::thread& caller : callers) caller.join();
  EXPECT_FALSE(shared);
}

TEST(WorkerPool, NothingToDo) {
  WorkerPool pool(2);
  pool.run(0, [](std::size_t, int) { FAIL(); }, [] { FAIL(); });
}

TEST(WorkerPool, StartsInAscendingOrder) {
  WorkerPool pool(1);
  std::vector<std::size_t> started;
  pool.run(100, [&](std::size_t index, int) { started.push_back(index); }, kNoPoll);
  for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(started.at(i), i);
}

TEST(WorkerPool, JobsInTheOrderInWhichTheyCame) {
  WorkerPool pool(1);
  Gate first_started, second_waits;
  std::vector<int> order;  // written by the one worker only
  std::thread first([&] {
    pool.run(
        3,
        [&](std::size_t, int) {
          first_started.open();
          second_waits.wait();
          order.push_back(1);
        },
        kNoPoll);
  });
  first_started.wait();
  std::thread second([&] { pool.run(3, [&](std::size_t, int) { order.push_back(2); }, kNoPoll); });
  std::this_thread::sleep_for(milliseconds(20));  // whether or not it has come by then, the order is the same
  second_waits.open();
  first.join();
  second.join();
  EXPECT_EQ(order, (std::vector<int>{1, 1, 1, 2, 2, 2}));
}

TEST(WorkerPool, SeveralCallersAtOnce) {
  WorkerPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        std::vector<std::atomic<int>> calls(17);
        pool.run(calls.size(), [&](std::size_t index, int) { ++calls[index]; }, kNoPoll);
        for (const auto& count : calls) wrong += count != 1;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(WorkerPool, AFailureCancelsTheRestAndReachesTheCaller) {
  WorkerPool pool(1);
  std::vector<std::size_t> started;
  const std::string message = message_of<std::runtime_error>([&] {
    pool.run(
        100,
        [&](std::size_t index, int) {
          started.push_back(index);
          if (index == 2) throw std::runtime_error("the third");
        },
        kNoPoll);
  });
  EXPECT_EQ(message, "the third");
  EXPECT_EQ(started, (std::vector<std::size_t>{0, 1, 2}));
  expect_works(pool);
}

TEST(WorkerPool, TheLastTaskMayFail) {
  WorkerPool pool(2);
  EXPECT_THROW(pool.run(
                   10,
                   [](std::size_t index, int) {
                     if (index == 9) throw std::runtime_error("last");
                   },
                   kNoPoll),
               std::runtime_error);
  expect_works(pool);
}

TEST(WorkerPool, WhatIsRunningEndsBeforeTheFailureComesOut) {
  WorkerPool pool(2);
  Gate running;
  std::atomic<bool> ended{false};
  EXPECT_THROW(pool.run(
                   2,
                   [&](std::size_t index, int) {
                     if (index == 0) {
                       running.open();
                       std::this_thread::sleep_for(milliseconds(80));
                       ended = true;
                     } else {
                       running.wait();
                       throw std::runtime_error("early");
                     }
                   },
                   kNoPoll),
               std::runtime_error);
  EXPECT_TRUE(ended);
}

TEST(WorkerPool, EveryTaskMayFailAndTheFirstFailureComesOut) {
  WorkerPool pool(4);
  for (int round = 0; round < 200; ++round) {
    EXPECT_THROW(pool.run(20, [](std::size_t, int) { throw std::runtime_error("all"); }, kNoPoll), std::runtime_error);
  }
  expect_works(pool);
}

TEST(WorkerPool, WhatIsThrownNeedNotBeAnException) {
  WorkerPool pool(1);
  EXPECT_THROW(pool.run(1, [](std::size_t, int) { throw 7; }, kNoPoll), int);
  expect_works(pool);
}

TEST(WorkerPool, AFailureReachesOnlyItsCaller) {
  WorkerPool pool(3);
  std::atomic<int> failed{0}, wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&, caller] {
      for (int round = 0; round < 50; ++round) {
        std::vector<std::atomic<int>> calls(20);
        try {
          pool.run(
              calls.size(),
              [&](std::size_t index, int) {
                ++calls[index];
                if (caller % 2 == 0 && index == 5) throw std::runtime_error(std::to_string(caller));
              },
              kNoPoll);
          wrong += caller % 2 == 0;
          for (const auto& count : calls) wrong += count != 1;
        } catch (const std::runtime_error& error) {
          ++failed;
          wrong += error.what() != std::to_string(caller);
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(failed, 3 * 50);
  EXPECT_EQ(wrong, 0);
  expect_works(pool);
}

TEST(WorkerPool, PollIsCalledInTheCallersThread) {
  WorkerPool pool(2);
  int polls = 0;
  bool elsewhere = false;
  Gate polled;
  const std::thread::id caller = std::this_thread::get_id();
  pool.run(
      2, [&](std::size_t, int) { polled.wait(); },
      [&] {
        elsewhere = elsewhere || std::this_thread::get_id() != caller;
        if (++polls == 3) polled.open();  // without polls the tasks would never end
      });
  EXPECT_GE(polls, 3);
  EXPECT_FALSE(elsewhere);
}

TEST(WorkerPool, WhatPollThrowsCancels) {
  WorkerPool pool(1);
  Gate cancelled;
  std::atomic<int> started{0};
  EXPECT_THROW(pool.run(
                   100,
                   [&](std::size_t, int) {
                     ++started;
                     cancelled.wait();
                     std::this_thread::sleep_for(milliseconds(20));
                   },
                   [&] {
                     cancelled.open();
                     throw std::logic_error("interrupted");
                   }),
               std::logic_error);
  // The one that ran when poll threw, and perhaps some that slipped in before its exception had taken effect: all
  // would take 2 seconds.
  EXPECT_GE(started, 1);
  EXPECT_LT(started, 100) << "nothing was cancelled";
  expect_works(pool);
}

TEST(WorkerPool, ThreadsThatCannotBeStarted) {
  EXPECT_TRUE(child_succeeds([] {
    const rlimit one{1, 1};  // of the user's processes, which does not bind root
    if (::setrlimit(RLIMIT_NPROC, &one) != 0 || (::geteuid() == 0 && ::setuid(65534) != 0)) return false;
    const std::string message = message_of<Error>([] { WorkerPool(3); });
    return message.find("cannot start 3 threads: ") == 0;
  }));
}

TEST(WorkerPool, ManyWorkersWithNothingToDoEnd) { const WorkerPool pool(100); }

}  // namespace
}  // namespace btnet
