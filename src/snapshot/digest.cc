#include "snapshot/digest.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "base/bytes.h"
#include "snapshot/limits.h"
#include "sys/file.h"

namespace wrenn::snapshot {
namespace {

struct FreeState {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};
using State = std::unique_ptr<XXH3_state_t, FreeState>;

bool all_zero(const char* bytes, std::size_t size) {
  return size == 0 || (bytes[0] == 0 && std::memcmp(bytes, bytes + 1, size - 1) == 0);
}

// Feeds the blocks of [from, to), both multiples of the block size or the end.
Result<> feed(async::Blocking blocking, XXH3_state_t* state, int fd, std::uint64_t from, std::uint64_t to,
              std::string* buffer) {
  for (std::uint64_t at = from; at < to;) {
    const std::size_t want = std::min<std::uint64_t>(buffer->size(), to - at);
    TRY(sys::pread_all(blocking, fd, buffer->data(), want, at));
    for (std::size_t block = 0; block < want; block += kDigestBlockBytes) {
      const std::size_t size = std::min(kDigestBlockBytes, want - block);
      if (all_zero(buffer->data() + block, size)) continue;
      const std::uint64_t offset = at + block;
      XXH3_128bits_update(state, &offset, sizeof offset);
      XXH3_128bits_update(state, buffer->data() + block, size);
    }
    at += want;
  }
  return {};
}

}  // namespace

Result<std::string> file_digest(async::Blocking blocking, const std::string& path) {
  const auto fd = TRY(sys::open_file(path, O_RDONLY));
  const std::uint64_t size = TRY(sys::file_size(path));
  const State state(XXH3_createState());
  XXH3_128bits_reset(state.get());
  std::string buffer(kCopyBytes, '\0');
  std::uint64_t done = 0;
  while (done < size) {
    const off_t data = ::lseek(fd.get(), static_cast<off_t>(done), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // holes to the end
    if (data < 0) return fail_errno("seek in " + path);
    const off_t hole = ::lseek(fd.get(), data, SEEK_HOLE);
    if (hole < 0) return fail_errno("seek in " + path);
    const std::uint64_t from =
        std::max(done, static_cast<std::uint64_t>(data) / kDigestBlockBytes * kDigestBlockBytes);
    const std::uint64_t blocks =
        (static_cast<std::uint64_t>(hole) + kDigestBlockBytes - 1) / kDigestBlockBytes;
    const std::uint64_t to = std::min(size, blocks * kDigestBlockBytes);
    TRY(feed(blocking, state.get(), fd.get(), from, to, &buffer));
    done = to;
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  std::array<std::uint8_t, sizeof canonical.digest> bytes{};
  std::memcpy(bytes.data(), canonical.digest, bytes.size());
  return "xxh3-128:" + to_hex(bytes);
}

}  // namespace wrenn::snapshot
