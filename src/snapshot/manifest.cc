#include "snapshot/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

namespace wrenn::snapshot {
namespace {

namespace json = boost::json;

// Every text field of a manifest with its name on disk.
constexpr std::pair<const char*, std::string Manifest::*> kTexts[] = {
    {"kind", &Manifest::kind},
    {"id", &Manifest::id},
    {"parent", &Manifest::parent},
    {"driver", &Manifest::driver},
    {"accel", &Manifest::accel},
    {"vmm_version", &Manifest::vmm_version},
    {"cpu_model", &Manifest::cpu_model},
    {"kernel_digest", &Manifest::kernel_digest},
    {"base_image", &Manifest::base_image},
    {"created_at", &Manifest::created_at},
};

Error corrupt(const std::string& path, std::string_view why) {
  return Error(Code::kDataLoss, fmt::format("{}: {}", path, why)).with_reason("snapshot_corrupt");
}

std::string text(const json::object& object, const char* name) {
  return std::string(object.at(name).as_string());
}

Manifest from_object(const json::object& object) {
  Manifest manifest;
  manifest.format = static_cast<int>(object.at("format").to_number<std::int64_t>());
  for (const auto& [name, field] : kTexts) manifest.*field = text(object, name);
  manifest.generation = object.at("generation").to_number<std::uint64_t>();
  manifest.vcpus = object.at("vcpus").to_number<int>();
  manifest.memory_mib = object.at("memory_mib").to_number<int>();
  for (const json::value& entry : object.at("files").as_array()) {
    const json::object& file = entry.as_object();
    manifest.files.push_back({.name = text(file, "name"),
                              .size = file.at("size").to_number<std::uint64_t>(),
                              .digest = text(file, "digest")});
  }
  return manifest;
}

// A file without a digest is one whose damage nobody would see.
Result<> check_complete(const Manifest& manifest, const std::string& path) {
  std::vector<std::string_view> wanted{"state", "overlay"};
  const bool sandbox = manifest.kind == "sandbox";
  if (sandbox) wanted.emplace_back("pages");
  if (!sandbox || manifest.format > kOldestFormat) wanted.emplace_back("memory");
  for (const std::string_view name : wanted) {
    if (manifest.find(name) == nullptr) return fail(corrupt(path, fmt::format("does not list {}", name)));
  }
  return {};
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.find('/') == std::string::npos && name.front() != '.';
}

}  // namespace

const Manifest::File* Manifest::find(std::string_view name) const {
  const auto it = std::ranges::find(files, name, &File::name);
  return it == files.end() ? nullptr : &*it;
}

std::string manifest_json(const Manifest& manifest) {
  json::object object{{"format", manifest.format},
                      {"generation", manifest.generation},
                      {"vcpus", manifest.vcpus},
                      {"memory_mib", manifest.memory_mib}};
  for (const auto& [name, field] : kTexts) object[name] = manifest.*field;
  json::array files;
  for (const Manifest::File& file : manifest.files) {
    files.push_back(json::object{{"name", file.name}, {"size", file.size}, {"digest", file.digest}});
  }
  object["files"] = std::move(files);
  return json::serialize(object);
}

Result<Manifest> parse_manifest(const std::string& text, const std::string& path) {
  try {
    Manifest manifest = from_object(json::parse(text).as_object());
    if (manifest.format < kOldestFormat || manifest.format > kFormatVersion) {
      return fail(corrupt(path, "written by another version"));
    }
    if (manifest.files.size() > kMaxManifestFiles) return fail(corrupt(path, "too many files"));
    for (const auto& file : manifest.files) {
      if (!is_plain_name(file.name)) return fail(corrupt(path, "a file name leaves the folder"));
    }
    TRY(check_complete(manifest, path));
    return manifest;
  } catch (const std::exception& e) {
    return fail(corrupt(path, e.what()));
  }
}

}  // namespace wrenn::snapshot
