#include "vmm/firecracker/memory_layout.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <map>

#include "sys/file.h"
#include "vmm/proc.h"

namespace wrenn::vmm::firecracker {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
// Where the hole begins: up to Firecracker 1.12, and since.
constexpr std::array<std::uint64_t, 2> kHoles = {3328 * kMiB, 3072 * kMiB};
constexpr std::uint64_t kRootPointer = 0xe'0000;
constexpr std::string_view kSignature = "RSD PTR ";

sys::ProcessMemory whole(pid_t pid, std::uint64_t address, std::uint64_t size) {
  return {.pid = pid, .parts = {{.offset = 0, .size = size, .address = address}}};
}

sys::ProcessMemory split(pid_t pid, std::uint64_t low, std::uint64_t high, std::uint64_t hole,
                         std::uint64_t size) {
  return {.pid = pid,
          .parts = {{.offset = 0, .size = hole, .address = low},
                    {.offset = hole, .size = size - hole, .address = high}}};
}

std::uint64_t number_in(const boost::json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  if (value == nullptr) return 0;
  if (value->is_uint64()) return value->get_uint64();
  return value->is_int64() && value->get_int64() > 0 ? static_cast<std::uint64_t>(value->get_int64()) : 0;
}

}  // namespace

Result<sys::ProcessMemory> parse_mappings(std::string_view text, pid_t pid, std::uint64_t size) {
  const auto malformed = [] {
    return fail(Code::kInternal, "Firecracker described its memory in an unknown way");
  };
  boost::system::error_code ec;
  const auto value = boost::json::parse(text, ec);
  if (ec || !value.is_array()) return malformed();
  sys::ProcessMemory memory{.pid = pid, .parts = {}};
  for (const auto& each : value.get_array()) {
    if (!each.is_object()) return malformed();
    const auto& mapping = each.get_object();
    const sys::MemoryPart part{.offset = number_in(mapping, "offset"),
                               .size = number_in(mapping, "size"),
                               .address = number_in(mapping, "base_host_virt_addr")};
    const bool fits = part.offset == memory.size() && part.size > 0 && part.size <= size - memory.size();
    if (!fits || part.address == 0 || part.size % sys::kPageBytes != 0 || part.address % sys::kPageBytes != 0)
      return malformed();
    memory.parts.push_back(part);
  }
  if (memory.size() != size || size == 0) return malformed();
  return memory;
}

std::string mappings_text(const sys::ProcessMemory& memory) {
  boost::json::array parts;
  for (const sys::MemoryPart& part : memory.parts) {
    parts.push_back({{"base_host_virt_addr", part.address}, {"size", part.size}, {"offset", part.offset}});
  }
  return boost::json::serialize(parts);
}

Result<sys::ProcessMemory> find_mapped(std::string_view maps, pid_t pid, std::uint64_t size) {
  struct Extent {
    std::uint64_t begin, end;  // offsets in the file
  };
  // A file's parts, by the address that offset 0 would have if all of the file were mapped there.
  std::map<std::string, std::map<std::uint64_t, Extent>> files;
  for (const Mapping& mapping : private_mappings(maps)) {
    if (mapping.file.empty()) continue;
    const std::uint64_t end = mapping.offset + (mapping.end - mapping.begin);
    const auto [part, added] =
        files[mapping.file].try_emplace(mapping.begin - mapping.offset, mapping.offset, end);
    if (!added) part->second.end = end;
  }
  const auto from_start = [](const auto& part) { return part.second.begin == 0; };
  std::erase_if(files, [&](const auto& file) { return std::ranges::none_of(file.second, from_start); });
  if (files.empty()) return fail(Code::kNotFound, "no file is mapped as the guest's memory");
  const auto unclear = [] {
    return fail(Code::kInternal, "it is unclear which mappings are the guest's memory");
  };
  auto parts = files.begin()->second;
  const bool outside =
      std::ranges::any_of(parts, [size](const auto& part) { return part.second.end > size; });
  if (files.size() != 1 || parts.size() > 2 || outside) return unclear();
  const auto low = *std::ranges::find_if(parts, from_start);
  if (parts.size() == 1) return whole(pid, low.first, size);
  parts.erase(low.first);
  const auto high = *parts.begin();
  for (const std::uint64_t hole : kHoles) {
    if (low.second.end <= hole && hole <= high.second.begin)
      return split(pid, low.first, high.first + hole, hole, size);
  }
  return unclear();
}

Result<sys::ProcessMemory> find_booted(std::string_view maps, pid_t pid, std::uint64_t size,
                                       const std::function<bool(std::uint64_t)>& starts_at) {
  std::vector<Mapping> anonymous;
  for (const Mapping& mapping : private_mappings(maps)) {
    if (mapping.file.empty()) anonymous.push_back(mapping);
  }
  std::vector<sys::ProcessMemory> found;
  const auto consider = [&](std::uint64_t low, std::uint64_t high, std::uint64_t hole) {
    if (starts_at(low))
      found.push_back(hole == size ? whole(pid, low, size) : split(pid, low, high, hole, size));
  };
  for (const Mapping& one : anonymous) {
    if (one.end - one.begin == size) consider(one.begin, 0, size);
  }
  for (const std::uint64_t hole : kHoles) {
    if (hole >= size || !found.empty()) continue;
    for (const Mapping& one : anonymous) {
      // Neighbours of the kernel's choosing are one mapping, the part made first on top.
      if (one.end - one.begin == size) consider(one.begin + (size - hole), one.begin, hole);
      if (one.end - one.begin != hole) continue;
      for (const Mapping& other : anonymous) {
        if (other.begin != one.begin && other.end - other.begin == size - hole)
          consider(one.begin, other.begin, hole);
      }
    }
  }
  if (found.size() == 1) return found.front();
  return fail(Code::kInternal,
              fmt::format("{} mappings look like the guest's memory of {} bytes", found.size(), size));
}

bool has_root_pointer(async::Blocking blocking, pid_t pid, std::uint64_t address) {
  const auto memory = sys::open_file(fmt::format("/proc/{}/mem", pid), O_RDONLY);
  std::array<char, kSignature.size()> text{};
  return memory &&
         sys::pread_all(blocking, memory->get(), text.data(), text.size(), address + kRootPointer) &&
         std::string_view(text.data(), text.size()) == kSignature;
}

}  // namespace wrenn::vmm::firecracker
