#include "vmm/qemu/qemu_driver.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "sys/file.h"
#include "sys/process.h"
#include "vmm/jail.h"
#include "vmm/limits.h"
#include "vmm/processor.h"
#include "vmm/qemu/preload.h"

namespace wrenn::vmm::qemu {
namespace {

constexpr std::chrono::seconds kVersionLimit{10};
constexpr const char* kPreload = "/preload.so";
// All that QEMU needs of the host: itself, its libraries, its firmware. Debian's places.
constexpr const char* kLentFolders[] = {"/usr/lib", "/usr/lib64", "/usr/share/qemu", "/usr/share/seabios"};
constexpr const char* kLentFiles[] = {"/usr/bin/qemu-system-x86_64", "/etc/ld.so.cache"};

Result<> make_place(async::Blocking blocking, const std::string& path) {
  TRY(sys::mkdirs(path.substr(0, path.rfind('/'))));
  return sys::write_file(blocking, path, "");
}

Result<> make_memory_file(const std::string& path, std::uint64_t size) {
  const sys::Fd fd = TRY(sys::open_file(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return fail_errno("ftruncate " + path);
  return {};
}

}  // namespace

QemuDriver::QemuDriver(asio::any_io_executor executor, asio::thread_pool* pool, Shape shape,
                       std::string preload)
    : executor_(std::move(executor)), pool_(pool), shape_(std::move(shape)), preload_(std::move(preload)) {}

Result<std::shared_ptr<QemuDriver>> QemuDriver::make(async::Blocking blocking, asio::any_io_executor executor,
                                                     asio::thread_pool* pool, std::string accel,
                                                     std::string version, const std::string& lent_dir) {
  Shape shape;
  shape.driver = "qemu";
  // Emulation offers the same everywhere; under KVM guests see what the host's processor has.
  shape.cpu_model = accel == "kvm" ? cpu_model(accel) + " on " + processor_identity() : cpu_model(accel);
  shape.accel = std::move(accel);
  shape.version = std::move(version);
  const std::string preload = lent_dir + "/qemu-preload.so";
  TRY(sys::mkdirs(lent_dir, 0755));
  TRY(sys::write_file_atomic(blocking, preload, preload_library(), 0644));
  return std::shared_ptr<QemuDriver>(new QemuDriver(std::move(executor), pool, std::move(shape), preload));
}

Task<std::shared_ptr<Vm>> QemuDriver::boot(VmSpec spec) {
  const bool unnamed = spec.memory_file.empty();
  if (unnamed) spec.memory_file = spec.run_dir + "/ram";
  CO_TRY(check_spec(spec));
  CO_TRY(make_memory_file(spec.memory_file, spec.shape.memory_bytes()));
  const std::string path = spec.memory_file;
  auto vm = co_await start(std::move(spec), Start::kBoot, {});
  if (unnamed) {
    CO_TRY(co_await async::offload(
        *pool_, [path](async::Blocking blocking) { return sys::remove_file(blocking, path); }));
  }
  co_return vm;
}

Task<std::shared_ptr<Vm>> QemuDriver::load(VmSpec spec, SavedState from) {
  CO_TRY(check_spec(spec));
  CO_TRY(check_memory_file(spec));
  co_return co_await start(std::move(spec), Start::kLoad, std::move(from));
}

Result<sys::Jail> QemuDriver::make_jail(async::Blocking blocking, const VmSpec& spec, Start how) const {
  sys::Jail jail{.root = jail_path(spec), .binds = {}};
  TRY(vmm::make_jail(blocking, jail.root, spec, how));
  for (const char* folder : kLentFolders) {
    if (!sys::is_directory(folder)) continue;
    TRY(sys::mkdirs(jail.root + folder));
    jail.binds.push_back({folder, jail.root + folder});
  }
  for (const char* file : kLentFiles) {
    TRY(make_place(blocking, jail.root + file));
    jail.binds.push_back({file, jail.root + file});
  }
  TRY(make_place(blocking, jail.root + kPreload));
  jail.binds.push_back({preload_, jail.root + kPreload});
  for (const char* name : {"lib", "lib64"}) {
    if (::symlink((std::string("usr/") + name).c_str(), (jail.root + "/" + name).c_str()) != 0)
      return fail_errno(std::string("symlink ") + name);
  }
  TRY(add_device(jail.root, spec, "null", kMemoryMajor, kNullMinor));
  TRY(add_device(jail.root, spec, "net/tun", kMiscMajor, kTunMinor));
  if (shape_.accel == "kvm") TRY(add_device(jail.root, spec, "kvm", kMiscMajor, kKvmMinor));
  return jail;
}

Result<VmProcess> QemuDriver::spawn(async::Blocking blocking, const VmSpec& spec, Start how,
                                    const std::string& device_state, std::uint64_t tsc_khz) const {
  sys::SpawnSpec process;
  process.jail = TRY(make_jail(blocking, spec, how));
  const sys::Fd listener = TRY(sys::listen_unix(qmp_path(spec)));
  process.argv = command_line(spec_in_jail(spec), how, tsc_khz);
  // One malloc arena: QEMU's threads would otherwise keep one each. What a start leaves free goes back at
  // once.
  process.env = {"PATH=/usr/bin",      "LC_ALL=C",
                 "MALLOC_ARENA_MAX=1", "MALLOC_TRIM_THRESHOLD_=65536",
                 "MALLOC_TOP_PAD_=0",  std::string("LD_PRELOAD=") + kPreload};
  process.extra_fds.emplace_back(listener.get(), kQmpListenFd);
  sys::Fd state;
  if (how == Start::kLoad) {
    state = TRY(sys::open_file(device_state, O_RDONLY));
    process.extra_fds.emplace_back(state.get(), kStateFd);
  }
  process.credentials = sys::Credentials{.uid = spec.uid, .gid = spec.gid, .groups = {}};
  if (!spec.netns.empty()) process.netns = "/run/netns/" + spec.netns;
  process.cgroup_procs_files = spec.cgroup_procs_files;
  process.max_file_bytes = TRY(most_file_bytes(spec));
  return VmProcess::start(std::move(process));
}

Task<std::shared_ptr<Vm>> QemuDriver::start(VmSpec spec, Start how, SavedState from) {
  CO_TRY(check_same_machine(spec.shape, shape_));
  const std::uint64_t tsc_khz =
      how == Start::kBoot && shape_.accel == "tcg" ? CO_TRY(co_await tsc_.khz()) : 0;
  VmProcess process = CO_TRY(co_await async::offload(
      *pool_, [this, spec, how, state = from.device_state, tsc_khz](async::Blocking blocking) {
        return spawn(blocking, spec, how, state, tsc_khz);
      }));
  auto vm = std::make_shared<QemuVm>(executor_, pool_, std::move(spec), std::move(process));
  auto ready = co_await vm->connect(kStartLimit);
  if (ready && how == Start::kLoad) {
    ready = co_await async::with_timeout(vm->load_state(std::move(from.pages)), kStartLimit,
                                         "loading the VM's device state");
  }
  if (!ready) CO_TRY(co_await vm->give_up(std::move(ready).error()));
  co_return vm;
}

Task<std::shared_ptr<Vm>> QemuDriver::adopt(VmSpec spec, ProcessIdentity process) {
  auto vm = std::make_shared<QemuVm>(executor_, pool_, std::move(spec), CO_TRY(VmProcess::adopt(process)));
  CO_TRY(vm->check_adopted(co_await vm->connect(kCommandLimit)));
  co_return vm;
}

Result<std::string> binary_version(async::Blocking blocking) {
  sys::SpawnSpec query;
  query.argv = {kBinary, "--version"};
  const auto text = sys::run_checked(blocking, std::move(query), kVersionLimit);
  if (!text) {
    return fail(
        Error(Code::kFailedPrecondition, std::string(kBinary) + " does not run: " + text.error().message())
            .with_reason("qemu_missing"));
  }
  constexpr std::string_view kBefore = "version ";
  const auto at = text->find(kBefore);
  if (at == std::string::npos) return fail(Code::kInternal, "cannot read QEMU's version");
  const auto start = at + kBefore.size();
  return text->substr(start, text->find_first_not_of("0123456789.", start) - start);
}

}  // namespace wrenn::vmm::qemu
