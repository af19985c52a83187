#include "envd/init_route.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <ctime>

#include "base/bytes.h"
#include "base/log.h"
#include "envd/files_route.h"
#include "envd/limits.h"
#include "sys/fd.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

namespace json = boost::json;
using std::chrono::nanoseconds;

constexpr std::size_t kPoolBytes = 64;
constexpr const char* kMachineIdPath = "/etc/machine-id";
constexpr mode_t kMachineIdMode = 0444;

Result<> set_clock(nanoseconds host) {
  const auto guest = std::chrono::system_clock::now().time_since_epoch();
  if (std::chrono::abs(host - guest) <= kClockTolerance) return {};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(host);
  const timespec now{.tv_sec = seconds.count(), .tv_nsec = (host - seconds).count()};
  if (::clock_settime(CLOCK_REALTIME, &now) != 0) return fail_errno("set the clock");
  return {};
}

// Guests that share a snapshot share the generator's state until this runs, and the kernel's own sources may
// be no more than a time stamp.
Result<> reseed(std::string_view entropy) {
  const sys::Fd random(::open("/dev/urandom", O_RDWR | O_CLOEXEC));
  if (!random.valid()) return fail_errno("open /dev/urandom");
  const std::size_t length = std::min(entropy.size(), kPoolBytes);
  alignas(rand_pool_info) std::array<char, sizeof(rand_pool_info) + kPoolBytes> request{};
  const int header[2] = {static_cast<int>(length * 8), static_cast<int>(length)};  // entropy_count, buf_size
  std::memcpy(request.data(), header, sizeof header);
  std::memcpy(request.data() + sizeof header, entropy.data(), length);
  if (::ioctl(random.get(), RNDADDENTROPY, request.data()) != 0) return fail_errno("RNDADDENTROPY");
  if (::ioctl(random.get(), RNDRESEEDCRNG) != 0) return fail_errno("RNDRESEEDCRNG");
  return {};
}

Result<json::object> parse_body(const std::string& text) {
  if (trim(text).empty()) return json::object();
  json::parse_options options;
  options.max_depth = 8;
  boost::system::error_code ec;
  json::value value = json::parse(text, ec, {}, options);
  if (ec || !value.is_object()) return fail(Code::kInvalidArgument, "the body is not a JSON object");
  return std::move(value.get_object());
}

Result<std::string> text_field(const json::object& body, std::string_view name) {
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return std::string();
  if (!value->is_string()) {
    return fail(
        Error(Code::kInvalidArgument, std::string(name) + " must be a string").with_field(std::string(name)));
  }
  return std::string(value->get_string());
}

Result<std::map<std::string, std::string>> env_field(const json::object& body) {
  std::map<std::string, std::string> envs;
  const json::value* value = body.if_contains("envVars");
  if (value == nullptr || value->is_null()) return envs;
  if (!value->is_object())
    return fail(Error(Code::kInvalidArgument, "envVars must be an object").with_field("envVars"));
  for (const auto& [name, text] : value->get_object()) {
    if (!text.is_string()) {
      return fail(Error(Code::kInvalidArgument, "envVars must hold strings").with_field("envVars"));
    }
    envs[std::string(name)] = std::string(text.get_string());
  }
  return envs;
}

// Less than enough is refused, since clones would go on sharing what their generators hold.
Result<std::string> entropy_field(const json::object& body) {
  const std::string text = TRY(text_field(body, "entropy"));
  std::string bytes = TRY(from_base64(text));
  if (bytes.size() >= kMinEntropyBytes) return bytes;
  return fail(
      Error(Code::kInvalidArgument, fmt::format("entropy must have at least {} bytes", kMinEntropyBytes))
          .with_field("entropy"));
}

Result<std::string> machine_id_field(const json::object& body) {
  std::string id = TRY(text_field(body, "machineId"));
  const bool hex = id.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (id.empty() || (hex && id.size() == kMachineIdDigits)) return id;
  return fail(
      Error(Code::kInvalidArgument, "machineId must be 32 hexadecimal digits").with_field("machineId"));
}

// Whatever stands there may be the owner's: no link is followed, and nothing is waited for.
Result<> write_machine_id(const std::string& id, const std::string& last) {
  const sys::Fd file =
      TRY(sys::open_file(kMachineIdPath, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, kMachineIdMode));
  std::array<char, 2 * kMachineIdDigits> text{};
  const ssize_t got = ::pread(file.get(), text.data(), text.size(), 0);
  if (got < 0) return fail_errno(kMachineIdPath);
  const std::string_view found = trim({text.data(), static_cast<std::size_t>(got)});
  if (!found.empty() && found != "uninitialized" && found != last) return {};
  const std::string line = id + "\n";
  if (::pwrite(file.get(), line.data(), line.size(), 0) != static_cast<ssize_t>(line.size()) ||
      ::ftruncate(file.get(), static_cast<off_t>(line.size())) != 0) {
    return fail_errno(kMachineIdPath);
  }
  return {};
}

Result<> apply(const json::object& body, const net::Headers& headers, Settings* settings) {
  const std::string token = TRY(text_field(body, "accessToken"));
  const std::string& current = settings->access_token;
  if (!current.empty() && !equal_constant_time(token, current) &&
      !equal_constant_time(headers.get("x-access-token"), current)) {
    return fail(Code::kUnauthenticated, "the access token does not match");
  }
  Settings next = *settings;
  next.envs = TRY(env_field(body));
  const std::string user = TRY(text_field(body, "defaultUser"));
  if (!user.empty()) {
    TRY(sys::find_user(user));
    next.default_user = user;
  }
  const std::string workdir = TRY(text_field(body, "defaultWorkdir"));
  if (!workdir.empty()) next.default_workdir = workdir;
  if (!token.empty()) next.access_token = token;
  const std::string entropy = TRY(entropy_field(body));
  const std::string machine_id = TRY(machine_id_field(body));
  const std::string timestamp = TRY(text_field(body, "timestamp"));
  if (!timestamp.empty()) {
    const nanoseconds host = TRY(parse_rfc3339(timestamp));
    TRY(set_clock(host));
  }
  TRY(reseed(entropy));
  if (!machine_id.empty() && machine_id != settings->machine_id) {
    const Result<> written = write_machine_id(machine_id, settings->machine_id);
    if (!written) log::warn("init: {}", written.error().to_string());
    next.machine_id = machine_id;
  }
  *settings = std::move(next);
  return {};
}

}  // namespace

Result<nanoseconds> parse_rfc3339(const std::string& text) {
  std::tm calendar{};
  const char* rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &calendar);
  const auto malformed = [] {
    return fail(Error(Code::kInvalidArgument, "timestamp must be RFC 3339 in UTC").with_field("timestamp"));
  };
  if (rest == nullptr) return malformed();
  std::int64_t fraction = 0;
  if (*rest == '.') {
    int digits = 0;
    for (++rest; *rest >= '0' && *rest <= '9' && digits < 9; ++rest, ++digits)
      fraction = fraction * 10 + (*rest - '0');
    for (; digits < 9; ++digits) fraction *= 10;
  }
  if (std::string_view(rest) != "Z") return malformed();
  return std::chrono::seconds(::timegm(&calendar)) + nanoseconds(fraction);
}

Task<> serve_init(std::shared_ptr<net::Exchange> exchange, Settings* settings, ProcessGroups* groups) {
  const std::string text = CO_TRY(co_await net::read_all(exchange.get(), kMaxInitBytes));
  const auto run = [&]() -> Result<> {
    const json::object body = TRY(parse_body(text));
    TRY(apply(body, exchange->request().headers, settings));
    return groups->thaw();
  };
  const Result<> done = run();
  if (!done) {
    log::warn("init: {}", done.error().to_string());
    co_return co_await respond_error(exchange, done.error());
  }
  net::Headers headers;
  headers.set("X-Envd-Version", kVersion);
  // Lets the host see how far off the clock may be: a request takes long in a guest that has just woken.
  const nanoseconds now = std::chrono::system_clock::now().time_since_epoch();
  headers.set("X-Envd-Clock", std::to_string(now.count()));
  co_return co_await exchange->respond(204, std::move(headers), "");
}

}  // namespace wrenn::envd
