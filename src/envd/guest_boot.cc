#include "envd/guest_boot.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/log.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

constexpr const char* kNetmask = "255.255.255.252";
constexpr const char* kGateway = "169.254.0.22";
constexpr const char* kHostname = "sandbox";

struct Mount {
  const char* type;
  const char* target;
  unsigned long flags;
  const char* options;
};

constexpr Mount kMounts[] = {
    {"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr},
    {"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr},
    {"devtmpfs", "/dev", MS_NOSUID, "mode=755"},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
    {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"},
    {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"},
    // Without favordynmods each process that moves into its group waits for an RCU period.
    {"cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "favordynmods"},
};

void note(const Result<>& result) {
  if (!result) log::warn("boot: {}", result.error().to_string());
}

Result<> mount_one(const Mount& mount) {
  TRY(sys::mkdirs(mount.target));
  // The initramfs may have mounted it already.
  if (::mount(mount.type, mount.target, mount.type, mount.flags, mount.options) != 0 && errno != EBUSY) {
    return fail_errno(std::string("mount ") + mount.target);
  }
  return {};
}

sockaddr inet_address(const char* text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, text, &address.sin_addr);
  sockaddr out{};
  std::memcpy(&out, &address, sizeof out);
  return out;
}

ifreq request_for(const char* interface) {
  ifreq request{};
  std::strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  return request;
}

Result<> bring_up(int socket, const char* interface) {
  ifreq request = request_for(interface);
  if (::ioctl(socket, SIOCGIFFLAGS, &request) != 0) return fail_errno(std::string("flags of ") + interface);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(socket, SIOCSIFFLAGS, &request) != 0) return fail_errno(std::string("bring up ") + interface);
  return {};
}

Result<> set_up_network() {
  const sys::Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno("socket");
  TRY(bring_up(socket.get(), "lo"));
  ifreq address = request_for("eth0");
  address.ifr_addr = inet_address(kGuestAddress);
  if (::ioctl(socket.get(), SIOCSIFADDR, &address) != 0) return fail_errno("address of eth0");
  ifreq mask = request_for("eth0");
  mask.ifr_netmask = inet_address(kNetmask);
  if (::ioctl(socket.get(), SIOCSIFNETMASK, &mask) != 0) return fail_errno("netmask of eth0");
  TRY(bring_up(socket.get(), "eth0"));
  rtentry route{};
  route.rt_dst = inet_address("0.0.0.0");
  route.rt_genmask = inet_address("0.0.0.0");
  route.rt_gateway = inet_address(kGateway);
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  if (::ioctl(socket.get(), SIOCADDRT, &route) != 0 && errno != EEXIST) return fail_errno("default route");
  return {};
}

Result<> set_names(async::Blocking blocking) {
  if (::sethostname(kHostname, std::strlen(kHostname)) != 0) return fail_errno("hostname");
  if (!sys::exists("/etc/resolv.conf")) {
    TRY(sys::write_file(blocking, "/etc/resolv.conf", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"));
  }
  return {};
}

void link_standard_names() {
  const std::pair<const char*, const char*> links[] = {{"/proc/self/fd", "/dev/fd"},
                                                       {"/proc/self/fd/0", "/dev/stdin"},
                                                       {"/proc/self/fd/1", "/dev/stdout"},
                                                       {"/proc/self/fd/2", "/dev/stderr"}};
  for (const auto& [target, name] : links) {
    if (::symlink(target, name) != 0 && errno != EEXIST) log::warn("boot: cannot link {}", name);
  }
}

}  // namespace

void boot_guest(async::Blocking blocking) {
  ::umask(0022);
  ::setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  for (const Mount& mount : kMounts) note(mount_one(mount));
  link_standard_names();
  note(set_names(blocking));
  note(set_up_network());
}

}  // namespace wrenn::envd
