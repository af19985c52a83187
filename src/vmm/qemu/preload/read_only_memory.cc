// Loaded into QEMU before its libraries: the memory file, which many VMs share, is opened for reading only.
// QEMU before 8.2 opens it for writing although it maps it privately, so a guest that took its QEMU over
// could write into other VMs' memory.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr char kMemoryFile[] = "/memory";  // kJailMemory

bool is_memory_file(const char* path) {
  for (int i = 0; i < static_cast<int>(sizeof kMemoryFile); ++i) {
    if (path[i] != kMemoryFile[i]) return false;
  }
  return true;
}

int open_file(const char* path, int flags, unsigned mode) {
  if (is_memory_file(path)) flags = (flags & ~(O_ACCMODE | O_CREAT | O_TRUNC)) | O_RDONLY;
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

}  // namespace

// The names under which programs call it, with and without large files and buffer checks (glibc).
extern "C" {
[[gnu::visibility("default")]] int wrenn_open(const char* path, int flags, unsigned mode) asm("open");
[[gnu::visibility("default")]] int wrenn_open64(const char* path, int flags, unsigned mode) asm("open64");
[[gnu::visibility("default")]] int wrenn_open_2(const char* path, int flags) asm("__open_2");
[[gnu::visibility("default")]] int wrenn_open64_2(const char* path, int flags) asm("__open64_2");

int wrenn_open(const char* path, int flags, unsigned mode) { return open_file(path, flags, mode); }
int wrenn_open64(const char* path, int flags, unsigned mode) { return open_file(path, flags, mode); }
int wrenn_open_2(const char* path, int flags) { return open_file(path, flags, 0); }
int wrenn_open64_2(const char* path, int flags) { return open_file(path, flags, 0); }
}
