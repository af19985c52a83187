// What a server takes for a request, and where it takes it to end.
#include "net/framing.h"

#include <gtest/gtest.h>
#include <time.h>

#include "net/forward.h"
#include "net/limits.h"
#include "net/parser.h"
#include "net/serving.h"

namespace wrenn::net {
namespace {

// "<method> <target> <Host> <body>"
Task<> describe(std::shared_ptr<Exchange> exchange) {
  const std::string body = CO_TRY(co_await read_all(exchange.get(), 1024));
  const RequestHead& head = exchange->request();
  const std::string text =
      head.method + " " + head.target + " " + std::string(head.headers.get("host")) + " " + body;
  co_return co_await exchange->respond(200, {}, text);
}

struct Judged {
  std::string head;
  std::string answer;  // its status, or the body of a 200
};

Task<> judge(Served served, std::vector<Judged> cases) {
  for (const Judged& each : cases) {
    // A second request follows at once: of a refused one nothing may be taken for another.
    const std::string next = "GET /next HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n";
    const std::string got = CO_TRY(co_await talk(served.places[0], each.head + next));
    if (each.answer.size() == 3) {
      EXPECT_TRUE(got.starts_with("HTTP/1.1 " + each.answer)) << each.head << got;
      EXPECT_EQ(got.find("/next"), std::string::npos) << each.head;
      EXPECT_NE(got.find("Connection: close"), std::string::npos) << each.head;
    } else {
      EXPECT_NE(got.find("\r\n\r\n" + each.answer + "HTTP/1.1 200"), std::string::npos) << each.head << got;
      EXPECT_TRUE(got.ends_with("GET /next n ")) << each.head << got;
    }
  }
  co_return Result<>{};
}

std::string get(const std::string& target, const std::string& fields = "Host: h\r\n") {
  return "GET " + target + " HTTP/1.1\r\n" + fields + "\r\n";
}
std::string post(const std::string& fields, const std::string& body = "") {
  return "POST /p HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n" + body;
}

TEST(Framing, BodiesEndWhereOneFieldSays) {
  const std::string chunks = "3\r\nabc\r\n0\r\n\r\n";
  const std::vector<Judged> cases = {
      {post("Content-Length: 3\r\n", "abc"), "POST /p h abc"},
      {post("Transfer-Encoding: chunked\r\n", chunks), "POST /p h abc"},
      {post("Transfer-Encoding:  Chunked \r\n", chunks), "POST /p h abc"},
      {post("Content-Length: 0\r\n"), "POST /p h "},
      {post("Transfer-Encoding: xchunked\r\n", chunks), "400"},
      {post("Transfer-Encoding: gzip\r\n", chunks), "400"},
      {post("Transfer-Encoding: identity\r\n", chunks), "400"},
      {post("Transfer-Encoding: chunked, identity\r\n", chunks), "400"},
      {post("Transfer-Encoding: chunked, chunked\r\n", chunks), "400"},
      {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks), "400"},
      {post("Transfer-Encoding: chunked;q=1\r\n", chunks), "400"},
      {post("Transfer-Encoding: \"chunked\"\r\n", chunks), "400"},
      {post("Transfer-Encoding:\r\n", chunks), "400"},
      {post("Transfer-Encoding: gzip, chunked\r\n", chunks), "501"},
      {post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", chunks), "501"},
      {post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", chunks), "400"},
      {post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", chunks), "400"},
      {post("Transfer-Encoding: gzip\r\nContent-Length: 3\r\n", "abc"), "400"},
      {post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), "400"},
      {post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"), "400"},
      {post("Content-Length: 3, 3\r\n", "abc"), "400"},
      {post("Content-Length: +3\r\n", "abc"), "400"},
      {post("Content-Length: 0x3\r\n", "abc"), "400"},
      {post("Content-Length:\r\n", "abc"), "400"},
      {post("Content-Length: 99999999999999999999\r\n", "abc"), "400"},
      {"POST /p HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, "400"},
  };
  serving({describe}, [&](Served served) { return judge(std::move(served), cases); });
}

TEST(Framing, RequestsHaveOneHostAndAPath) {
  const std::vector<Judged> cases = {
      {get("/a?b=c"), "GET /a?b=c h "},
      {get("//a"), "GET //a h "},
      {get("/", "Host:\r\n"), "GET /  "},
      {get("/", "Host: [::1]:80\r\n"), "GET / [::1]:80 "},
      {get("/", ""), "400"},
      {get("/", "Host: h\r\nHost: h\r\n"), "400"},
      {get("/", "Host: h\r\nHOST: i\r\n"), "400"},
      {get("/", "Host: a, b\r\n"), "400"},
      {get("/", "Host: a/b\r\n"), "400"},
      {get("/", "Host: u@h\r\n"), "400"},
      {get("http://other:81/x?y"), "GET /x?y other:81 "},
      {get("HTTP://other"), "GET / other "},
      {get("https://other?q"), "GET /?q other "},
      {get("http://"), "400"},
      {get("http:///x"), "400"},
      {get("http://u:p@other/x"), "400"},
      {get("ftp://other/x"), "400"},
      {get("*"), "400"},
      {get("other:80"), "400"},
      {get("a/b"), "400"},
      {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
      {"CONNECT other:80 HTTP/1.1\r\nHost: h\r\n\r\n", "501"},
      {"CONNECT /x HTTP/1.1\r\nHost: h\r\n\r\n", "501"},
      {get("/", "Host: h\r\nA : b\r\n"), "400"},
      {get("/", "Host : h\r\n"), "400"},
      {get("/", " Host: h\r\n"), "400"},
      {get("/", "Host: h\r\nA\r\n"), "400"},
      {get("/", "Host: h\r\nA: b\rc\r\n"), "400"},
      {get("/", "Host: h\nA: b\r\n"), "400"},
      {"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
      {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", "400"},
      {"G(T / HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
  };
  serving({describe}, [&](Served served) { return judge(std::move(served), cases); });
}

std::string fields(std::size_t count) {
  std::string text = "Host: h\r\n";
  for (std::size_t i = 1; i < count; ++i) text += "x:\r\n";
  return text;
}

TEST(Framing, AHeadHasOnlySoManyFields) {
  const std::vector<Judged> cases = {{get("/", fields(kMaxHeaderFields)), "GET / h "},
                                     {get("/", fields(kMaxHeaderFields + 1)), "431"},
                                     {get("/", fields(15'000)), "431"}};
  serving({describe}, [&](Served served) { return judge(std::move(served), cases); });
}

Result<ParsedHead> response_of(const std::string& fields) {
  Parser parser(Parser::Role::kResponse, kMaxResponseHeaderBytes);
  TRY(parser.parse_head("HTTP/1.1 200 OK\r\n" + fields + "\r\n"));
  return parser.take_head();
}

TEST(Framing, AnswersAreJudgedLikeRequests) {
  EXPECT_EQ(response_of("Content-Length: 5\r\n")->length, 5U);
  EXPECT_EQ(response_of("Transfer-Encoding: chunked\r\n")->body, BodyKind::kChunked);
  EXPECT_EQ(response_of("")->body, BodyKind::kUntilEof);
  for (const char* bad : {"Transfer-Encoding: gzip\r\n", "Transfer-Encoding: gzip, chunked\r\n",
                          "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                          "Content-Length: 5\r\nContent-Length: 5\r\n"}) {
    EXPECT_FALSE(response_of(bad)) << bad;
  }
  EXPECT_EQ(response_of(fields(kMaxHeaderFields + 1)).error().code(), Code::kResourceExhausted);
}

TEST(Framing, AHeadAnnouncesTheBodyThatFollows) {
  const Endpoint at{.host = "::1", .port = 81};
  RequestHead head{.method = "GET", .target = "/", .headers = {}};
  for (const char* name : {"content-LENGTH", "Transfer-encoding", "connection", "UPGRADE"}) {
    head.headers.add(name, "115");
    head.headers.add(name, "chunked");
  }
  const std::string host = "Host: [::1]:81\r\n";
  EXPECT_EQ(request_text(at, head, 0, "").value(), "GET / HTTP/1.1\r\n" + host + "\r\n");
  EXPECT_EQ(request_text(at, head, 7, "").value(), "GET / HTTP/1.1\r\n" + host + "Content-Length: 7\r\n\r\n");
  EXPECT_EQ(request_text(at, head, std::nullopt, "").value(),
            "GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(request_text(at, head, 0, "x").value(),
            "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: x\r\n\r\n");
  head.method = "POST";
  EXPECT_EQ(request_text(at, head, 0, "").value(),
            "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n");
}

TEST(Framing, AHeadThatWouldBreakIsNotWritten) {
  const Endpoint at{.host = "h", .port = 80};
  const RequestHead good{.method = "GET", .target = "/", .headers = {}};
  for (const char* target : {"", "a", "*", "/a b", "/a\r\nB: c", "/\x7f"}) {
    RequestHead bad = good;
    bad.target = target;
    EXPECT_FALSE(request_text(at, bad, 0, "")) << target;
  }
  for (const char* method : {"", "G T", "GET\r\n"}) {
    RequestHead bad = good;
    bad.method = method;
    EXPECT_FALSE(request_text(at, bad, 0, "")) << method;
  }
  RequestHead two = good;
  two.headers.add("Host", "a");
  two.headers.add("host", "b");
  EXPECT_FALSE(request_text(at, two, 0, ""));
  EXPECT_FALSE(request_text(at, good, 0, "x\r\nB: c"));
}

TEST(Framing, NamesOfAllConnectionFieldsAreOneHop) {
  Headers headers;
  headers.add("Connection", "keep-alive, X-One ,");
  headers.add("X-One", "1");
  headers.add("CONNECTION", ",x-two");
  headers.add("x-Two", "2");
  headers.add("Keep-Alive", "5");
  headers.add("TE", "trailers");
  headers.add("X-Three", "3");
  const Headers kept = end_to_end(headers);
  ASSERT_EQ(kept.all().size(), 1U);
  EXPECT_EQ(kept.get("x-three"), "3");
  EXPECT_TRUE(ConnectionOptions(headers).has("Keep-Alive"));
  EXPECT_FALSE(ConnectionOptions(headers).has("upgrade"));
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// The least of some runs, in processor time, so that a busy machine changes little.
double cost_of_end_to_end(std::size_t names) {
  Headers headers;
  std::string list;
  for (std::size_t i = 0; i < names; ++i) {
    list += "a,";
    headers.add("x", "");
  }
  headers.add("Connection", list);
  double least = 1e9;
  for (int run = 0; run < 5; ++run) {
    const double began = cpu_seconds();
    EXPECT_EQ(end_to_end(headers).all().size(), names);
    least = std::min(least, cpu_seconds() - began);
  }
  return least;
}

TEST(Framing, OneHopNamesCostNoMoreThanTheirNumber) {
  const double small = cost_of_end_to_end(4'000);
  // Eight times as much to do; were each field looked up in each name, it would be sixty-four times.
  EXPECT_LT(cost_of_end_to_end(32'000), small * 24);
}

}  // namespace
}  // namespace wrenn::net
