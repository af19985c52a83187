#include "vmm/firecracker/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/json.hpp>

#include "sys/file.h"
#include "vmm/jail.h"
#include "vmm/limits.h"

namespace wrenn::vmm::firecracker {
namespace {

constexpr std::size_t kPipeBytes = std::size_t{64} * 1024;

struct Counter {
  const char* device;
  const char* name;
};
constexpr Counter kThrottled[] = {{"block", "rate_limiter_throttled_events"},
                                  {"net", "rx_rate_limiter_throttled"},
                                  {"net", "tx_rate_limiter_throttled"}};

}  // namespace

Result<> Metrics::make_pipe(const std::string& path, const VmSpec& spec) {
  if (::mkfifo(path.c_str(), 0600) != 0) return fail_errno("mkfifo " + path);
  return own(path, spec);
}

Result<> Metrics::open(const std::string& path) {
  // The folder is the VM's: a file put there instead must not make us wait or read elsewhere.
  sys::Fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  struct stat info{};
  if (!fd || ::fstat(fd.get(), &info) != 0) return fail_errno("open " + path);
  if (!S_ISFIFO(info.st_mode)) return fail(Code::kFailedPrecondition, path + " is no FIFO");
  pipe_ = std::move(fd);
  return {};
}

void Metrics::drain() {
  if (!pipe_) return;
  std::array<char, kPipeBytes> buffer;
  const ssize_t got = ::read(pipe_.get(), buffer.data(), buffer.size());
  if (got <= 0) return;
  std::string_view text(buffer.data(), static_cast<std::size_t>(got));
  while (true) {
    const auto eol = text.find('\n');
    line_ += text.substr(0, eol);
    if (eol == std::string_view::npos) break;
    throttled_ += throttled_in(line_);
    line_.clear();
    text.remove_prefix(eol + 1);
  }
  // Nothing that Firecracker writes is that long.
  if (line_.size() > kMaxMonitorMessageBytes) line_ = {};
}

std::uint64_t throttled_in(std::string_view line) {
  boost::system::error_code ec;
  const auto value = boost::json::parse(line, ec);
  if (ec || !value.is_object()) return 0;
  std::uint64_t total = 0;
  for (const auto& [device, name] : kThrottled) {
    const auto* counts = value.get_object().if_contains(device);
    const auto* count =
        counts != nullptr && counts->is_object() ? counts->get_object().if_contains(name) : nullptr;
    if (count != nullptr && count->is_int64() && count->get_int64() > 0)
      total += static_cast<std::uint64_t>(count->get_int64());
  }
  return total;
}

}  // namespace wrenn::vmm::firecracker
