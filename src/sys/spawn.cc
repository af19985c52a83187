#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>

#include "sys/child_table.h"
#include "sys/process.h"

// The child shares the parent's memory until exec (CLONE_VM | CLONE_VFORK), so child_main may only make
// system calls on memory prepared before: no allocation, no locks, no libc call that keeps state.

extern "C" char** environ;

namespace wrenn::sys {
namespace {

constexpr std::size_t kStackBytes = std::size_t{64} * 1024;
constexpr int kFirstSpareFd = 100;
constexpr int kExitLimitMs = 5'000;
constexpr int kExitNotFound = 127;
constexpr int kExitNotExecutable = 126;

// Why the child did not come to run its program; zero if it did.
struct Failure {
  const char* step = nullptr;
  int error = 0;
};

// What the child needs, all in plain memory of the suspended parent.
struct Plan {
  const char* const* candidates = nullptr;  // paths to try, nullptr at the end
  char* const* argv = nullptr;
  char* const* env = nullptr;
  const char* cwd = nullptr;
  std::pair<int, int>* fds = nullptr;  // {source, target}
  std::size_t fd_count = 0;
  const char* const* procs_files = nullptr;
  int netns_fd = -1;
  const SpawnSpec* spec = nullptr;
  Failure* failure = nullptr;
};

// ThreadSanitizer cannot follow a child into its parent's memory: there the child gets a copy, and only its
// stack stays shared.
#if defined(__has_feature) && __has_feature(thread_sanitizer)
constexpr int kCloneFlags = CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
constexpr int kStackSharing = MAP_SHARED;
#else
constexpr int kCloneFlags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
constexpr int kStackSharing = MAP_PRIVATE;
#endif

// The child's stack; what became of the child stands at its far end.
class Stack {
 public:
  Stack()
      : base_(::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, kStackSharing | MAP_ANONYMOUS, -1, 0)) {}
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  ~Stack() {
    if (valid()) ::munmap(base_, kStackBytes);
  }
  bool valid() const { return base_ != MAP_FAILED; }
  void* top() const { return static_cast<char*>(base_) + kStackBytes; }
  Failure* failure() const { return static_cast<Failure*>(base_); }

 private:
  void* base_;
};

// Signals stay blocked in the child until its handlers are gone, so that none of the parent's runs in it.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &old_);
  }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  ~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &old_, nullptr); }

 private:
  sigset_t old_{};
};

bool write_self(const char* path, const char* text, std::size_t size) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool ok = ::write(fd, text, size) == static_cast<ssize_t>(size);
  const int saved = errno;
  ::close(fd);
  errno = saved;
  return ok;
}

void reset_signals() {
  struct sigaction action{};
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) {
    if (number != SIGKILL && number != SIGSTOP) ::sigaction(number, &action, nullptr);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// All descriptors but the wanted ones get close-on-exec; sources move out of the targets' way first.
const char* place_descriptors(const Plan& plan) {
  ::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
  for (std::size_t i = 0; i < plan.fd_count; ++i) {
    const int moved = ::fcntl(plan.fds[i].first, F_DUPFD_CLOEXEC, kFirstSpareFd);
    if (moved < 0) return "dup";
    plan.fds[i].first = moved;
  }
  for (std::size_t i = 0; i < plan.fd_count; ++i) {
    if (::dup2(plan.fds[i].first, plan.fds[i].second) < 0) return "dup2";
  }
  return nullptr;
}

// glibc's setuid family tells every thread of the process through shared memory; the bare calls touch only
// us.
const char* become(const Credentials& who) {
  if (::syscall(SYS_setgroups, who.groups.size(), who.groups.data()) != 0) return "setgroups";
  if (::syscall(SYS_setresgid, who.gid, who.gid, who.gid) != 0) return "setgid";
  if (::syscall(SYS_setresuid, who.uid, who.uid, who.uid) != 0) return "setuid";
  return nullptr;
}

// What a bind mount adds to its source's own flags is set by a second call only (mount(2)).
const char* enter_jail(const Jail& jail) {
  if (::unshare(CLONE_NEWNS) != 0) return "unshare";
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "make mounts private";
  const char* root = jail.root.c_str();
  if (::mount(root, root, nullptr, MS_BIND, nullptr) != 0) return "mount jail";
  for (const Jail::Bind& bind : jail.binds) {
    const char* target = bind.target.c_str();
    if (::mount(bind.source.c_str(), target, nullptr, MS_BIND, nullptr) != 0) return "bind into jail";
    constexpr unsigned long kFlags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV;
    if (::mount(nullptr, target, nullptr, kFlags, nullptr) != 0) return "make read-only in jail";
  }
  if (::chdir(root) != 0) return "enter jail";
  // Old and new root on one spot: the old one is then on top and can go (pivot_root(2)).
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return "pivot_root";
  if (::umount2(".", MNT_DETACH) != 0) return "leave the host's files";
  if (::chdir("/") != 0) return "chdir";
  return nullptr;
}

#if defined(__x86_64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#endif

// Answers success for both calls in the kernel's place, and leaves all others to it. Filters that the program
// sets for itself still hold: the strictest answer counts (seccomp(2)).
const char* ignore_sync() {
  sock_filter steps[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fsync, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{.len = std::size(steps), .filter = steps};
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0 ? nullptr : "seccomp";
}

const char* limit_resources(const SpawnSpec& spec) {
  if (spec.max_open_files) {
    rlimit limit{};
    ::syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, &limit);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, *spec.max_open_files);
    ::syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, nullptr);
  }
  const auto limit_to = [](int resource, const std::optional<std::uint64_t>& most) {
    const rlimit limit{.rlim_cur = most.value_or(0), .rlim_max = most.value_or(0)};
    return !most || ::syscall(SYS_prlimit64, 0, resource, &limit, nullptr) == 0;
  };
  return limit_to(RLIMIT_CORE, spec.max_core_bytes) && limit_to(RLIMIT_FSIZE, spec.max_file_bytes)
             ? nullptr
             : "setrlimit";
}

const char* prepare(const Plan& plan) {
  const SpawnSpec& spec = *plan.spec;
  for (const char* const* path = plan.procs_files; *path != nullptr; ++path) {
    if (!write_self(*path, "0", 1)) return "join cgroup";
  }
  if (plan.netns_fd >= 0 && ::syscall(SYS_setns, plan.netns_fd, CLONE_NEWNET) != 0) return "setns";
  if (spec.new_session && ::setsid() < 0) return "setsid";
  if (const char* step = place_descriptors(plan)) return step;
  if (spec.controlling_terminal && ::ioctl(0, TIOCSCTTY, 0) != 0) return "TIOCSCTTY";
  if (spec.oom_score_adj) {
    char digits[16];
    int value = *spec.oom_score_adj;
    char* at = digits + sizeof digits;
    const bool negative = value < 0;
    if (negative) value = -value;
    do {
      *--at = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
    if (negative) *--at = '-';
    // Best effort: lowering needs a capability.
    write_self("/proc/self/oom_score_adj", at, static_cast<std::size_t>(digits + sizeof digits - at));
  }
  if (spec.nice) ::syscall(SYS_setpriority, PRIO_PROCESS, 0, *spec.nice);
  if (const char* step = limit_resources(spec)) return step;
  if (spec.jail) {
    if (const char* step = enter_jail(*spec.jail)) return step;
  }
  if (spec.no_new_privileges && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return "no_new_privs";
  if (spec.ignores_sync) {
    if (const char* step = ignore_sync()) return step;
  }
  if (spec.credentials) {
    if (const char* step = become(*spec.credentials)) return step;
  }
  if (plan.cwd != nullptr && ::chdir(plan.cwd) != 0) return "chdir";
  return nullptr;
}

int exec_any(const Plan& plan) {
  int error = ENOENT;
  for (const char* const* path = plan.candidates; *path != nullptr; ++path) {
    ::execve(*path, plan.argv, plan.env);
    if (errno == ENOENT || errno == ENOTDIR) continue;
    error = errno;
    if (errno != EACCES) break;
  }
  return error;
}

void complain(const char* name, int error) {
  const char* reason = error == EACCES    ? ": permission denied\n"
                       : error == ENOEXEC ? ": exec format error\n"
                                          : ": not found\n";
  (void)!::write(2, name, std::strlen(name));
  (void)!::write(2, reason, std::strlen(reason));
}

// On a stack of its own, which AddressSanitizer would complain about at each _exit.
__attribute__((no_sanitize("address"))) int child_main(void* argument) {
  auto* plan = static_cast<Plan*>(argument);
  if (const char* step = prepare(*plan)) {
    *plan->failure = {step, errno};
    ::_exit(kExitNotFound);
  }
  reset_signals();
  const int error = exec_any(*plan);
  if (plan->spec->exec_failure_exits) {
    complain(plan->argv[0], error);
    ::_exit(error == ENOENT ? kExitNotFound : kExitNotExecutable);
  }
  *plan->failure = {"exec", error};
  ::_exit(kExitNotFound);
}

std::string find_path_variable(const SpawnSpec& spec) {
  if (!spec.env) {
    const char* path = std::getenv("PATH");
    return path != nullptr ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  }
  for (const auto& entry : *spec.env) {
    if (entry.starts_with("PATH=")) return entry.substr(5);
  }
  return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

std::vector<std::string> candidate_paths(const SpawnSpec& spec) {
  const std::string& name = spec.argv[0];
  if (name.find('/') != std::string::npos) return {name};
  std::vector<std::string> out;
  const std::string path = find_path_variable(spec);
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find(':', begin), path.size());
    const std::string folder = path.substr(begin, end - begin);
    out.push_back(folder.empty() ? "./" + name : folder + "/" + name);
    begin = end + 1;
  }
  return out;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (const auto& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

Result<> check_strings(const SpawnSpec& spec) {
  const auto has_nul = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  if (spec.argv.empty() || spec.argv[0].empty()) return fail(Code::kInvalidArgument, "no command given");
  if (std::ranges::any_of(spec.argv, has_nul) || has_nul(spec.cwd) ||
      (spec.env && std::ranges::any_of(*spec.env, has_nul))) {
    return fail(Code::kInvalidArgument, "a command, argument or variable holds a NUL byte");
  }
  return {};
}

// Not inlined into spawn: the frame must outlive the child's use of the plan and nothing else.
Result<ChildProcess> clone_child(Plan* plan) {
  const Stack stack;
  if (!stack.valid()) return fail_errno("mmap stack");
  plan->failure = new (stack.failure()) Failure;
  int pidfd = -1;
  pid_t pid = -1;
  {
    const auto guard = child_table::lock();
    const BlockedSignals blocked;
    const int flags = kCloneFlags | (plan->spec->new_pid_namespace ? CLONE_NEWPID | CLONE_NEWIPC : 0);
    pid = ::clone(child_main, stack.top(), flags, plan, &pidfd);
    if (pid < 0) return fail_errno("clone");
    child_table::add(pid);
  }
  ChildProcess child(pid, Fd(pidfd));
  const Failure failure = *stack.failure();
  if (failure.step == nullptr) return child;
  // It has left our memory to exit, so this ends at once.
  pollfd exited{.fd = child.pidfd(), .events = POLLIN, .revents = 0};
  (void)::poll(&exited, 1, kExitLimitMs);
  (void)child.try_wait();
  return fail(Error::from_errno(failure.error, fmt::format("{} for {}", failure.step, plan->argv[0])));
}

}  // namespace

Result<ChildProcess> spawn(const SpawnSpec& spec) {
  TRY(check_strings(spec));
  Fd null_device;
  if (spec.stdin_fd < 0 || spec.stdout_fd < 0 || spec.stderr_fd < 0) {
    null_device = Fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null_device) return fail_errno("open /dev/null");
  }
  const auto or_null = [&](int fd) { return fd >= 0 ? fd : null_device.get(); };
  std::vector<std::pair<int, int>> fds = {
      {or_null(spec.stdin_fd), 0}, {or_null(spec.stdout_fd), 1}, {or_null(spec.stderr_fd), 2}};
  fds.insert(fds.end(), spec.extra_fds.begin(), spec.extra_fds.end());
  Fd netns;
  if (!spec.netns.empty()) {
    netns = Fd(::open(spec.netns.c_str(), O_RDONLY | O_CLOEXEC));
    if (!netns) return fail_errno("open " + spec.netns);
  }
  const auto candidates = candidate_paths(spec);
  const auto candidate_pointers = pointers(candidates);
  const auto argv = pointers(spec.argv);
  const auto env = spec.env ? pointers(*spec.env) : std::vector<char*>{};
  const auto procs_files = pointers(spec.cgroup_procs_files);
  Plan plan{.candidates = candidate_pointers.data(),
            .argv = argv.data(),
            .env = spec.env ? env.data() : environ,
            .cwd = spec.cwd.empty() ? nullptr : spec.cwd.c_str(),
            .fds = fds.data(),
            .fd_count = fds.size(),
            .procs_files = procs_files.data(),
            .netns_fd = netns.get(),
            .spec = &spec};
  return clone_child(&plan);
}

}  // namespace wrenn::sys
