#include "connect/elements.h"

#include <gtest/gtest.h>

#include "filesystem/filesystem.pb.h"

namespace wrenn::connect {
namespace {

using filesystem::EntryInfo;
using filesystem::ListDirResponse;

constexpr ElementLimits kLimits{.count = 100, .bytes = 50};

Result<std::vector<std::string>> names_in(std::string bytes) {
  ElementReader reader(std::move(bytes), ListDirResponse::kEntriesFieldNumber, kLimits);
  std::vector<std::string> names;
  EntryInfo entry;
  while (TRY(reader.next(&entry))) names.push_back(entry.name());
  return names;
}

std::string list_of(std::vector<std::string> names) {
  ListDirResponse list;
  for (auto& name : names) list.add_entries()->set_name(std::move(name));
  return list.SerializeAsString();
}

TEST(Elements, AreReadAsParsingTheWholeWould) {
  EXPECT_EQ(names_in("").value(), std::vector<std::string>{});
  EXPECT_EQ(names_in(list_of({"a", "", "c"})).value(), (std::vector<std::string>{"a", "", "c"}));
  // Fields of other numbers and kinds stand between: 2 as a varint, 3 as fixed64, 4 as text, 5 as fixed32.
  const std::string others(
      "\x10\x96\x01\x19"
      "12345678"
      "\x22\x03"
      "abc"
      "\x2d"
      "1234",
      22);
  EXPECT_EQ(names_in(others + list_of({"a"}) + others).value(), std::vector<std::string>{"a"});
}

TEST(Elements, AreLimited) {
  EXPECT_EQ(names_in(list_of(std::vector<std::string>(100))).value().size(), 100U);
  EXPECT_EQ(names_in(list_of(std::vector<std::string>(101))).error().reason(), "too_many_entries");
  EXPECT_EQ(names_in(list_of({std::string(60, 'n')})).error().reason(), "too_large");
}

TEST(Elements, MalformedListsAreErrors) {
  const std::string whole = list_of({"name"});
  for (std::size_t size = 1; size < whole.size(); ++size) {
    EXPECT_EQ(names_in(whole.substr(0, size)).error().code(), Code::kInternal) << size;
  }
  for (const std::string bad : {"\x0b", "\x0c", "\x0f", "\x0a\xff\xff\xff\xff\x0f", "\x19\x31\x32\x33",
                                "\x10\xff", "\x0a\x02\xff\xff"}) {
    EXPECT_EQ(names_in(bad).error().code(), Code::kInternal);
  }
}

}  // namespace
}  // namespace wrenn::connect
