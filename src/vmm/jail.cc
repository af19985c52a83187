#include "vmm/jail.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "sys/file.h"
#include "vmm/limits.h"

namespace wrenn::vmm {
namespace {

Result<> set_mode(const std::string& path, mode_t mode) {
  if (::chmod(path.c_str(), mode) != 0) return fail_errno("chmod " + path);
  return {};
}

// No copy would do: what the VM writes must be the file itself.
Result<> add_writable(const std::string& source, const std::string& target, const VmSpec& spec) {
  if (::link(source.c_str(), target.c_str()) != 0) return fail_errno("link " + source);
  TRY(set_mode(target, 0600));
  return own(target, spec);
}

}  // namespace

Result<> lend_file(async::Blocking blocking, const std::string& source, const std::string& target) {
  if (::link(source.c_str(), target.c_str()) != 0) {
    if (errno != EXDEV && errno != EPERM && errno != EMLINK) return fail_errno("link " + source);
    TRY(sys::copy_sparse(blocking, source, target));
  }
  return set_mode(target, 0444);
}

Result<> make_jail(async::Blocking blocking, const std::string& root, const VmSpec& spec, Start how) {
  TRY(sys::remove_tree(blocking, root));
  TRY(sys::mkdirs(root, 0755));
  TRY(lend_file(blocking, spec.base.path, root + kJailBase));
  TRY(add_writable(spec.overlay.path, root + kJailOverlay, spec));
  if (!spec.memory_file.empty()) TRY(lend_file(blocking, spec.memory_file, root + kJailMemory));
  if (how == Start::kBoot) {
    TRY(lend_file(blocking, spec.kernel, root + kJailKernel));
    TRY(lend_file(blocking, spec.initramfs, root + kJailInitramfs));
  }
  if (spec.serial_log.empty()) return {};
  const sys::Fd log = TRY(sys::open_file(spec.serial_log, O_WRONLY | O_CREAT | O_APPEND));
  return add_writable(spec.serial_log, root + kJailConsole, spec);
}

Result<std::uint64_t> most_file_bytes(const VmSpec& spec) {
  const std::uint64_t disk = TRY(sys::file_size(spec.overlay.path));
  return std::max(disk, spec.shape.memory_bytes()) + kOtherFileBytes;
}

VmSpec spec_in_jail(const VmSpec& spec) {
  VmSpec inside = spec;
  inside.kernel = kJailKernel;
  inside.initramfs = kJailInitramfs;
  inside.base.path = kJailBase;
  inside.overlay.path = kJailOverlay;
  if (!spec.memory_file.empty()) inside.memory_file = kJailMemory;
  if (!spec.serial_log.empty()) inside.serial_log = kJailConsole;
  return inside;
}

Result<> own(const std::string& path, const VmSpec& spec) {
  if (::lchown(path.c_str(), spec.uid, spec.gid) != 0) return fail_errno("chown " + path);
  return {};
}

Result<> add_device(const std::string& root, const VmSpec& spec, const std::string& name, unsigned major,
                    unsigned minor) {
  const std::string path = root + "/dev/" + name;
  TRY(sys::mkdirs(path.substr(0, path.rfind('/'))));
  if (::mknod(path.c_str(), S_IFCHR | 0600, makedev(major, minor)) != 0) return fail_errno("mknod " + path);
  return own(path, spec);
}

Result<> add_output(async::Blocking blocking, const std::string& root, const VmSpec& spec, const char* name) {
  TRY(sys::remove_file(blocking, root + name));
  TRY(sys::write_file(blocking, root + name, "", 0600));
  return own(root + name, spec);
}

Result<> take_output(async::Blocking blocking, const std::string& root, const char* name,
                     const std::string& path) {
  // A descriptor that the VM's process may still hold must not reach the file that is kept.
  TRY(sys::copy_sparse(blocking, root + name, path));
  return sys::remove_file(blocking, root + name);
}

}  // namespace wrenn::vmm
