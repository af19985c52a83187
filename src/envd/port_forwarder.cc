#include "envd/port_forwarder.h"

#include <charconv>
#include <optional>
#include <vector>

#include "base/log.h"
#include "envd/limits.h"
#include "net/relay.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

constexpr std::string_view kListening = "0A";
// As the kernel prints them: words in the machine's byte order.
constexpr std::string_view kLoopback4 = "0100007F";
constexpr std::string_view kLoopback6 = "00000000000000000000000001000000";

struct Listener {
  std::string_view address;
  std::uint16_t port = 0;
};

// Fields: number, local address:port, remote address:port, state, ...
std::optional<Listener> parse_line(std::string_view line) {
  std::vector<std::string_view> fields;
  while (fields.size() < 4) {
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    if (line.empty()) return std::nullopt;
    fields.push_back(line.substr(0, line.find(' ')));
    line.remove_prefix(fields.back().size());
  }
  const std::size_t colon = fields[1].find(':');
  if (fields[3] != kListening || colon == std::string_view::npos) return std::nullopt;
  Listener listener{.address = fields[1].substr(0, colon)};
  const std::string_view digits = fields[1].substr(colon + 1);
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), listener.port, 16);
  if (ec != std::errc()) return std::nullopt;
  return listener;
}

void collect(std::string_view text, std::string_view loopback, const char* address, LoopbackPorts* ports,
             std::set<std::uint16_t>* elsewhere) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const auto listener = parse_line(line);
    if (!listener) continue;
    if (listener->address == loopback) {
      ports->emplace(listener->port, address);
    } else if (listener->address.find_first_not_of('0') == std::string_view::npos) {
      elsewhere->insert(listener->port);  // on every address
    }
  }
}

Result<LoopbackPorts> scan() {
  const std::string tcp = TRY(sys::read_file("/proc/net/tcp"));
  const auto tcp6 = sys::read_file("/proc/net/tcp6");  // a guest may have no IPv6
  return parse_loopback_ports(tcp, tcp6.value_or(""));
}

// One port's relay and what owns it.
struct Forwarded {
  explicit Forwarded(asio::any_io_executor executor) : task(std::move(executor)) {}
  std::unique_ptr<net::Relay> relay;
  async::Nursery task;
};

using Forwards = std::map<std::uint16_t, std::unique_ptr<Forwarded>>;

void open_port(Forwards* forwards, std::uint16_t port, const std::string& target, const std::string& address,
               const asio::any_io_executor& executor) {
  net::Endpoint at{.host = address, .port = port};
  auto relay = net::Relay::listen(executor, at, net::Endpoint{.host = target, .port = port});
  // Somebody listens there already: then the port needs no help.
  if (!relay) return;
  auto forwarded = std::make_unique<Forwarded>(executor);
  forwarded->relay = std::move(*relay);
  forwarded->task.spawn("port " + std::to_string(port), forwarded->relay->run());
  (*forwards)[port] = std::move(forwarded);
}

Task<> keep_up(Forwards* forwards, std::string address, asio::thread_pool* pool) {
  const auto executor = co_await asio::this_coro::executor;
  while (true) {
    const auto ports = co_await async::offload(*pool, scan);
    if (!ports) log::warn("ports: {}", ports.error().to_string());
    if (ports) {
      for (auto at = forwards->begin(); at != forwards->end();) {
        const bool gone = !ports->contains(at->first);
        if (gone) co_await at->second->task.cancel_and_join();
        at = gone ? forwards->erase(at) : std::next(at);
      }
      for (const auto& [port, target] : *ports) {
        if (forwards->size() >= kMaxForwardedPorts) break;
        if (!forwards->contains(port)) open_port(forwards, port, target, address, executor);
      }
    }
    CO_TRY(co_await async::sleep_for(kPortScanPeriod));
  }
}

}  // namespace

LoopbackPorts parse_loopback_ports(std::string_view tcp, std::string_view tcp6) {
  LoopbackPorts ports;
  std::set<std::uint16_t> elsewhere;
  collect(tcp, kLoopback4, "127.0.0.1", &ports, &elsewhere);
  collect(tcp6, kLoopback6, "::1", &ports, &elsewhere);
  for (const std::uint16_t port : elsewhere) ports.erase(port);
  return ports;
}

Task<> forward_loopback_ports(std::string address, asio::thread_pool* pool) {
  Forwards forwards;
  Result<> ended = co_await keep_up(&forwards, std::move(address), pool);
  for (auto& [port, forwarded] : forwards) co_await forwarded->task.cancel_and_join();
  co_return ended;
}

}  // namespace wrenn::envd
