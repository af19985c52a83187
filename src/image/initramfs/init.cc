// The guest's first program, run by the kernel from the initramfs as PID 1. It loads the kernel modules named
// in /modules/order, joins the read-only base disk (vda) and the sandbox's own disk (vdb) by overlayfs, makes
// that the root, and becomes `/usr/local/bin/envd init`. With the kernel argument `wrenn.probe` it only says
// that the machine runs guests, and ends it. Plain POSIX on a static libc: it must stay small and has
// nobody to report to but the console.
#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kDiskWaitMs = 5000;
constexpr const char* kGuestAgent = "/usr/local/bin/envd";

// A reset, since not every machine has a power switch; all monitors end at the first one.
[[noreturn]] void end_vm() {
  sync();
  reboot(RB_AUTOBOOT);
  for (;;) pause();
}

[[noreturn]] void die(const char* what) {
  dprintf(STDERR_FILENO, "wrenn-init: %s: %s\n", what, strerror(errno));
  end_vm();
}

void sleep_ms(long ms) {
  const timespec duration{.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
  nanosleep(&duration, nullptr);
}

void open_console() {
  const int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
  // A VM without a serial port has no console; descriptors 0-2 must still be taken.
  const int use = fd >= 0 ? fd : open("/dev/null", O_RDWR);
  for (int target = 0; target <= 2; ++target) dup2(use, target);
  if (use > 2) close(use);
}

// Reads a small text file, cut at the buffer's size.
template <size_t N>
bool read_text(const char* path, char (&out)[N]) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  size_t used = 0;
  while (used < N - 1) {
    const ssize_t n = read(fd, out + used, N - 1 - used);
    if (n <= 0) break;
    used += static_cast<size_t>(n);
  }
  close(fd);
  out[used] = '\0';
  return true;
}

bool has_argument(char* cmdline, const char* name) {
  char* save = nullptr;
  for (char* word = strtok_r(cmdline, " \n", &save); word != nullptr;
       word = strtok_r(nullptr, " \n", &save)) {
    if (strcmp(word, name) == 0) return true;
  }
  return false;
}

void load_modules() {
  static char order[4096];
  if (!read_text("/modules/order", order)) die("read /modules/order");
  char* save = nullptr;
  for (char* name = strtok_r(order, "\n", &save); name != nullptr; name = strtok_r(nullptr, "\n", &save)) {
    char path[128];
    snprintf(path, sizeof path, "/modules/%s.ko", name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die(path);
    if (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST) die(path);
    close(fd);
    unlink(path);  // gives its memory back
  }
}

void wait_for_disk(const char* path) {
  for (int waited = 0; access(path, F_OK) != 0; ++waited) {
    if (waited >= kDiskWaitMs) die(path);
    sleep_ms(1);
  }
}

void make_dir(const char* path) {
  if (mkdir(path, 0755) != 0 && errno != EEXIST) die(path);
}

void mount_root() {
  wait_for_disk("/dev/vda");
  wait_for_disk("/dev/vdb");
  make_dir("/base");
  make_dir("/disk");
  make_dir("/root");
  if (mount("/dev/vda", "/base", "ext4", MS_RDONLY | MS_NOATIME, nullptr) != 0) die("mount vda");
  if (mount("/dev/vdb", "/disk", "ext4", MS_NOATIME, nullptr) != 0) die("mount vdb");
  make_dir("/disk/upper");
  make_dir("/disk/work");
  if (mount("overlay", "/root", "overlay", MS_NOATIME,
            "lowerdir=/base,upperdir=/disk/upper,workdir=/disk/work,redirect_dir=on,xino=auto") != 0) {
    die("mount overlay");
  }
}

void switch_root() {
  make_dir("/root/dev");
  if (mount("/dev", "/root/dev", nullptr, MS_MOVE, nullptr) != 0) die("move /dev");
  umount2("/proc", MNT_DETACH);
  unlink("/init");
  if (chdir("/root") != 0) die("chdir /root");
  if (mount(".", "/", nullptr, MS_MOVE, nullptr) != 0) die("move root");
  if (chroot(".") != 0 || chdir("/") != 0) die("chroot");
}

}  // namespace

int main() {
  make_dir("/dev");
  make_dir("/proc");
  mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
  open_console();
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) die("mount /proc");
  static char cmdline[4096];
  if (!read_text("/proc/cmdline", cmdline)) die("read /proc/cmdline");
  if (has_argument(cmdline, "wrenn.probe")) {
    dprintf(STDOUT_FILENO, "WRENN-PROBE-OK\n");
    end_vm();
  }
  load_modules();
  mount_root();
  switch_root();
  const char* argv[] = {"envd", "init", nullptr};
  const char* envp[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                        nullptr};
  execve(kGuestAgent, const_cast<char* const*>(argv), const_cast<char* const*>(envp));
  die(kGuestAgent);
}
