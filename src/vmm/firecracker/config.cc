#include "vmm/firecracker/config.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "vmm/jail.h"

namespace wrenn::vmm::firecracker {
namespace {

namespace json = boost::json;

constexpr const char* kSocket = "/api.sock";
constexpr model::Version kRenamedTracking{.major = 1, .minor = 13, .patch = 0};
constexpr int kMaxOpenFiles = 256;
constexpr const char* kBaseDrive = "base";
constexpr const char* kOverlayDrive = "overlay";
constexpr const char* kInterface = "eth0";

// What we read of the statistics, the size, is up to date without; but only with an interval are they there.
constexpr int kBalloonStatsSec = 3600;
constexpr int kRefillMs = 1000;

// A bucket that holds a second's worth; one of size 0 is no limit.
json::object bucket(std::uint64_t per_second) {
  return {{"size", per_second}, {"refill_time", per_second == 0 ? 0 : kRefillMs}};
}

json::object disk_limiter(const DeviceLimits& limits) {
  return {{"bandwidth", bucket(limits.disk_bytes_per_sec)}, {"ops", bucket(limits.disk_ops_per_sec)}};
}

json::object network_limiter(const DeviceLimits& limits) {
  return {{"bandwidth", bucket(limits.network_bytes_per_sec)}, {"ops", bucket(0)}};
}

json::object drive(const char* id, const DiskSpec& disk, const DeviceLimits& limits) {
  return {{"drive_id", id},
          {"rate_limiter", disk_limiter(limits)},
          {"path_on_host", disk.path},
          {"is_root_device", false},
          {"is_read_only", disk.read_only},
          // A host crash loses the guest's memory, thus the sandbox, anyway; a capture syncs the file itself.
          {"cache_type", "Unsafe"}};
}

}  // namespace

std::string kernel_args(const VmSpec& spec) {
  std::string args = spec.kernel_args + " pci=off i8042.noaux i8042.nomux i8042.dumbkbd";
  // The serial port cannot be taken out; a kernel that does not look for it leaves it silent.
  if (spec.serial_log.empty()) args += " 8250.nr_uarts=0";
  return args;
}

json::object machine_config(const VmSpec& spec) {
  json::object config{
      {"machine-config",
       {{"vcpu_count", spec.shape.vcpus},
        {"mem_size_mib", spec.shape.memory_mib},
        {"smt", false},
        {"track_dirty_pages", true}}},
      {"boot-source",
       {{"kernel_image_path", spec.kernel},
        {"initrd_path", spec.initramfs},
        {"boot_args", kernel_args(spec)}}},
      {"drives", json::array{drive(kBaseDrive, spec.base, spec.limits),
                             drive(kOverlayDrive, spec.overlay, spec.limits)}},
      {"balloon",
       {{"amount_mib", 0}, {"deflate_on_oom", true}, {"stats_polling_interval_s", kBalloonStatsSec}}},
      {"entropy", json::object{}}};
  if (!spec.tap.empty()) {
    config["network-interfaces"] = json::array{{{"iface_id", kInterface},
                                                {"host_dev_name", spec.tap},
                                                {"guest_mac", spec.mac},
                                                {"rx_rate_limiter", network_limiter(spec.limits)},
                                                {"tx_rate_limiter", network_limiter(spec.limits)}}};
  }
  return config;
}

std::vector<std::pair<std::string, json::object>> limit_requests(const VmSpec& spec) {
  std::vector<std::pair<std::string, json::object>> requests;
  for (const char* id : {kBaseDrive, kOverlayDrive}) {
    requests.emplace_back(std::string("/drives/") + id,
                          json::object{{"drive_id", id}, {"rate_limiter", disk_limiter(spec.limits)}});
  }
  if (!spec.tap.empty()) {
    requests.emplace_back(std::string("/network-interfaces/") + kInterface,
                          json::object{{"iface_id", kInterface},
                                       {"rx_rate_limiter", network_limiter(spec.limits)},
                                       {"tx_rate_limiter", network_limiter(spec.limits)}});
  }
  return requests;
}

std::string probe_config(const std::string& kernel, const std::string& initramfs) {
  return json::serialize(
      json::object{{"machine-config", {{"vcpu_count", 1}, {"mem_size_mib", 128}}},
                   {"boot-source",
                    {{"kernel_image_path", kernel},
                     {"initrd_path", initramfs},
                     {"boot_args", "console=ttyS0 quiet pci=off reboot=t panic=-1 wrenn.probe"}}},
                   {"drives", json::array{}}});
}

json::object load_request(const model::Version& version, const char* backend, const char* path) {
  json::object request{{"snapshot_path", kJailState},
                       {"mem_backend", {{"backend_type", backend}, {"backend_path", path}}},
                       {"resume_vm", false}};
  request[version < kRenamedTracking ? "enable_diff_snapshots" : "track_dirty_pages"] = true;
  return request;
}

json::object save_request(const char* state, const char* memory) {
  return {{"snapshot_type", "Diff"}, {"snapshot_path", state}, {"mem_file_path", memory}};
}

std::string jail_id(const std::string& id) {
  std::string out = id;
  for (char& c : out) {
    if (c == '_') c = '-';
  }
  return out;
}

std::string jail_path(const VmSpec& spec) {
  return spec.run_dir + "/jail/firecracker/" + jail_id(spec.id) + "/root";
}

std::string socket_path(const VmSpec& spec) { return jail_path(spec) + kSocket; }

std::vector<std::string> jailer_command(const std::string& jailer, const std::string& firecracker,
                                        const VmSpec& spec, bool configured) {
  std::vector<std::string> argv{jailer,
                                "--id",
                                jail_id(spec.id),
                                "--exec-file",
                                firecracker,
                                "--uid",
                                std::to_string(spec.uid),
                                "--gid",
                                std::to_string(spec.gid),
                                "--chroot-base-dir",
                                spec.run_dir + "/jail",
                                "--resource-limit",
                                fmt::format("no-file={}", kMaxOpenFiles),
                                "--",
                                "--api-sock",
                                kSocket,
                                "--metrics-path",
                                kJailMetrics};
  if (configured) argv.insert(argv.end(), {"--config-file", kJailConfig});
  return argv;
}

}  // namespace wrenn::vmm::firecracker
