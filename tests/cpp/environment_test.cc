#include "core/environment.h"

#include <gtest/gtest.h>
#include <pwd.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "btnet/error.h"
#include "core/cores.h"
#include "forked_child.h"
#include "scratch.h"

namespace btnet {
namespace {

/// Sets variables (nullptr: unsets them), and puts back what they were.
class Environment {
 public:
  Environment(std::initializer_list<std::pair<std::string, const char*>> values) {
    for (const auto& [name, value] : values) {
      const char* old = std::getenv(name.c_str());
      old_[name] = old == nullptr ? std::nullopt : std::optional<std::string>(old);
      set(name, value);
    }
  }
  ~Environment() {
    for (const auto& [name, value] : old_) set(name, value ? value->c_str() : nullptr);
  }

 private:
  static void set(const std::string& name, const char* value) {
    if (value == nullptr) {
      ::unsetenv(name.c_str());
    } else {
      ::setenv(name.c_str(), value, 1);
    }
  }

  std::map<std::string, std::optional<std::string>> old_;
};

TEST(Environment, EmptyCountsAsUnset) {
  const Environment unset{{"BTNET_SOMETHING", nullptr}};
  EXPECT_EQ(environment("BTNET_SOMETHING"), std::nullopt);
  const Environment empty{{"BTNET_SOMETHING", ""}};
  EXPECT_EQ(environment("BTNET_SOMETHING"), std::nullopt);
  const Environment set{{"BTNET_SOMETHING", "a b"}};
  EXPECT_EQ(environment("BTNET_SOMETHING"), "a b");
}

TEST(Environment, OwnVariableComesFirst) {
  const Environment set{{"BTNET_HOME", "/own/home"},
                        {"BTNET_CACHE", "/own/cache"},
                        {"XDG_DATA_HOME", "/xdg"},
                        {"XDG_CACHE_HOME", "/xdg"},
                        {"HOME", "/me"}};
  EXPECT_EQ(model_folder(), "/own/home");
  EXPECT_EQ(cache_folder(), "/own/cache");
}

TEST(Environment, ThenTheUsersFolders) {
  const Environment set{{"BTNET_HOME", ""},
                        {"BTNET_CACHE", nullptr},
                        {"XDG_DATA_HOME", "/xdg/data"},
                        {"XDG_CACHE_HOME", "/xdg/cache"},
                        {"HOME", "/me"}};
  EXPECT_EQ(model_folder(), "/xdg/data/btnet");
  EXPECT_EQ(cache_folder(), "/xdg/cache/btnet");
}

TEST(Environment, ThenHome) {
  const Environment set{{"BTNET_HOME", nullptr},
                        {"BTNET_CACHE", nullptr},
                        {"XDG_DATA_HOME", nullptr},
                        {"XDG_CACHE_HOME", ""},
                        {"HOME", "/me"}};
  EXPECT_EQ(model_folder(), "/me/.local/share/btnet");
  EXPECT_EQ(cache_folder(), "/me/.cache/btnet");
}

TEST(Environment, ThenWhatTheSystemSaysIsTheUsersHome) {
  const Environment set{{"BTNET_HOME", nullptr},
                        {"BTNET_CACHE", nullptr},
                        {"XDG_DATA_HOME", nullptr},
                        {"XDG_CACHE_HOME", nullptr},
                        {"HOME", nullptr}};
  const passwd* user = ::getpwuid(::getuid());
  if (user == nullptr) {
    expect_in("set BTNET_CACHE", message_of<Error>([] { cache_folder(); }));
    return;
  }
  EXPECT_EQ(model_folder(), std::filesystem::path(user->pw_dir) / ".local/share/btnet");
  EXPECT_EQ(cache_folder(), std::filesystem::path(user->pw_dir) / ".cache/btnet");
}

// A container may run as any number.
TEST(Environment, AUserWithoutAHomeIsToldWhatToSet) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become a user that the system does not know";
  const Environment set{
      {"BTNET_HOME", nullptr}, {"XDG_DATA_HOME", nullptr}, {"XDG_CACHE_HOME", nullptr}, {"HOME", nullptr}};
  EXPECT_TRUE(child_succeeds([] {
    return ::setuid(3999999999) == 0 &&
           message_of<Error>([] { model_folder(); }).find("set BTNET_HOME") != std::string::npos;
  }));
}

TEST(Cores, AtLeastOneAndNoMoreThanTheAffinityMask) {
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  EXPECT_GE(available_cores(), 1);
  EXPECT_LE(available_cores(), CPU_COUNT(&allowed));
}

TEST(Cores, FollowAQuota) {
  const Scratch scratch;
  const auto cores = [&](const std::string& text) {
    scratch.write("cpu.max", text);
    return cores_by_quota((scratch.path() / "cpu.max").string(), 7);
  };
  EXPECT_EQ(cores("150000 100000\n"), 2);
  EXPECT_EQ(cores("400000 100000\n"), 4);
  EXPECT_EQ(cores("20000 100000\n"), 0) << "available_cores() makes one of it";
  for (const char* none : {"max 100000\n", "0 0\n", "", "100000", "-1 100000"}) EXPECT_EQ(cores(none), 7) << none;
  EXPECT_EQ(cores_by_quota((scratch.path() / "missing").string(), 7), 7);
}

TEST(Cores, FollowTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(before), &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
  const int cores = available_cores();
  ::sched_setaffinity(0, sizeof(before), &before);
  EXPECT_EQ(cores, 1);
}

}  // namespace
}  // namespace btnet
