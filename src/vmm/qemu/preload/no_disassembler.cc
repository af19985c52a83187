// Debian's QEMU is linked with Capstone, to print instructions for people. Nobody asks a VM for that, and
// each would pay 1.4 MiB of its own for it. The library that holds this is named as Capstone's (SONAME,
// src/CMakeLists.txt), so that the loader takes it instead.
#include <cstddef>

namespace {

constexpr int kNoSuchArchitecture = 2;  // CS_ERR_ARCH: QEMU then goes without

}  // namespace

// What QEMU calls; only the first, for the others need what it gives.
extern "C" {
[[gnu::visibility("default")]] int cs_open(int architecture, int mode, std::size_t* handle);
[[gnu::visibility("default")]] int cs_close(std::size_t* handle);
[[gnu::visibility("default")]] int cs_option(std::size_t handle, int type, std::size_t value);
[[gnu::visibility("default")]] void* cs_malloc(std::size_t handle);
[[gnu::visibility("default")]] bool cs_disasm_iter(std::size_t handle, const void** code, std::size_t* size,
                                                   void* address, void* instruction);

int cs_open(int /*architecture*/, int /*mode*/, std::size_t* /*handle*/) { return kNoSuchArchitecture; }
int cs_close(std::size_t* /*handle*/) { return kNoSuchArchitecture; }
int cs_option(std::size_t /*handle*/, int /*type*/, std::size_t /*value*/) { return kNoSuchArchitecture; }
void* cs_malloc(std::size_t /*handle*/) { return nullptr; }
bool cs_disasm_iter(std::size_t /*handle*/, const void** /*code*/, std::size_t* /*size*/, void* /*address*/,
                    void* /*instruction*/) {
  return false;
}
}
