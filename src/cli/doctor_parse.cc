#include "cli/doctor_parse.h"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <charconv>

#include "base/bytes.h"

namespace wrenn::cli {
namespace {

// Takes the text up to `separator` from the front of `rest`.
std::string_view take_until(std::string_view* rest, char separator) {
  const std::size_t end = rest->find(separator);
  const std::string_view taken = rest->substr(0, end);
  *rest = end == std::string_view::npos ? std::string_view() : rest->substr(end + 1);
  return taken;
}

std::vector<std::string_view> words_of(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r\n";
  std::vector<std::string_view> words;
  std::size_t at = line.find_first_not_of(kBlanks);
  while (at != std::string_view::npos) {
    const std::size_t end = line.find_first_of(kBlanks, at);
    words.push_back(line.substr(at, end == std::string_view::npos ? end : end - at));
    at = line.find_first_not_of(kBlanks, end);
  }
  return words;
}

bool has_option(std::string_view options, std::string_view wanted) {
  while (!options.empty()) {
    if (take_until(&options, ',') == wanted) return true;
  }
  return false;
}

}  // namespace

std::optional<std::uint64_t> meminfo_mib(std::string_view meminfo, std::string_view name) {
  while (!meminfo.empty()) {
    const auto words = words_of(take_until(&meminfo, '\n'));
    if (words.size() < 2 || words[0] != std::string(name) + ":") continue;
    std::uint64_t kib = 0;
    const auto parsed = std::from_chars(words[1].data(), words[1].data() + words[1].size(), kib);
    if (parsed.ec != std::errc()) return std::nullopt;
    return kib / 1024;
  }
  return std::nullopt;
}

std::optional<std::string> cpuinfo_field(std::string_view cpuinfo, std::string_view name) {
  while (!cpuinfo.empty()) {
    std::string_view value = take_until(&cpuinfo, '\n');
    if (value.find(':') == std::string_view::npos) continue;
    if (trim(take_until(&value, ':')) == name) return std::string(trim(value));
  }
  return std::nullopt;
}

bool has_word(std::string_view list, std::string_view word) {
  for (const std::string_view one : words_of(list)) {
    if (one == word) return true;
  }
  return false;
}

std::optional<std::vector<std::string>> swap_names(std::string_view swaps) {
  if (!take_until(&swaps, '\n').starts_with("Filename")) return std::nullopt;
  std::vector<std::string> names;
  while (!swaps.empty()) {
    const auto words = words_of(take_until(&swaps, '\n'));
    if (!words.empty()) names.emplace_back(words[0]);
  }
  return names;
}

std::string cgroup2_mount(std::string_view mounts) {
  std::string mount;
  while (!mounts.empty()) {
    const auto words = words_of(take_until(&mounts, '\n'));
    if (words.size() >= 3 && words[2] == "cgroup2") mount = words[1];
  }
  return mount;
}

int cgroup_version(std::string_view mounts, std::string_view controllers) {
  if (has_word(controllers, "cpu") && has_word(controllers, "memory") && has_word(controllers, "pids")) {
    return 2;
  }
  bool cpu = false;
  bool memory = false;
  bool pids = false;
  while (!mounts.empty()) {
    const auto words = words_of(take_until(&mounts, '\n'));
    if (words.size() < 4 || words[2] != "cgroup") continue;
    cpu = cpu || has_option(words[3], "cpu");
    memory = memory || has_option(words[3], "memory");
    pids = pids || has_option(words[3], "pids");
  }
  return cpu && memory && pids ? 1 : 0;
}

bool has_filesystem(std::string_view filesystems, std::string_view modules, std::string_view name) {
  if (has_word(filesystems, name)) return true;
  return modules.find("/" + std::string(name) + ".ko") != std::string_view::npos;
}

std::optional<Probed> parse_probe(std::string_view text) {
  boost::system::error_code ec;
  const boost::json::value value = boost::json::parse(trim(text), ec);
  if (ec || !value.is_object()) return std::nullopt;
  const auto field = [&](std::string_view name) -> std::optional<std::string> {
    const boost::json::value* found = value.get_object().if_contains(name);
    if (found == nullptr || !found->is_string()) return std::nullopt;
    return std::string(found->get_string());
  };
  const auto accel = field("accel");
  if (!accel) return std::nullopt;
  return Probed{field("driver").value_or("qemu"), *accel};
}

}  // namespace wrenn::cli
