// Answers that are held and sent in pieces, and the look-ups that strangers share.
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <list>
#include <set>

#include "base/bytes.h"
#include "control/batched_lookup.h"
#include "control/exec_output.h"
#include "control/list_answer.h"
#include "control/lru_map.h"
#include "control/shared_calls.h"

namespace wrenn::control {
namespace {

constexpr std::size_t kMib = 1024 * 1024;

TEST(AnswerBudget, ATeamLeavesAsMuchAsItHolds) {
  AnswerBudget budget(12 * kMib);
  AnswerBudget::Share first(&budget, "greedy");
  std::size_t taken = 0;
  while (first.grow(kMib)) ++taken;
  EXPECT_EQ(taken, 6) << "half for one";
  AnswerBudget::Share another(&budget, "greedy");
  EXPECT_EQ(another.grow(1).error().reason(), "answers_held") << "a team's answers count together";
  AnswerBudget::Share second(&budget, "other");
  EXPECT_TRUE(second.grow(3 * kMib));
  EXPECT_FALSE(second.grow(kMib));
  {
    AnswerBudget::Share third(&budget, "third");
    EXPECT_TRUE(third.grow(kMib)) << "there is room for one more";
  }
  first.shrink(4 * kMib);
  EXPECT_TRUE(second.grow(kMib));
  EXPECT_EQ(budget.held(), 6 * kMib);
}

TEST(AnswerBudget, WhatGoesIsGivenBack) {
  AnswerBudget budget(10);
  {
    AnswerBudget::Share share(&budget, "t");
    EXPECT_TRUE(share.grow(5));
  }
  EXPECT_EQ(budget.held(), 0);
}

TEST(AnswerBudget, ACommandThatIsRefusedMakesRoomForTheOthers) {
  AnswerBudget budget(12 * kMib);
  std::list<ExecOutput> crowd;
  for (int i = 0; i < 12; ++i) crowd.emplace_back(&budget, "team");
  std::set<const ExecOutput*> refused;  // and not gone yet
  const std::string piece(64 * 1024, 'x');
  for (int round = 0; round < 32; ++round) {  // 2 MiB each, side by side: four times what the team may hold
    for (ExecOutput& output : crowd) {
      if (refused.contains(&output)) continue;
      if (!output.append(ExecOutput::Stream::kOut, piece)) refused.insert(&output);
    }
  }
  EXPECT_EQ(crowd.size() - refused.size(), 3) << "as many as fit finish";
}

// The text of an answer's stream, put together as ExecOutput sends it.
std::string blocks_of(const std::vector<std::string>& pieces, bool* text) {
  OutputText output;
  for (const std::string& piece : pieces) output.append(piece);
  *text = output.is_text();
  std::string all;
  while (const std::string* block = output.front()) {
    all += *text ? *block : to_base64(*block);
    output.pop_front();
  }
  return all;
}

TEST(OutputText, IsWholeHoweverItCame) {
  std::string bytes;
  for (std::size_t i = 0; i < 200'001; ++i) bytes += static_cast<char>(i * 7 % 256);
  for (const std::size_t step : {1UL, 7UL, 61'440UL, 100'000UL, 300'000UL}) {
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < bytes.size(); at += step) pieces.push_back(bytes.substr(at, step));
    bool text = true;
    EXPECT_EQ(blocks_of(pieces, &text), to_base64(bytes)) << step;
    EXPECT_FALSE(text);
  }
}

TEST(OutputText, ACharacterMayBeCutAnywhere) {
  bool text = false;
  EXPECT_EQ(blocks_of({"\xE2", "\x82", "\xAC!"}, &text), "€!");
  EXPECT_TRUE(text);
  blocks_of({"\xE2\x82"}, &text);
  EXPECT_FALSE(text) << "its rest never came";
  blocks_of({"a\xE2", "b"}, &text);
  EXPECT_FALSE(text);
}

TEST(JsonText, ReadsBackAsItWas) {
  std::string every;
  for (int c = 0; c < 0x80; ++c) every += static_cast<char>(c);
  every += "€ü\xF0\x9F\x98\x80";
  std::string json = "\"";
  append_json_text(&json, every);
  json += '"';
  EXPECT_EQ(boost::json::parse(json).as_string(), every);
}

// A body that comes in pieces of `step` bytes.
class Pieces : public net::BodyReader {
 public:
  Pieces(std::string bytes, std::size_t step) : bytes_(std::move(bytes)), step_(step) {}
  Task<std::size_t> read(std::span<char> buffer) override {
    const std::size_t got = std::min({buffer.size(), step_, bytes_.size() - at_});
    std::copy_n(bytes_.data() + at_, got, buffer.data());
    at_ += got;
    co_return got;
  }

 private:
  std::string bytes_;
  std::size_t step_;
  std::size_t at_ = 0;
};

Result<std::vector<std::string>> entries_of(std::string bytes, std::size_t step, AnswerBudget* budget) {
  async::Loop loop(1);
  ListAnswer list(budget, "team");
  Pieces body(std::move(bytes), step);
  const Result<> read = loop.run_plain(list.read(&body));
  if (!read) return fail(read.error());
  std::vector<std::string> entries;
  while (const auto entry = list.next()) entries.emplace_back(*entry);
  return entries;
}

TEST(ListAnswer, GivesWhatCame) {
  AnswerBudget budget(64 * kMib);
  const std::string wire =
      std::string("\x0a\x01") + "a" + "\x0a" + std::string("\0", 1) + "\x0a\x90\x03" + std::string(400, 'x');
  for (const std::size_t step : {1UL, 3UL, 1'000UL}) {
    const auto entries = entries_of(wire, step, &budget);
    ASSERT_TRUE(entries) << entries.error().to_string();
    EXPECT_EQ(*entries, (std::vector<std::string>{"a", "", std::string(400, 'x')}));
  }
  EXPECT_EQ(entries_of("", 1, &budget)->size(), 0);
}

TEST(ListAnswer, IsBoundedInEntriesAndBytes) {
  AnswerBudget budget(1024 * kMib);
  std::string empty_entries;
  for (std::size_t i = 0; i <= kMaxListEntries; ++i) empty_entries += std::string("\x0a\0", 2);
  EXPECT_EQ(entries_of(empty_entries, 65536, &budget).error().reason(), "too_many_entries");
  empty_entries.resize(2 * kMaxListEntries);
  EXPECT_EQ(entries_of(empty_entries, 65536, &budget)->size(), kMaxListEntries);
  EXPECT_EQ(entries_of(std::string(kMaxListBytes + 1, '\x0a'), kMib, &budget).error().reason(), "too_large");
  for (const std::string& odd :
       {std::string("\x0a\x05"
                    "abc"),
        std::string("\x12\x01"
                    "a"),
        std::string("\x0a"), std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")}) {
    EXPECT_EQ(entries_of(odd, 65536, &budget).error().reason(), "agent_error");
  }
  EXPECT_EQ(budget.held(), 0);
  AnswerBudget small(kMib);
  EXPECT_EQ(entries_of(std::string(2 * kMib, '\x0a'), kMib, &small).error().reason(), "answers_held");
}

TEST(LruMap, TheOldestMakesRoom) {
  LruMap<int> map(2);
  map.at("a") = 1;
  map.at("b") = 2;
  EXPECT_EQ(*map.find("a"), 1);
  map.at("c") = 3;
  EXPECT_EQ(map.find("b"), nullptr);
  EXPECT_NE(map.find("a"), nullptr);
  map.erase("a");
  EXPECT_EQ(map.size(), 1);
}

using Found = std::map<std::string, int>;

struct Queries {
  int number = 0;
  int running = 0;
  int most = 0;
  std::size_t keys = 0;
};

Task<Found> answer_query(Queries* queries, std::vector<std::string> keys) {
  ++queries->number;
  queries->most = std::max(queries->most, ++queries->running);
  queries->keys += keys.size();
  CO_TRY(co_await async::sleep_for(Milliseconds(5)));
  --queries->running;
  Found found;
  for (const std::string& key : keys) {
    if (key.starts_with("good")) found[key] = 1;
  }
  co_return found;
}

Task<> look_up(BatchedLookup<int>* lookup, std::string key, int* good) {
  if (CO_TRY(co_await lookup->find(std::move(key)))) ++*good;
  co_return Result<>{};
}

Task<> look_up_many(Queries* queries, int* good) {
  const auto executor = co_await asio::this_coro::executor;
  BatchedLookup<int> lookup(
      executor, [queries](std::vector<std::string> keys) { return answer_query(queries, std::move(keys)); });
  async::Nursery crowd(executor);
  for (int i = 0; i < 1000; ++i) {
    crowd.spawn("bad", look_up(&lookup, "bad" + std::to_string(i), good));
    if (i % 100 == 0) crowd.spawn("good", look_up(&lookup, "good", good));
  }
  CO_TRY(co_await crowd.wait());
  co_await lookup.stop();
  co_return Result<>{};
}

TEST(BatchedLookup, ACrowdIsOneQueryAtATime) {
  Queries queries;
  int good = 0;
  async::Loop loop(1);
  ASSERT_TRUE(loop.run_plain(look_up_many(&queries, &good)));
  EXPECT_EQ(good, 10);
  EXPECT_EQ(queries.most, 1);
  EXPECT_LE(queries.number, 1010 / static_cast<int>(kMaxLookupBatch) + 3);
}

Task<> count(int* calls) {
  ++*calls;
  co_return co_await async::sleep_for(Milliseconds(5));
}

Task<> join_many(int* calls) {
  const auto executor = co_await asio::this_coro::executor;
  SharedCalls<void> shared(executor, 1);
  async::Nursery crowd(executor);
  const auto join = [](SharedCalls<void>* all, int* counted) -> Task<> {
    co_return co_await all->join("key", [counted] { return count(counted); });
  };
  for (int i = 0; i < 100; ++i) crowd.spawn("join", join(&shared, calls));
  CO_TRY(co_await crowd.wait());
  CO_TRY(co_await join(&shared, calls));
  co_await shared.stop();
  co_return Result<>{};
}

// A call that never waits has ended before its caller asks for the result.
Task<> join_quick() {
  SharedCalls<int> shared(co_await asio::this_coro::executor, 1);
  const auto quick = []() -> Task<int> { co_return 7; };
  EXPECT_EQ(CO_TRY(co_await shared.join("key", quick)), 7);
  co_await shared.stop();
  co_return Result<>{};
}

TEST(SharedCalls, WhoAsksMeanwhileShares) {
  int calls = 0;
  async::Loop loop(1);
  ASSERT_TRUE(loop.run_plain(join_many(&calls)));
  EXPECT_EQ(calls, 2) << "one for the crowd, one for who came later";
  async::Loop another(1);
  ASSERT_TRUE(another.run_plain(join_quick()));
}

}  // namespace
}  // namespace wrenn::control
